"""Crops in shard order: each once, whoever shares the work, in an order that can be repeated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from makers_crops import crop_picture, write_store
from torch.utils.data import DataLoader

from forensics.datasets.stream import CropStream
from forensics.errors import ManifestError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six shards of four rows of three crops."""
    out = tmp_path_factory.mktemp("stream") / "crops"
    return write_store(out, units=6, splits=("train", "train", "val"))


def numbers(crops: Any) -> list[int]:
    """The drawn picture of each crop: ten times its time."""
    return [round(told["time_s"] * 10) for _, told in crops]


def test_every_crop_comes_once_with_its_picture(folder: Path) -> None:
    crops = list(CropStream(folder, seed=1))
    expected = {100 * row + crop for row in range(24) for crop in range(3)}
    assert len(crops) == 72
    assert set(numbers(crops)) == expected
    for (pixels, told), number in zip(crops, numbers(crops), strict=True):
        assert np.array_equal(pixels, crop_picture(number))
        assert told["label"] == ("fake" if number // 100 % 2 else "real")


def test_the_order_follows_from_seed_and_epoch_alone(folder: Path) -> None:
    first, again, other = (CropStream(folder, seed=seed) for seed in (1, 1, 2))
    order = numbers(first)
    assert order == numbers(again) == numbers(first)
    assert order != numbers(other)
    again.set_epoch(1)
    assert order != numbers(again)
    assert sorted(order) == sorted(numbers(again))


def test_a_single_shard_is_shuffled_anew_in_each_epoch(tmp_path: Path) -> None:
    stream = CropStream(write_store(tmp_path / "crops", units=1), seed=1)
    first = numbers(stream)
    stream.set_epoch(1)
    assert first != numbers(stream)
    assert sorted(first) == sorted(numbers(stream))


def test_a_small_buffer_shuffles_shards_only(folder: Path) -> None:
    order = numbers(CropStream(folder, seed=3, buffer=1))
    units = [number // 400 for number in order]
    assert all(order[i] < order[i + 1] for i in range(71) if units[i] == units[i + 1])
    assert len({tuple(units[i : i + 12]) for i in range(0, 72, 12)}) == 6
    assert units != sorted(units)
    mixed = [number // 400 for number in numbers(CropStream(folder, seed=3, buffer=40))]
    assert sum(mixed[i] != mixed[i + 1] for i in range(71)) > 20


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_ranks_and_workers_share_the_crops_without_overlap(folder: Path) -> None:
    seen: list[int] = []
    for rank in range(2):
        stream = CropStream(folder, seed=5, rank=rank, world=2)
        loader = DataLoader(stream, batch_size=None, num_workers=2)
        part = numbers(loader)
        assert len(part) == 36
        seen += part
    assert sorted(seen) == sorted(numbers(CropStream(folder, seed=0)))
    assert len(set(seen)) == 72


def test_only_the_split_asked_for_is_given(folder: Path) -> None:
    assert {told["split"] for _, told in CropStream(folder, seed=0, split="val")} == {"val"}
    assert len(numbers(CropStream(folder, seed=0, split="val"))) == 24


def test_a_damaged_shard_is_named(tmp_path: Path) -> None:
    folder = write_store(tmp_path / "crops", units=1)
    shard = folder / "shards/000000-00.tar"
    shard.write_bytes(shard.read_bytes()[:3000])
    with pytest.raises(ManifestError, match=r"000000-00.tar: damaged"):
        list(CropStream(folder, seed=0))
