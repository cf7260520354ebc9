"""Pseudo-fakes of wholly generated faces: a real face redrawn as a generator would leave it.

Talking-head generators draw the whole head at their own resolution: texture is smoothed, the shape
bends a little, and a restorer sharpens what is left. Training on a few dozen such clips teaches
their people instead (docs/log.md), while here both halves of a pair show the same person.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from forensics.datasets.self_blend import hull_mask, soften

Image = NDArray[np.uint8]


def rerender(
    image: Image, points: NDArray[np.float32], rng: np.random.Generator
) -> tuple[Image, Image]:
    """(real, fake) from one crop (H, W, 3) uint8 and landmarks (5, 2) in its pixels.

    Half of the reals are softened by plain scaling: softness alone must not tell.
    """
    real = _scaled(image, rng.uniform(0.3, 0.8), cv2.INTER_LINEAR) if rng.random() < 0.5 else image
    fake = _bend(image, rng)
    height, width = image.shape[:2]
    factor = rng.uniform(0.35, 0.9)
    small = cv2.resize(
        fake, (round(width * factor), round(height * factor)), interpolation=cv2.INTER_AREA
    )
    if rng.random() < 0.7:
        small = cv2.bilateralFilter(small, 5, rng.uniform(15, 60), rng.uniform(2, 5))
    else:
        small = cv2.medianBlur(small, int(rng.choice([3, 5])))
    mode = int(rng.choice([cv2.INTER_CUBIC, cv2.INTER_LANCZOS4, cv2.INTER_LINEAR]))
    drawn = np.asarray(cv2.resize(small, (width, height), interpolation=mode), dtype=np.uint8)
    if rng.random() < 0.6:
        amount = rng.uniform(0.3, 1.2)
        soft = cv2.GaussianBlur(drawn, (0, 0), rng.uniform(1, 2.5))
        drawn = np.asarray(cv2.addWeighted(drawn, 1 + amount, soft, -amount, 0), dtype=np.uint8)
    if rng.random() < 0.6:
        return real, drawn  # the whole picture is generated
    mask = soften(hull_mask((height, width), points, rng), rng)[:, :, np.newaxis]  # lips or face
    mixed = mask * drawn.astype(np.float32) + (1 - mask) * image.astype(np.float32)
    return real, np.asarray(mixed + 0.5, dtype=np.uint8)


def _scaled(image: Image, factor: float, mode: int) -> Image:
    height, width = image.shape[:2]
    size = max(2, round(width * factor)), max(2, round(height * factor))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, (width, height), interpolation=mode), dtype=np.uint8)


def _bend(image: Image, rng: np.random.Generator) -> Image:
    """A smooth random deformation by up to 1.5% of the width."""
    height, width = image.shape[:2]
    grid = rng.uniform(-1, 1, (2, 5, 5)).astype(np.float32) * 0.015 * width
    rows, columns = np.indices((height, width), dtype=np.float32)
    size = (width, height)
    xs = np.asarray(cv2.resize(grid[0], size, interpolation=cv2.INTER_CUBIC), np.float32) + columns
    ys = np.asarray(cv2.resize(grid[1], size, interpolation=cv2.INTER_CUBIC), np.float32) + rows
    bent = cv2.remap(image, xs, ys, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(bent, dtype=np.uint8)
