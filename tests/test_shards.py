"""Crops in shards: every one found again by number, in this process, a fork's and a spawned one."""

from __future__ import annotations

import csv
import json
import multiprocessing
import pickle
import shutil
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from makers_crops import BOX, LANDMARKS, crop_of, crop_picture, put_sums, sample_of, write_store

from forensics.datasets import shard_index
from forensics.datasets.shard_index import Outcome, unit_done, write_columns, write_unit
from forensics.datasets.shards import LAYOUT, CropRows, CropStore
from forensics.errors import ManifestError


def numbers(store: CropStore) -> list[int]:
    """Which drawn picture each crop is, by its row and time."""
    rows = store.rows
    return [round(float(time) * 10) for time in rows.time_s]


def test_every_crop_is_found_again_with_its_facts(tmp_path: Path) -> None:
    store = CropStore.open(write_store(tmp_path / "crops"))
    assert len(store) == 2 * 4 * 3
    for i in np.random.default_rng(0).permutation(len(store)).tolist():
        pixels, facts = store.read(i)
        number = numbers(store)[i]
        assert np.array_equal(pixels, crop_picture(number))
        row = number // 100
        assert facts.label == row % 2
        assert facts.video == f"videos/{row:03d}.mp4"
        assert facts.time_s == number / 10
        assert np.array_equal(facts.box_xyxy, BOX)
        assert np.array_equal(facts.landmarks, LANDMARKS)
        assert store.names["source"][store.rows.source[i]] == f"s{row // 2}"
    assert isinstance(store.rows.offset, np.memmap)


def test_crops_are_chosen_by_name(tmp_path: Path) -> None:
    store = CropStore.open(write_store(tmp_path / "crops", splits=("train", "train", "val")))
    chosen = store.where(split="val", method="FaceSwap")
    assert {store.read(int(i))[1].video for i in chosen} == {"videos/003.mp4"} - {
        store.names["video"][code] for code in store.rows.video[store.where(split="train")]
    }
    assert len(store.where(split="train")) + len(store.where(split="val")) == len(store)
    assert len(store.where(method="unheard of")) == 0


def test_every_column_has_a_layout() -> None:
    assert set(LAYOUT) == {field.name for field in fields(CropRows)}


def test_webdataset_reads_the_shards(tmp_path: Path) -> None:
    from webdataset import tariterators

    folder = write_store(tmp_path / "crops")
    samples = []
    for shard in sorted((folder / "shards").iterdir()):
        with shard.open("rb") as file:  # WebDataset itself leaves closing to the collector
            source = [{"url": str(shard), "stream": file}]
            samples += tariterators.group_by_keys(tariterators.tar_file_expander(source))
    assert len(samples) == 24
    told = json.loads(samples[4]["json"])
    assert told["label"] == "fake"
    assert told["method"] == "Deepfakes"
    assert (told["row"], told["margin"], told["split"]) == (1, 1.8, "train")
    assert told["identities"] == ["p0"]
    assert np.array_equal(np.array(told["landmarks"], np.float32), LANDMARKS)
    store = CropStore.open(folder)
    assert samples[4]["png"] == store.encoded(4)


def test_the_same_crops_make_the_same_bytes(tmp_path: Path) -> None:
    first, second = (write_store(tmp_path / name) for name in "ab")
    files = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert len(files) > 20
    for file in files:
        assert (first / file).read_bytes() == (second / file).read_bytes(), file


def test_a_unit_goes_on_in_a_further_shard_when_one_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_index, "SHARD_BYTES", 20_000)
    store = CropStore.open(write_store(tmp_path / "crops"))
    shards = sorted((tmp_path / "crops/shards").iterdir())
    assert len(shards) > 4
    assert max(shard.stat().st_size for shard in shards) < 60_000
    for i, number in enumerate(numbers(store)):
        assert np.array_equal(store.read(i)[0], crop_picture(number))


def test_rows_without_crops_are_listed_with_their_reason(tmp_path: Path) -> None:
    folder = tmp_path / "crops"
    (folder / "shards").mkdir(parents=True)
    (folder / "index").mkdir()
    outcomes = [
        Outcome(row=0, sample=sample_of(0), reason="no_face", detail="32 frames, no face"),
        Outcome(row=1, sample=sample_of(1), crops=(crop_of(100, landmarks=False),)),
    ]
    assert not unit_done(folder, 0)
    write_unit(folder, 0, outcomes, margin=1.8)
    assert unit_done(folder, 0)
    assert write_columns(folder, 1) == 1
    with (folder / "skipped.csv").open(newline="", encoding="utf-8") as file:
        assert list(csv.DictReader(file)) == [
            {
                "row": "1",
                "path": "videos/000.mp4",
                "reason": "no_face",
                "detail": "32 frames, no face",
            }
        ]
    store = CropStore.open(folder)
    assert np.isnan(store.read(0)[1].landmarks).all()
    assert store.rows.row[0] == 1


