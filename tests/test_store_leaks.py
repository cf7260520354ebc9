"""A store whose splits share somebody is refused, as a manifest is, and no other."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from makers_crops import crop_of, write_store

from forensics.datasets.manifest import Sample
from forensics.datasets.shard_index import Outcome, write_columns, write_unit
from forensics.datasets.shards import CropStore
from forensics.datasets.splits import leaks
from forensics.datasets.store_leaks import check_store_no_leak
from forensics.errors import ManifestError
from forensics.training.material import Material

CROP = crop_of(1)


def store_of(samples: list[Sample], folder: Path) -> CropStore:
    (folder / "shards").mkdir(parents=True)
    (folder / "index").mkdir()
    outcomes = [Outcome(row=n, sample=each, crops=(CROP,)) for n, each in enumerate(samples)]
    write_unit(folder, 0, outcomes, margin=1.8)
    write_columns(folder, 1)
    return CropStore.open(folder)


def test_a_shared_person_is_named_with_the_rows(tmp_path: Path) -> None:
    check_store_no_leak(CropStore.open(write_store(tmp_path / "whole")))
    # Rows 0 and 1 share a person and a recording.
    torn = CropStore.open(write_store(tmp_path / "torn", splits=("train", "val", "train", "train")))
    with pytest.raises(ManifestError) as caught:
        check_store_no_leak(torn)
    text = str(caught.value)
    assert "identity p0 in row 1 videos/000.mp4 (train) and row 2 videos/001.mp4 (val)" in text
    assert "deepfake data check --split" in text


def test_training_refuses_such_a_store(tmp_path: Path) -> None:
    from makers_training import tiny_config

    torn = CropStore.open(write_store(tmp_path / "torn", splits=("train", "val", "train", "train")))
    with pytest.raises(ManifestError, match="the splits share people or recordings"):
        Material(torn, tiny_config(), rank=0, world=1)


names = st.lists(st.sampled_from("abcdef"), max_size=2).map(tuple)


@settings(deadline=None, max_examples=15)
@given(
    st.lists(
        st.tuples(names, names, st.sampled_from(["", "g"]), st.sampled_from(["", "train", "val"])),
        min_size=1,
        max_size=6,
    )
)
def test_stores_and_manifests_are_judged_alike(
    rows: list[tuple[tuple[str, ...], tuple[str, ...], str, str]],
) -> None:
    samples = [
        Sample(
            path=f"{n}.mp4",
            label="real",
            kind="video",
            dataset="d",
            identities=people,
            sources=recordings,
            group=group,
            split=split,  # type: ignore[arg-type]
        )
        for n, (people, recordings, group, split) in enumerate(rows)
    ]
    expected = leaks(samples)
    with tempfile.TemporaryDirectory() as folder:
        store = store_of(samples, Path(folder) / "crops")
        if not expected:
            check_store_no_leak(store)
            return
        with pytest.raises(ManifestError) as caught:
            check_store_no_leak(store)
        shown = sum(f"{leak.kind} {leak.name} in " in str(caught.value) for leak in expected)
        assert shown == min(len(expected), 5)
