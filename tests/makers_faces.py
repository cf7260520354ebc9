"""Clips with drawn faces, and a detector that finds what was drawn: the engine without MTCNN."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from makers import Picture, write_video
from numpy.typing import NDArray

from forensics.structures import Face


class SquareDetector:
    """Calls the reddest region of a picture a face, if it is red enough."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def detect(self, frames: Sequence[NDArray[np.uint8]]) -> list[list[Face]]:
        self.calls.append(len(frames))
        return self.detect_small(frames, [frame.shape[:2] for frame in frames])

    def detect_small(
        self, smalls: Sequence[NDArray[np.uint8]], full_hws: Sequence[tuple[int, ...]]
    ) -> list[list[Face]]:
        return [_faces(small, hw) for small, hw in zip(smalls, full_hws, strict=True)]


def _faces(small: NDArray[np.uint8], full_hw: tuple[int, ...]) -> list[Face]:
    scale = np.array([full_hw[1] / small.shape[1], full_hw[0] / small.shape[0]] * 2)
    ys, xs = np.nonzero((small[..., 0] > 150) & (small[..., 1:].max(axis=2) < 110))
    if len(ys) < 50:
        return []
    box = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]) * scale
    box = box.astype(np.float32)
    return [Face(xyxy=box, landmarks=np.tile(box[:2], (5, 1)), probability=0.99)]


def write_face(path: Path, *, seed: int, frames: int = 10, face: bool = True) -> Path:
    """A red square with a pattern of its own, moving over noise; without it, noise alone."""
    rng = np.random.default_rng(seed)
    background = rng.integers(90, 130, (96, 128, 3), dtype=np.uint8)
    pattern = rng.integers(180, 255, (6, 6), dtype=np.uint8).repeat(8, 0).repeat(8, 1)

    def draw(number: int, width: int, height: int) -> Picture:
        picture = background.copy()
        if face:
            x, y = 10 + 2 * number, 20 + number
            picture[y : y + 48, x : x + 48] = 40
            picture[y : y + 48, x : x + 48, 0] = pattern
        return picture[:height, :width]

    path.parent.mkdir(parents=True, exist_ok=True)
    return write_video(path, frames=frames, size=(128, 96), draw=draw, options={"crf": "12"})


def write_tree(root: Path) -> Path:
    """`real/` and `fake/` with five videos with a face, one without and one that is damaged."""
    for number in range(5):
        label = "fake/swap" if number % 2 else "real"
        write_face(root / label / f"{number}.mp4", seed=number, frames=6 + number)
    write_face(root / "real" / "nobody.mp4", seed=9, face=False)
    (root / "fake" / "swap" / "broken.mp4").write_bytes(b"no video at all")
    return root
