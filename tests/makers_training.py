"""A store of crops on which a tiny network learns in a few steps, and settings for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from forensics.config import load_config
from forensics.datasets.manifest import Sample
from forensics.datasets.shard_index import Crop, Outcome, write_columns, write_unit
from forensics.training.config import TrainConfig

BOX = np.array([12, 12, 52, 52], dtype=np.float32)
LANDMARKS = np.array([[24, 26], [40, 26], [32, 36], [26, 44], [38, 44]], dtype=np.float32)


def write_store(
    folder: Path,
    *,
    videos: int = 16,
    crops: int = 4,
    fakes: bool = True,
    val_fakes: bool = True,
    one_person: bool = False,
    one_source: bool = False,
    second_half: str = "toy",
) -> Path:
    """Every second video is fake, lighter than the reals; every fourth pair is for validation.

    The second half of the videos is of the data set of that name. With `one_source` the real and
    the fake of a pair are of one recording.
    """
    (folder / "shards").mkdir(parents=True)
    (folder / "index").mkdir()
    outcomes: list[Outcome] = []
    for row in range(videos):
        split = "val" if row // 2 % 4 == 3 else "train"
        fake = bool(row % 2) and (val_fakes if split == "val" else fakes)
        sample = Sample(
            path=f"videos/{row:03d}.mp4",
            label="fake" if fake else "real",
            kind="video",
            dataset="toy" if row < videos // 2 else second_half,
            method="lighter" if fake else "",
            sources=("s" if one_person else f"s{row // 2 if one_source else row}",),
            split=split,  # type: ignore[arg-type]
        )
        pictures = tuple(crop(100 * row + n, n / 10, lighter=fake) for n in range(crops))
        outcomes.append(Outcome(row=row, sample=sample, crops=pictures))
    write_unit(folder, 0, outcomes, margin=1.8)
    write_columns(folder, 1)
    return folder


def crop(number: int, time_s: float, *, lighter: bool) -> Crop:
    rng = np.random.default_rng(number)
    rough = rng.integers(40, 120, (8, 8, 3)) + (90 if lighter else 0)
    picture = cv2.resize(rough.astype(np.uint8), (64, 64))
    return Crop(
        encoded=cv2.imencode(".png", picture)[1].tobytes(),
        suffix="png",
        track=0,
        time_s=time_s,
        box_xyxy=BOX,
        frame_xyxy=BOX + 100,
        landmarks=LANDMARKS,
    )


def tiny_config(**changes: Any) -> TrainConfig:
    """A ViT of 32 px and two layers; `changes` are keys of the configuration, `__` for dots."""
    mapping: dict[str, Any] = {
        "model": {
            "name": "vit-tiny",
            "options": {"patch_size": 16, "width": 16, "depth": 2, "heads": 2, "dropout": 0.1},
        },
        "data": {"size": 32, "batch": 8, "workers": 0, "augment": False},
        "optimizer": {"lr": 3e-3},
        "validation": {"every": 6},
        "steps": 12,
        "save_every": 3,
        "ema": 0.9,
        "device": "cpu",
    }
    for key, value in changes.items():
        at = mapping
        *path, last = key.split("__")
        for part in path:
            at = at.setdefault(part, {})
        at[last] = value
    return load_config(TrainConfig, mapping, "test")
