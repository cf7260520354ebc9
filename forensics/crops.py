"""Square face crops from full-resolution frames; pure. Training and scanning share this code.

A crop never contains invented pixels: the square is moved, then shrunk, until it lies inside the
picture, and black bars do not count as picture. Padding and bars both tell a network which camera
or tool made a video, which is not what it should learn.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

# Bars are coded at or near video black (16 in limited range, 0 in RGB); compression adds a few
# levels of noise.
_BAR_LEVEL = 24
# A bar that takes more than this share of a side is a dark picture, not a bar.
_LARGEST_BAR = 0.45
_LIT_SHARE = 0.02  # of a row or column; more than this is picture
_SAMPLES = 120  # pixels of a row or column that are looked at, at least


def picture_area(pixels: NDArray[np.uint8]) -> tuple[int, int, int, int]:
    """The part of a frame (H, W, 3) uint8 inside letterbox or pillarbox bars, as xyxy in pixels.

    A row or column belongs to a bar when 98% of it is black. Returns the whole frame when the
    dark border is too large to be a bar.
    """
    height, width = pixels.shape[:2]
    # Every row and every column is judged, but by some hundred of its pixels.
    rows = _lit(pixels[:, :: max(1, width // _SAMPLES)]).mean(axis=1) > _LIT_SHARE
    columns = _lit(pixels[:: max(1, height // _SAMPLES)]).mean(axis=0) > _LIT_SHARE
    if not rows.any() or not columns.any():
        return 0, 0, width, height
    y0, y1 = _span(rows) if _is_bar(rows) else (0, height)
    x0, x1 = _span(columns) if _is_bar(columns) else (0, width)
    return x0, y0, x1, y1


def _lit(pixels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """(H, W) bool from (H, W, 3): any colour above the level of bars."""
    # Channel by channel: NumPy reduces a last axis of three ten times slower.
    brightest = np.maximum(np.maximum(pixels[..., 0], pixels[..., 1]), pixels[..., 2])
    return brightest > _BAR_LEVEL


def _span(lit: NDArray[np.bool_]) -> tuple[int, int]:
    indices = np.flatnonzero(lit)
    return int(indices[0]), int(indices[-1]) + 1


def _is_bar(lit: NDArray[np.bool_]) -> bool:
    first, last = _span(lit)
    return max(first, len(lit) - last) <= _LARGEST_BAR * len(lit)


def square_box(
    xyxy: NDArray[np.float32], margin: float, area: tuple[int, int, int, int]
) -> tuple[int, int, int, int]:
    """The square of side margin x the longer box side around the box centre, inside `area`.

    Moved first, then shrunk, so that it lies inside `area` (xyxy in pixels). Returns integers
    (x0, y0, x1, y1) with x1 - x0 == y1 - y0 >= 1.
    """
    x0, y0, x1, y1 = (float(value) for value in xyxy)
    left, top, right, bottom = area
    side = round(margin * max(x1 - x0, y1 - y0))
    side = max(1, min(side, right - left, bottom - top))
    cx, cy = (x0 + x1) / 2, (y0 + y1) / 2
    sx = min(max(round(cx - side / 2), left), right - side)
    sy = min(max(round(cy - side / 2), top), bottom - side)
    return sx, sy, sx + side, sy + side


def cut(pixels: NDArray[np.uint8], box: tuple[int, int, int, int], size: int) -> NDArray[np.uint8]:
    """Cut an integer box from (H, W, 3) uint8 and scale it to (size, size, 3) uint8.

    Area averaging when shrinking (no aliasing, which would look like a manipulation's trace),
    bilinear when enlarging.
    """
    x0, y0, x1, y1 = box
    region = pixels[y0:y1, x0:x1]
    if region.shape[0] == size and region.shape[1] == size:
        return np.array(region)  # a view would keep the whole frame, or shared memory, alive
    mode = cv2.INTER_AREA if region.shape[0] > size else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(region, (size, size), interpolation=mode), dtype=np.uint8)


def face_crop(
    pixels: NDArray[np.uint8], xyxy: NDArray[np.float32], *, margin: float, size: int
) -> NDArray[np.uint8]:
    """The crop a detector sees: `xyxy` in pixels of `pixels`, result (size, size, 3) uint8 RGB."""
    return cut(pixels, square_box(xyxy, margin, picture_area(pixels)), size)
