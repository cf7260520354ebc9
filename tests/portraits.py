"""A real face for tests: the public-domain portrait in tests/assets, and pictures made from it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]

PORTRAIT_SIZE = 256
# Where the face lies in the portrait, read off by eye: hairline to chin, cheek to cheek.
FACE_XYXY = (86, 62, 171, 173)


def portrait() -> Picture:
    """The portrait (256, 256, 3) uint8 RGB: one face, `FACE_XYXY`."""
    encoded = cv2.imread(str(Path(__file__).parent / "assets" / "portrait.jpg"))
    assert encoded is not None
    return np.ascontiguousarray(encoded[:, :, ::-1])


def stranger() -> Picture:
    """Another person for whoever tells people apart by colour: the portrait mirrored, much darker
    in green and blue. Its face lies mirrored."""
    graded = 255 * (portrait()[:, ::-1] / 255.0) ** np.array([1.8, 2.6, 3.2])
    return graded.astype(np.uint8)


def scene(
    height: int,
    width: int,
    pasted: Sequence[tuple[Picture, int, int]],
    background: tuple[int, int, int] = (90, 110, 120),
) -> Picture:
    """A plain picture (H, W, 3) with each (picture, x, y) pasted at its top left corner."""
    canvas = np.empty((height, width, 3), np.uint8)
    canvas[:] = background
    for picture, x, y in pasted:
        canvas[y : y + picture.shape[0], x : x + picture.shape[1]] = picture
    return canvas
