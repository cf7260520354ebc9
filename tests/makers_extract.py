"""Clips with drawn faces, and a detector that finds them without a network: for extraction."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from makers import Picture, numbered_picture, write_video
from numpy.typing import NDArray

from forensics.config import ExtractionConfig
from forensics.datasets.extraction import extract
from forensics.datasets.manifest import Sample
from forensics.datasets.manifest_file import write_manifest
from forensics.structures import Face

SIZE = 160, 96
# Left and right face; each shows one of the two colours of `numbered_picture`.
FACES_XYXY = ((24, 20, 64, 76), (96, 20, 136, 76))


class DrawnFaces:
    """Finds a face wherever the drawn colours are: none in black pictures."""

    def detect(self, frames: Sequence[NDArray[np.uint8]]) -> list[list[Face]]:
        return [[_face(xyxy) for xyxy in FACES_XYXY if _shown(frame, xyxy)] for frame in frames]


class SlowFaces(DrawnFaces):
    def detect(self, frames: Sequence[NDArray[np.uint8]]) -> list[list[Face]]:
        time.sleep(0.03)
        return super().detect(frames)


class DeadlyFaces(DrawnFaces):
    """Dies as a process dies that takes more memory than there is."""

    def detect(self, frames: Sequence[NDArray[np.uint8]]) -> list[list[Face]]:
        os.kill(os.getpid(), signal.SIGKILL)
        return []


def _shown(frame: NDArray[np.uint8], xyxy: tuple[int, ...]) -> bool:
    x0, _, x1, y1 = xyxy
    part = frame[y1 - 16 : y1, x0:x1].astype(int)
    return bool(part.size and abs(part[..., 0] - part[..., 2]).mean() > 60)


def _face(xyxy: tuple[int, ...]) -> Face:
    x0, y0, x1, y1 = xyxy
    points = [(0.3, 0.35), (0.7, 0.35), (0.5, 0.55), (0.35, 0.75), (0.65, 0.75)]
    landmarks = [(x0 + u * (x1 - x0), y0 + v * (y1 - y0)) for u, v in points]
    return Face(
        xyxy=np.array(xyxy, np.float32),
        landmarks=np.array(landmarks, np.float32),
        probability=0.99,
    )


def one_face(number: int, width: int, height: int) -> Picture:
    """Only the left face: the right half is grey below."""
    picture = numbered_picture(number, width, height)
    picture[height // 2 :, width // 2 :] = 128
    return picture


def black(_: int, width: int, height: int) -> Picture:
    return np.zeros((height, width, 3), np.uint8)


def write_clips(folder: Path, count: int, *, frames: int = 6) -> Path:
    """`count` short clips, every fifth without a face, and their manifest; returns that."""
    folder.mkdir(parents=True)
    samples: list[Sample] = []
    for number in range(count):
        draw = black if number % 5 == 4 else one_face if number % 2 else numbered_picture
        name = f"{number:03d}.mp4"
        write_video(
            folder / name, frames=frames, draw=draw, number_from=number * 10, options={"crf": "18"}
        )
        fake = number % 2 == 1
        samples.append(
            Sample(
                path=name,
                label="fake" if fake else "real",
                kind="video",
                dataset="drawn",
                method="paint" if fake else "",
                sources=(f"s{number // 2}",),
                split="train" if number % 4 < 2 else "val",
            )
        )
    write_manifest(samples, folder / "manifest.csv")
    return folder / "manifest.csv"


def write_sequences(folder: Path, count: int) -> Path:
    """`count` folders of five drawn pictures each, and their manifest: no decoder is needed."""
    samples: list[Sample] = []
    for row in range(count):
        (folder / f"{row:03d}").mkdir(parents=True)
        for number in range(5):
            bgr = numbered_picture(row * 8 + number, *SIZE)[:, :, ::-1]
            cv2.imwrite(str(folder / f"{row:03d}/{number}.png"), bgr)
        label = "fake" if row % 2 else "real"
        name = f"{row:03d}"
        samples.append(Sample(path=name, label=label, kind="sequence", dataset="drawn"))
    write_manifest(samples, folder / "manifest.csv")
    return folder / "manifest.csv"


def content(folder: Path) -> dict[str, bytes]:
    """Every file of an extraction but its lock."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def _say(done: int, total: int) -> None:
    sys.stdout.write(f"{done} {total}\n")
    sys.stdout.flush()


def main() -> None:
    """For a process of its own: MANIFEST OUT WORKERS."""
    manifest, out, workers = sys.argv[1:]
    extract(
        Path(manifest),
        Path(out),
        ExtractionConfig(frames=4, size=64),
        workers=int(workers),
        on_progress=_say,
        make_detector=SlowFaces,
    )