def test_main_is_the_track_with_the_most_crops_then_the_larger_faces(tmp_path: Path) -> None:
    folder = tmp_path / "crops"
    (folder / "shards").mkdir(parents=True)
    (folder / "index").mkdir()
    small, large = crop_of(1, track=0), replace(crop_of(2, track=1), frame_xyxy=BOX * 2)
    outcomes = [
        Outcome(row=0, sample=sample_of(0), crops=(small, large, small)),
        Outcome(row=1, sample=sample_of(1), crops=(small, large)),
    ]
    write_unit(folder, 0, outcomes, margin=1.8)
    write_columns(folder, 1)
    assert CropStore.open(folder).rows.main.tolist() == [True, False, True, False, True]


def test_no_crops_at_all_is_a_store_of_none(tmp_path: Path) -> None:
    folder = tmp_path / "crops"
    (folder / "shards").mkdir(parents=True)
    (folder / "index").mkdir()
    write_unit(folder, 0, [Outcome(row=0, sample=sample_of(0), reason="no_face")], margin=1.8)
    assert write_columns(folder, 1) == 0
    assert len(CropStore.open(folder)) == 0


def test_a_unit_that_fails_half_way_counts_for_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "crops"
    (folder / "shards").mkdir(parents=True)
    (folder / "index").mkdir()

    def outcomes():  # type: ignore[no-untyped-def]
        yield Outcome(row=0, sample=sample_of(0), crops=(crop_of(0),))
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_unit(folder, 0, outcomes(), margin=1.8)
    assert not unit_done(folder, 0)
    assert not list((folder / "shards").glob("*.tar"))
    whole = [Outcome(row=0, sample=sample_of(0), crops=(crop_of(0),))]
    write_unit(folder, 0, whole, margin=1.8)
    assert [path.name for path in (folder / "shards").iterdir()] == ["000000-00.tar"]


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_read_the_same_store_at_once(tmp_path: Path, method: str) -> None:
    store = CropStore.open(write_store(tmp_path / "crops"))
    expected = [int(store.read(i)[0].sum()) for i in range(len(store))]
    context = multiprocessing.get_context(method)
    queue = context.SimpleQueue()
    process = context.Process(target=put_sums, args=(store, queue))
    process.start()
    assert [int(store.read(i)[0].sum()) for i in range(len(store))] == expected
    process.join(120)
    assert process.exitcode == 0  # else nothing is in the queue, and asking it would hang
    assert queue.get() == expected


def test_a_pickled_store_is_small(tmp_path: Path) -> None:
    store = CropStore.open(write_store(tmp_path / "crops"))
    assert len(pickle.dumps(store)) < 500
    again = pickle.loads(pickle.dumps(store))
    assert np.array_equal(again.read(5)[0], store.read(5)[0])


def test_a_closed_store_opens_its_shards_again(tmp_path: Path) -> None:
    store = CropStore.open(write_store(tmp_path / "crops"))
    before = store.read(3)[0]
    store.close()
    assert np.array_equal(store.read(3)[0], before)


def test_damage_is_named(tmp_path: Path) -> None:
    folder = write_store(tmp_path / "crops")
    with pytest.raises(ManifestError, match="no finished extraction here"):
        CropStore.open(tmp_path)
    store = CropStore.open(folder)
    shard = folder / "shards" / store.names["shard"][0]
    content = shard.read_bytes()
    shard.write_bytes(content[:600])
    with pytest.raises(ManifestError, match=r"000000-00.tar: ends before crop 1"):
        store.read(1)
    shard.write_bytes(b"\0" * len(content))
    with pytest.raises(
        ManifestError, match=r"crop 1 is damaged; remove index/000000.jsonl and give"
    ):
        store.read(1)
    shard.unlink()
    with pytest.raises(ManifestError, match=r"000000-00.tar: cannot be read: No such file"):
        CropStore.open(folder).read(1)
    np.save(folder / "columns/label.npy", np.zeros(3, np.int8))
    with pytest.raises(ManifestError, match="does not fit the other columns"):
        CropStore.open(folder)
    (folder / "columns/label.npy").write_bytes(b"nonsense")
    with pytest.raises(
        ManifestError, match=r"columns: damaged, or of another version \([^.]*\); the same"
    ):
        CropStore.open(folder)
    # Everything but the columns is kept, and they come back.
    shutil.rmtree(folder / "columns")
    assert write_columns(folder, 2) == len(CropStore.open(folder)) == 24


def test_a_damaged_index_is_named(tmp_path: Path) -> None:
    folder = write_store(tmp_path / "crops")
    (folder / "index/000001.jsonl").write_text('{"row": 4', encoding="utf-8")
    with pytest.raises(ManifestError, match=r"000001.jsonl: damaged .* delete it"):
        write_columns(folder, 2)
    CropStore.open(folder)  # the columns of before are still there
