"""Small folders of crops, as an extraction leaves them, without any video."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from forensics.datasets.manifest import Sample
from forensics.datasets.shard_index import Crop, Outcome, write_columns, write_unit
from forensics.datasets.shards import CropStore

LANDMARKS = np.array([[24, 28], [42, 28], [33, 40], [26, 48], [40, 48]], dtype=np.float32)
BOX = np.array([14, 10, 52, 58], dtype=np.float32)


def crop_picture(number: int, side: int = 64) -> NDArray[np.uint8]:
    """A smooth picture (S, S, 3) of its own for each number."""
    rough = np.random.default_rng(number).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(rough, (side, side)), dtype=np.uint8)


def crop_of(number: int, *, track: int = 0, suffix: str = "png", landmarks: bool = True) -> Crop:
    bgr = np.ascontiguousarray(crop_picture(number)[:, :, ::-1])
    return Crop(
        encoded=cv2.imencode(f".{suffix}", bgr)[1].tobytes(),
        suffix=suffix,
        track=track,
        time_s=number / 10,
        box_xyxy=BOX,
        frame_xyxy=BOX + 100,
        landmarks=LANDMARKS if landmarks else np.full((5, 2), np.nan, np.float32),
    )


def sample_of(row: int, *, split: str = "train") -> Sample:
    """Even rows are real; FaceForensics++ like names."""
    fake = row % 2 == 1
    return Sample(
        path=f"videos/{row:03d}.mp4",
        label="fake" if fake else "real",
        kind="video",
        dataset="toy",
        method=("Deepfakes", "FaceSwap")[row // 2 % 2] if fake else "",
        identities=(f"p{row // 2}",),
        sources=(f"s{row // 2}",),
        split=split,  # type: ignore[arg-type]
        compression="c23",
    )


def write_store(
    folder: Path, *, units: int = 2, rows: int = 4, crops: int = 3, splits: Sequence[str] = ()
) -> Path:
    """`units` x `rows` rows with `crops` crops each; the picture's number is 100 * row + crop."""
    (folder / "shards").mkdir(parents=True)
    (folder / "index").mkdir()
    for unit in range(units):
        outcomes = [
            Outcome(
                row=row,
                sample=sample_of(row, split=splits[row % len(splits)] if splits else "train"),
                crops=tuple(crop_of(100 * row + n) for n in range(crops)),
            )
            for row in range(unit * rows, (unit + 1) * rows)
        ]
        write_unit(folder, unit, outcomes, margin=1.8)
    write_columns(folder, units)
    return folder


def put_sums(store: CropStore, queue) -> None:  # type: ignore[no-untyped-def]
    """For a process of its own, which finds this module by its name alone."""
    queue.put([int(store.read(i)[0].sum()) for i in range(len(store))])
