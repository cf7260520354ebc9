"""Training material: crops cut as in scanning, pairs, augmentation."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from forensics.crops import face_crop
from forensics.datasets.augment import jittered_cut, pipeline, recoded, shuffled
from forensics.datasets.crop_set import read_manifest
from forensics.datasets.pairs import Pairs
from forensics.errors import ManifestError

POINTS = np.array([[80, 90], [140, 90], [110, 125], [88, 155], [132, 155]], dtype=np.float32)
BOX = np.array([60, 50, 160, 190], dtype=np.float32)


def picture(seed: int = 0, side: int = 220) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rough = rng.integers(0, 256, (14, 14, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(rough, (side, side)), dtype=np.uint8)


def test_both_halves_of_a_pair_are_augmented_alike() -> None:
    image = picture()
    for seed in range(20):
        made = pipeline(seed)(image=image, other=image)
        assert np.array_equal(made["image"], made["other"])


def test_a_training_cut_without_jitter_is_the_crop_that_scanning_cuts() -> None:
    class Still:
        def uniform(self, low: float, _high: float, size: int | None = None) -> object:
            return 1.3 if size is None else np.zeros(size)

    image = picture(3)
    pair = jittered_cut((image, image), BOX, BOX, 96, Still())  # type: ignore[arg-type]
    assert np.array_equal(pair[0], face_crop(image, BOX, margin=1.3, size=96))


def crop_rows(folder: Path) -> list[dict[str, str]]:
    rows = []
    for number, (label, group) in enumerate([("real", "a"), ("fake", "a"), ("real", "b")]):
        cv2.imwrite(str(folder / f"{number}.png"), picture(number))
        rows.append(
            {
                "crop": f"{number}.png",
                "path": f"{number}.mp4",
                "label": label,
                "kind": "video",
                "dataset": "FaceForensics++",
                "method": "",
                "group": group,
                "split": "train",
                "box": " ".join(map(str, BOX)),
                "points": " ".join(map(str, POINTS.ravel())),
            }
        )
    return rows


def test_a_pair_depends_on_the_seed_and_its_index_alone(tmp_path: Path) -> None:
    rows = crop_rows(tmp_path)
    first = Pairs(tmp_path, rows, size=64, length=6, seed=4)
    again = Pairs(tmp_path, rows, size=64, length=6, seed=4)
    other = Pairs(tmp_path, rows, size=64, length=6, seed=5)
    assert all(bool((first[i] == again[i]).all()) for i in (3, 0, 5))
    assert any(bool((first[i] != other[i]).any()) for i in range(6))
    assert first[0].shape == (2, 64, 64, 3)


def test_a_fake_is_paired_with_its_own_footage_or_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = crop_rows(tmp_path)
    orphan = tmp_path / "orphan.png"
    cv2.imwrite(str(orphan), picture(9))
    rows.append({**rows[1], "crop": orphan.name, "path": "orphan.mp4", "group": "c"})
    pairs = Pairs(tmp_path, rows, size=64, length=60, seed=0)
    read: list[str] = []
    original = Pairs._read

    def watched(self: Pairs, row: dict[str, str]) -> NDArray[np.uint8]:
        read.append(row["crop"])
        return original(self, row)

    monkeypatch.setattr(Pairs, "_read", watched)
    partners: set[tuple[str, ...]] = set()
    for i in range(len(pairs)):
        read.clear()
        pairs[i]
        partners.add(tuple(read))
    # Alone: a self-blended real. Two: the real of the fake's own group, then the fake.
    assert partners == {("0.png",), ("2.png",), ("0.png", "1.png")}


def test_shuffling_keeps_every_pixel_of_whole_tiles() -> None:
    image = np.random.default_rng(2).integers(0, 256, (50, 50, 3), dtype=np.uint8)
    made = shuffled(image, 4, np.random.default_rng(0))
    assert not np.array_equal(made, image)
    assert np.array_equal(made[48:], image[48:])
    assert np.array_equal(np.sort(made[:48, :48].ravel()), np.sort(image[:48, :48].ravel()))


def test_fakes_without_their_footage_are_only_seen_shuffled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{**row, "dataset": "Elsewhere"} for row in crop_rows(tmp_path)]
    pairs = Pairs(tmp_path, rows, size=64, length=40, seed=1)
    calls = 0
    original = shuffled

    def watched(*args: Any) -> NDArray[np.uint8]:
        nonlocal calls
        calls += 1
        return original(*args)

    monkeypatch.setattr("forensics.datasets.pairs.shuffled", watched)
    read: list[str] = []
    monkeypatch.setattr(Pairs, "_read", lambda _, row: (read.append(row["crop"]), picture(1))[1])
    used = 0
    for i in range(len(pairs)):
        calls = 0
        read.clear()
        pairs[i]
        if "1.png" in read:
            used += 1
            assert calls == 2
    assert used >= 3


def test_both_halves_are_recoded_alike_and_lose_detail() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    touched = 0
    for seed in range(40):
        first, second = recoded((noise, noise), np.random.default_rng(seed))
        assert np.array_equal(first, second)
        assert first.shape == noise.shape
        if not np.array_equal(first, noise):
            touched += 1
            assert cv2.Laplacian(first, cv2.CV_32F).var() < cv2.Laplacian(noise, cv2.CV_32F).var()
    assert 8 <= touched <= 22


def test_a_missing_crop_is_named(tmp_path: Path) -> None:
    rows = crop_rows(tmp_path)
    for file in tmp_path.glob("*.png"):
        file.unlink()
    with pytest.raises(ManifestError, match=r"\.png: the crop cannot be read"):
        Pairs(tmp_path, rows, size=64, length=1, seed=0)[0]


def test_a_manifest_without_a_needed_column_is_refused_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "manifest.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["path", "label"], ["a.mp4", "real"]])
    with pytest.raises(ManifestError, match="lacks dataset, group"):
        read_manifest(path)
    with pytest.raises(ManifestError, match="cannot be read"):
        read_manifest(tmp_path / "absent.csv")
