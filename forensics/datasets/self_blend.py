"""Self-blended fakes: a face blended onto itself, so that only the blending tells.

Shiohara and Yamasaki, "Detecting Deepfakes with Self-Blended Images", CVPR 2022; written from the
description of the method. One picture becomes source and target, one of them is changed in colour
and sharpness, the source is moved a little, and a softened hull of the face (`hulls`) is taken from
it. Everything is drawn from one generator: the same seed gives the same pair.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from forensics.datasets.hulls import Mask, hull_mask

Image = NDArray[np.uint8]

_KEPT = 0.4  # of a hull after erosion, at least; of a whole face 60 to 90% are
RATIOS = (0.25, 0.5, 0.75, 1.0, 1.0, 1.0)  # of the source in the middle of the mask


def self_blend(
    image: Image, landmarks: NDArray[np.float32], rng: np.random.Generator
) -> tuple[Image, Image]:
    """(target, fake), both (H, W, 3) uint8, from a real crop and its landmarks (5, 2) in pixels.

    The change goes to the source or to the target with equal chance, so that the real half of the
    pair carries it as often as the fake half. The crop should be wide (`deepfake extract` cuts at
    1.8): without context there is nothing to blend into. Raises ValueError for unknown landmarks.
    """
    changed = change(image, rng)
    source, target = (changed, image) if rng.random() < 0.5 else (image, changed)
    height, width = image.shape[:2]
    mask = hull_mask((height, width), landmarks, rng)
    warp = small_affine(height, width, rng)
    source = cv2.warpAffine(source, warp, (width, height), borderMode=cv2.BORDER_REFLECT_101)
    mask = np.asarray(cv2.warpAffine(mask, warp, (width, height)), dtype=np.float32)
    mask = soften(elastic(mask, rng), rng)
    ratio = np.float32(RATIOS[int(rng.integers(len(RATIOS)))])
    weight = mask * ratio
    fake = cv2.blendLinear(source, target, weight, 1 - weight)
    return target, np.asarray(fake, dtype=np.uint8)


def change(image: Image, rng: np.random.Generator) -> Image:
    """(H, W, 3) in another colour and sharpness, as a second camera or a generator would have.

    The published hue and saturation limits of 0.3 are in 8-bit units and change nothing; these are
    meant to be seen.
    """
    shift = rng.uniform(-20, 20, 3) if rng.random() < 0.3 else np.zeros(3)
    contrast, brightness = rng.uniform(0.9, 1.1), rng.uniform(-25, 25)
    saturation = rng.uniform(0.7, 1.3)
    # All of it is one matrix: colours go towards or away from their own grey.
    mix = saturation * np.eye(3) + (1 - saturation) / 3
    offset = mix @ (contrast * (shift - 128) + 128 + brightness)
    matrix = np.concatenate([contrast * mix, offset[:, np.newaxis]], axis=1)
    x = np.asarray(cv2.transform(image, matrix), dtype=np.uint8)
    height, width = image.shape[:2]
    if rng.random() < 0.5:
        factor = int(rng.choice([2, 4]))
        small = (max(2, width // factor), max(2, height // factor))
        x = cv2.resize(x, small, interpolation=cv2.INTER_NEAREST)
        return np.asarray(cv2.resize(x, (width, height)), dtype=np.uint8)
    # Unsharp masking, by a strength that shows: lightness is in the change above.
    soft = cv2.GaussianBlur(x, (0, 0), 1.5)
    strength = float(rng.uniform(0.3, 0.9))
    return np.asarray(cv2.addWeighted(x, 1 + strength, soft, -strength, 0), dtype=np.uint8)


def small_affine(height: int, width: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """(2, 3), for `cv2.warpAffine`: moved by up to 3% across and 1.5% down, scaled by up to 5%."""
    scale = rng.uniform(0.95, 1 / 0.95)
    matrix = np.asarray(cv2.getRotationMatrix2D((width / 2, height / 2), 0, scale), np.float64)
    matrix[:, 2] += rng.uniform(-1, 1, 2) * (0.03 * width, 0.015 * height)
    return matrix


def elastic(mask: Mask, rng: np.random.Generator) -> Mask:
    """(H, W), the mask's edge bent by up to 5% of the picture.

    In longer waves and further than published: there the landmarks differ from face to face, here
    they come from one template.
    """
    height, width = mask.shape
    cells = int(rng.integers(4, 9))
    grid = rng.uniform(-1, 1, (2, cells, cells)).astype(np.float32) * np.float32(0.05 * height)
    size = (width, height)
    rows, columns = np.indices((height, width), dtype=np.float32)
    xs = np.asarray(cv2.resize(grid[0], size, interpolation=cv2.INTER_CUBIC), np.float32) + columns
    ys = np.asarray(cv2.resize(grid[1], size, interpolation=cv2.INTER_CUBIC), np.float32) + rows
    return np.asarray(cv2.remap(mask, xs, ys, cv2.INTER_LINEAR), dtype=np.float32)


def soften(mask: Mask, rng: np.random.Generator) -> Mask:
    """A soft edge inside the hull: blurred, eroded, blurred; (H, W) float32 with maximum 1.

    At a random size of 192 to 256 px a side, so that edges differ in width. Erosion: whatever the
    first blur has lowered goes to 0.
    """
    height, width = mask.shape
    size = int(rng.integers(192, 257)), int(rng.integers(192, 257))
    x = np.asarray(cv2.resize(mask, size), dtype=np.float32)
    first = 2 * int(rng.integers(2, 13)) + 1  # odd, 5..25
    whole = x.sum()
    eroded = _eroded(x, first)
    while first > 3 and eroded.sum() < _KEPT * whole:  # a mouth is thinner than the widest kernel
        first = first // 4 * 2 + 1
        eroded = _eroded(x, first)
    x = eroded if eroded.any() else x
    second, sigma = 2 * int(rng.integers(2, 13)) + 1, float(rng.uniform(5, 45))
    x = cv2.GaussianBlur(x, (second, second), sigma)
    x = np.asarray(cv2.resize(x, (width, height)), dtype=np.float32)
    return x / max(float(x.max()), 1e-6)


def _eroded(mask: Mask, kernel: int) -> Mask:
    """1 where the mask is whole below a kernel of this width, else 0."""
    blurred = cv2.GaussianBlur(mask, (kernel, kernel), 0)
    # Not equality: a convolution sums to 1 within rounding only.
    return (np.asarray(blurred) >= 0.9999).astype(np.float32)
