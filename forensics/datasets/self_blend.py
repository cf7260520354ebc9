"""Self-blended fakes: a face blended onto itself, so that only the blending tells.

Shiohara and Yamasaki, "Detecting Deepfakes with Self-Blended Images", CVPR 2022; written from the
description of the method. Landmarks: MTCNN's five points carry a face-shape template, whose parts
(whole face, inner face, lower face, eyes) give the hulls their variety. Masks are float32
throughout: an 8-bit 0/1 mask survives blurring unchanged and is never eroded.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Mask = NDArray[np.float32]

# Where MTCNN's five points lie on the template: eyes, nose tip, mouth corners; unit = eye distance.
_ANCHORS = np.array(
    [[-0.5, 0.0], [0.5, 0.0], [0.0, 0.62], [-0.4, 1.08], [0.4, 1.08]], dtype=np.float32
)


def _arc(
    cx: float, cy: float, rx: float, ry: float, start: float, end: float
) -> NDArray[np.float32]:
    angle = np.radians(np.linspace(start, end, 12))
    return np.stack([cx + rx * np.cos(angle), cy + ry * np.sin(angle)], axis=1).astype(np.float32)


_PARTS: dict[str, NDArray[np.float32]] = {
    "face": np.concatenate([_arc(0, 0.35, 1.0, 1.35, 0, 180), _arc(0, -0.1, 1.0, 0.75, 180, 360)]),
    "inner": np.concatenate(
        [_arc(0, 0.75, 0.75, 0.75, 0, 180), _arc(0, -0.1, 0.9, 0.35, 180, 360)]
    ),
    "lower": np.concatenate([_arc(0, 0.6, 0.9, 1.05, 0, 180), _arc(0, 0.55, 0.5, 0.35, 180, 360)]),
    "mouth": _arc(0, 1.08, 0.6, 0.4, 0, 360),
    "eyes": _arc(0, -0.02, 0.95, 0.4, 0, 360),
}
_PART_WEIGHTS = (0.45, 0.25, 0.12, 0.1, 0.08)


def self_blend(
    image: Image, points: NDArray[np.float32], rng: np.random.Generator
) -> tuple[Image, Image]:
    """(target, fake) from one crop (H, W, 3) and landmarks (5, 2) in its pixels.

    The colour and sharpness change goes to the source or to the target with equal chance, so that
    the real half of the pair carries it as often as the fake half.
    """
    changed = _change(image, rng)
    source, target = (changed, image) if rng.random() < 0.5 else (image, changed)
    height, width = image.shape[:2]
    mask = hull_mask((height, width), points, rng)
    warp = _small_affine(height, width, rng)
    source = cv2.warpAffine(source, warp, (width, height), borderMode=cv2.BORDER_REFLECT_101)
    mask = np.asarray(cv2.warpAffine(mask, warp, (width, height)), dtype=np.float32)
    mask = _soften(_elastic(mask, rng), rng)
    ratio = float(rng.choice([0.25, 0.5, 0.75, 1.0, 1.0, 1.0]))
    weight = (mask * ratio)[:, :, np.newaxis]
    fake = weight * source.astype(np.float32) + (1 - weight) * target.astype(np.float32)
    return target, _to_uint8(fake + 0.5)


def hull_mask(
    size_hw: tuple[int, int], points: NDArray[np.float32], rng: np.random.Generator
) -> Mask:
    """Convex hull of one jittered face part, float32 0 or 1, (H, W)."""
    name = list(_PARTS)[int(rng.choice(len(_PARTS), p=_PART_WEIGHTS))]
    shape = _PARTS[name] * rng.uniform(0.85, 1.1, 2) + rng.normal(0, 0.05, _PARTS[name].shape)
    # Least squares over all five points: a robust fit would drop the mouth of a turned head.
    design = np.concatenate([_ANCHORS, np.ones((5, 1), dtype=np.float32)], axis=1)
    matrix = np.linalg.lstsq(design, points, rcond=None)[0]  # (3, 2)
    placed: NDArray[np.float64] = shape @ matrix[:2] + matrix[2]
    mask = np.zeros(size_hw, dtype=np.float32)
    cv2.fillConvexPoly(mask, cv2.convexHull(np.round(placed).astype(np.int32)), 1.0)
    return mask


def _change(image: Image, rng: np.random.Generator) -> Image:
    """Another colour and another sharpness, as a second camera or a generator would have."""
    x = image.astype(np.float32)
    if rng.random() < 0.5:
        x = x + rng.uniform(-20, 20, 3)
    if rng.random() < 0.7:
        x = (x - 128) * rng.uniform(0.85, 1.15) + 128 + rng.uniform(-15, 15)
    if rng.random() < 0.5:
        grey = x.mean(axis=2, keepdims=True)
        x = grey + (x - grey) * rng.uniform(0.7, 1.3)
    x = _to_uint8(x)
    height, width = image.shape[:2]
    kind = rng.random()
    if kind < 0.45:
        factor = rng.uniform(1.5, 4)
        small = cv2.resize(x, (max(2, int(width / factor)), max(2, int(height / factor))))
        return np.asarray(cv2.resize(small, (width, height)), dtype=np.uint8)
    if kind < 0.7:
        soft = cv2.GaussianBlur(x, (0, 0), 1.5)
        return np.asarray(cv2.addWeighted(x, 1.6, soft, -0.6, 0), dtype=np.uint8)
    return x


def _to_uint8(values: NDArray[np.floating[Any]]) -> Image:
    return np.asarray(np.minimum(np.maximum(values, 0), 255), dtype=np.uint8)


def _small_affine(height: int, width: int, rng: np.random.Generator) -> NDArray[np.float64]:
    scale = rng.uniform(0.95, 1 / 0.95)
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), rng.uniform(-2, 2), scale)
    matrix = np.asarray(matrix, dtype=np.float64)
    matrix[:, 2] += rng.uniform(-1, 1, 2) * (0.03 * width, 0.015 * height)
    return matrix


def _elastic(mask: Mask, rng: np.random.Generator) -> Mask:
    height, width = mask.shape
    grid = rng.uniform(-1, 1, (2, 6, 6)).astype(np.float32) * 0.05 * height
    size = (width, height)
    rows, columns = np.indices((height, width), dtype=np.float32)
    xs = np.asarray(cv2.resize(grid[0], size, interpolation=cv2.INTER_CUBIC), np.float32) + columns
    ys = np.asarray(cv2.resize(grid[1], size, interpolation=cv2.INTER_CUBIC), np.float32) + rows
    warped = cv2.remap(mask, xs, ys, cv2.INTER_LINEAR)
    return np.asarray(warped, dtype=np.float32)


def _soften(mask: Mask, rng: np.random.Generator) -> Mask:
    """Blur, erode (everything below the maximum goes to 0), blur again; 0..1 float32."""
    unit = mask.shape[0] / 224
    first = cv2.GaussianBlur(mask, (0, 0), rng.uniform(1, 4) * unit)
    eroded = (first >= 0.99 * max(float(first.max()), 1e-6)).astype(np.float32)
    second = cv2.GaussianBlur(eroded, (0, 0), rng.uniform(1, 9) * unit)
    return np.asarray(second / max(float(second.max()), 1e-6), dtype=np.float32)
