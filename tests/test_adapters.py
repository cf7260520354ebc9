"""Every data set's own tree becomes one manifest; its oddities become named problems."""

from __future__ import annotations

import os
import tarfile
from collections import Counter
from pathlib import Path

import pytest
from makers_datasets import (
    celebdf_tree,
    crop_folder_tree,
    deeperforensics_tree,
    dfdc_preview_tree,
    dfdc_tree,
    ffpp_tree,
    make_tree,
    wilddeepfake_tree,
    write_json,
    write_lines,
    write_tar,
)

from forensics.datasets.adapters import ADAPTERS, archive, detect, read
from forensics.datasets.manifest import Found, Sample
from forensics.errors import ManifestError


def by_path(found: Found) -> dict[str, Sample]:
    rows = {sample.place: sample for sample in found.samples}
    assert len(rows) == len(found.samples), "a place occurs twice"
    return rows


def problems(found: Found) -> dict[str, str]:
    return {problem.where: problem.kind for problem in found.problems}


def test_ffpp_reads_every_compression_ignores_masks_and_follows_the_official_pairs(
    tmp_path: Path,
) -> None:
    found = read(ffpp_tree(tmp_path))
    rows = by_path(found)
    assert found.layout == "ffpp"
    real = rows["original_sequences/youtube/c23/videos/003.MP4"]
    assert (real.label, real.split, real.compression) == ("real", "train", "c23")
    assert real.identities == real.sources == ("ffpp:003",)
    assert rows["original_sequences/youtube/c0/videos/000.mp4"].compression == "raw"
    fake = rows["manipulated_sequences/Deepfakes/c23/videos/003_000.mp4"]
    assert (fake.label, fake.method, fake.split) == ("fake", "Deepfakes", "train")
    assert fake.identities == fake.sources == ("ffpp:000", "ffpp:003")
    assert rows["manipulated_sequences/FaceShifter/c40/videos/001_870.mp4"].split == "test"
    assert not any("masks" in path or "._" in path or "notes" in path for path in rows)
    # DFD lies in the same tree and keeps its own name and people.
    actor = rows["original_sequences/actors/c23/videos/01__walking_outside.mp4"]
    assert (actor.dataset, actor.label, actor.identities) == (
        "DeepFakeDetection",
        "real",
        ("dfd:01",),
    )
    dfd = next(row for row in found.samples if row.method == "DeepFakeDetection")
    assert dfd.identities == ("dfd:01", "dfd:02")
    assert dfd.sources == actor.sources


def test_ffpp_names_what_does_not_fit(tmp_path: Path) -> None:
    found = read(ffpp_tree(tmp_path))
    seen = problems(found)
    videos = "original_sequences/youtube/c23/videos"
    assert seen[f"{videos}/trailer.mp4"] == "unexpected name"
    # 870 is named by the official split and was not downloaded, in any compression.
    assert seen[f"{videos}/870"] == "missing file"
    across = "manipulated_sequences/Deepfakes/c23/videos/000_001.mp4"
    assert seen[across] == "split conflict"
    assert by_path(found)[across].split == ""
    assert f"{videos}/000.mp4" not in seen


def test_ffpp_without_official_splits_says_so_and_assigns_none(tmp_path: Path) -> None:
    ffpp_tree(tmp_path)
    for file in (tmp_path / "splits").iterdir():
        file.unlink()
    found = read(tmp_path)
    assert {row.split for row in found.samples} == {""}
    assert any("official ones" in note for note in found.notes)


@pytest.mark.parametrize("content", ["{", '{"a": 1}', '[["000"]]', '[["000", 3]]'])
def test_a_damaged_official_split_is_a_named_problem(tmp_path: Path, content: str) -> None:
    ffpp_tree(tmp_path)
    (tmp_path / "splits/train.json").write_text(content, encoding="utf-8")
    assert problems(read(tmp_path))["splits/train.json"] == "unreadable list"


def test_a_recording_in_two_official_splits_is_a_conflict(tmp_path: Path) -> None:
    ffpp_tree(tmp_path)
    write_json(tmp_path / "splits/test.json", [["000", "001"]])
    assert problems(read(tmp_path))["splits"] == "split conflict"


def test_dfd_alone_is_read_alike(tmp_path: Path) -> None:
    make_tree(
        tmp_path,
        "original_sequences/actors/c40/videos/28__outside_talking.mp4",
        "manipulated_sequences/DeepFakeDetection/c40/videos/28_01__outside_talking__A1B2C3D4.mp4",
        "manipulated_sequences/DeepFakeDetection/c40/videos/28_01.mp4",
    )
    found = read(tmp_path)
    assert found.layout == "dfd"
    assert Counter(row.label for row in found.samples) == {"real": 1, "fake": 1}
    assert "unexpected name" in problems(found).values()


def test_celebdf_takes_labels_from_folders_although_its_list_says_1_for_real(
    tmp_path: Path,
) -> None:
    found = read(celebdf_tree(tmp_path))
    rows = by_path(found)
    assert found.layout == "celebdf"
    assert {row.dataset for row in found.samples} == {"Celeb-DF-v2"}
    one_frame = rows["Celeb-real/id27_0005.mp4"]
    assert (one_frame.label, one_frame.split) == ("real", "test")
    youtube = rows["Youtube-real/videos/00009.mp4"]
    assert (youtube.label, youtube.split, youtube.identities) == ("real", "test", ())
    fake = rows["Celeb-synthesis/id0_id16_0003.mp4"]
    assert (fake.label, fake.split) == ("fake", "test")
    assert fake.identities == ("celebdf:id0", "celebdf:id16")
    assert fake.sources == ("celebdf:id0_0003",) == rows["Celeb-real/id0_0003.mp4"].sources
    assert rows["Celeb-synthesis/id0_id17_0003.MP4"].split == "train"


def test_celebdf_names_files_its_list_promises_and_names_it_does_not_understand(
    tmp_path: Path,
) -> None:
    seen = problems(read(celebdf_tree(tmp_path)))
    assert seen["Youtube-real/00010"] == "missing file"
    assert seen["Celeb-synthesis/id1_id2.mp4"] == "unexpected name"
    # The first line of a list without a header is a line like any other.
    assert "Youtube-real/00009" not in seen


def test_celebdf_with_a_list_in_our_polarity_is_a_conflict_not_a_label(tmp_path: Path) -> None:
    make_tree(tmp_path, "Celeb-real/id0_0000.mp4", "Celeb-synthesis/id0_id1_0000.mp4")
    write_lines(
        tmp_path / "List_of_testing_videos.txt",
        "0 Celeb-real/id0_0000.mp4",
        "1 Celeb-synthesis/id0_id1_0000.mp4",
        "gibberish",
    )
    found = read(tmp_path)
    assert not found.samples
    assert Counter(problems(found).values()) == {"label conflict": 2, "unreadable list": 1}


def test_celebdf_v1_is_told_by_the_length_of_its_list(tmp_path: Path) -> None:
    make_tree(tmp_path, "Celeb-real/id0_0000.mp4", "Celeb-synthesis/id0_id1_0000.mp4")
    write_lines(tmp_path / "List_of_testing_videos.txt", "1 Celeb-real/id0_0000.mp4")
    assert {row.dataset for row in read(tmp_path).samples} == {"Celeb-DF-v1"}


def test_dfdc_follows_metadata_across_case_and_groups_by_part(tmp_path: Path) -> None:
    found = read(dfdc_tree(tmp_path))
    rows = by_path(found)
    fake = rows["dfdc_train_part_0/aaa.mp4"]
    assert (fake.label, fake.split, fake.group) == ("fake", "train", "dfdc:part-0")
    assert fake.sources == ("dfdc:bbb",) == rows["dfdc_train_part_0/bbb.mp4"].sources
    assert rows["dfdc_train_part_0/CCC.MP4"].sources == ()  # its original is not told
    assert rows["test/eee.mp4"].label == "fake"
    assert (rows["test/fff.mp4"].label, rows["test/fff.mp4"].split) == ("real", "test")
    assert problems(found) == {
        "dfdc_train_part_0/lost.mp4": "missing file",
        "dfdc_train_part_0/unnamed.mp4": "unnamed file",
        "dfdc_train_part_07/ddd.mp4": "unknown label",
        "dfdc_train_part_9/metadata.json": "missing file",
    }


def test_one_part_of_dfdc_by_itself_is_read_alike(tmp_path: Path) -> None:
    whole = by_path(read(dfdc_tree(tmp_path)))
    part = by_path(read(tmp_path / "dfdc_train_part_0"))
    assert part["aaa.mp4"].group == whole["dfdc_train_part_0/aaa.mp4"].group
    assert len(part) == 3


def test_dfdc_preview_knows_its_people_and_is_not_taken_for_dfdc(tmp_path: Path) -> None:
    found = read(dfdc_preview_tree(tmp_path))
    rows = by_path(found)
    assert found.layout == "dfdc-preview"
    fake = rows["method_A/643049/643049_A/bbb.mp4"]
    assert (fake.label, fake.method, fake.split) == ("fake", "method_A", "test")
    assert fake.identities == ("dfdcp:1224068", "dfdcp:643049")
    assert rows["original_videos/643049/aaa.mp4"].identities == ("dfdcp:643049",)
    assert problems(found) == {
        "method_A/643049/643049_A/lost.mp4": "missing file",
        "method_B/1224068/extra.mp4": "unnamed file",
    }


def test_deeperforensics_shares_its_recordings_with_ffpp(tmp_path: Path) -> None:
    found = read(deeperforensics_tree(tmp_path))
    rows = by_path(found)
    fake = rows["manipulated_videos/end_to_end_level_1/000_M101.mp4"]
    assert (fake.label, fake.method, fake.split) == ("fake", "end_to_end_level_1", "train")
    assert fake.identities == ("deeperforensics:M101", "ffpp:000")
    assert fake.sources == ("ffpp:000",)
    assert Counter(problem.kind for problem in found.problems) == {
        "split conflict": 1,  # 000_M101 in train and in test
        "missing file": 1,
        "unexpected name": 1,
        "unnamed file": 1,
    }
    assert any("1 source videos are left out" in note for note in found.notes)


def test_wilddeepfake_lists_sequences_inside_tars_without_unpacking(tmp_path: Path) -> None:
    found = read(wilddeepfake_tree(tmp_path))
    rows = by_path(found)
    home = "deepfake_in_the_wild"
    first = rows[f"{home}/real_train/3.tar.gz/3/real/7"]
    assert (first.kind, first.label, first.split, first.member) == (
        "sequence",
        "real",
        "train",
        "3/real/7",
    )
    assert first.sources == rows[f"{home}/real_train/3.tar.gz/3/real/8"].sources
    fake = rows[f"{home}/fake test/5.tar/5/fake/1"]
    assert (fake.label, fake.split) == ("fake", "test")
    # Unpacked beside its tar: the folder is used, the tar is named.
    assert rows[f"{home}/real_train/4/real/1"].member == ""
    assert problems(found) == {
        f"{home}/real_train/4.tar.gz": "duplicate",
        f"{home}/real_train/notes.txt": "unexpected name",
        f"{home}/fake test/6.tar.gz": "label conflict",
        f"{home}/fake test/7.tar.gz": "bad archive",
        f"{home}/fake test/8.tar.gz": "bad archive",
        f"{home}/fake test/9.tar.gz": "bad archive",
        f"{home}/fake test/10.tar.gz": "empty file",
    }


def test_an_archive_that_leads_out_of_its_folder_or_is_a_bomb_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, name in enumerate(("/etc/x.png", "a/../../x.png", "a\\..\\x.png")):
        with pytest.raises(ManifestError, match="leads out of the archive"):
            list(archive.safe_members(write_tar(tmp_path / f"{number}.tar.gz", [name])))
    device = tmp_path / "device.tar"
    with tarfile.open(device, "w") as tar:
        info = tarfile.TarInfo("zero")
        info.type = tarfile.CHRTYPE
        tar.addfile(info)
    with pytest.raises(ManifestError, match="is a link or a device"):
        list(archive.safe_members(device))
    many = write_tar(tmp_path / "many.tar.gz", {f"{i}.png": b"x" * 100 for i in range(20)})
    assert len(list(archive.safe_members(many))) == 20
    monkeypatch.setattr(archive, "MAX_BYTES", 1000)
    with pytest.raises(ManifestError, match="too large"):
        list(archive.safe_members(many))


def test_uadfv_ties_each_fake_to_its_original(tmp_path: Path) -> None:
    make_tree(tmp_path, "real/0001.mp4", "fake/0001_fake.MP4", "real/clip.mp4")
    found = read(tmp_path)
    rows = by_path(found)
    assert found.layout == "uadfv"
    assert rows["fake/0001_fake.MP4"].sources == rows["real/0001.mp4"].sources == ("uadfv:0001",)
    assert problems(found) == {"real/clip.mp4": "unexpected name"}


def test_crop_folders_take_mixed_labels_from_metadata(tmp_path: Path) -> None:
    found = read(crop_folder_tree(tmp_path))
    rows = by_path(found)
    assert {row.kind for row in found.samples} == {"sequence"}
    assert rows["training_set/Original/000"].label == "real"
    fake = rows["training_set/Deepfakes/000_003"]
    assert (fake.label, fake.method, fake.split) == ("fake", "Deepfakes", "train")
    assert fake.identities == ("ffpp:000", "ffpp:003")
    assert rows["training_set/DFDC/aaa"].label == "fake"
    assert (rows["validation_set/DFDC/bbb"].label, rows["validation_set/DFDC/bbb"].split) == (
        "real",
        "val",
    )
    assert problems(found) == {
        "validation_set/DFDC/unknown": "unknown label",
        "test_set/Original/001": "empty file",
    }


def test_real_and_fake_folders_of_anyone(tmp_path: Path) -> None:
    root = make_tree(
        tmp_path / "mine",
        "train/real/a.mp4",
        "train/Fakes/FaceSwap/a.MOV",
        "train/Fakes/b.mp4",
        "valid/real/c.jpg",
        "valid/fake/seq/1.png",
        "valid/fake/seq/2.png",
        "valid/real/.hidden.mp4",
    )
    (root / "train/real/empty.mp4").touch()
    found = read(root)
    rows = by_path(found)
    assert found.layout == "real-fake"
    fake = rows["train/Fakes/FaceSwap/a.MOV"]
    assert (fake.label, fake.method, fake.split, fake.kind) == (
        "fake",
        "FaceSwap",
        "train",
        "video",
    )
    assert fake.sources == rows["train/real/a.mp4"].sources
    assert rows["valid/real/c.jpg"].kind == "crop"
    assert (rows["valid/fake/seq"].kind, rows["valid/fake/seq"].split) == ("sequence", "val")
    assert problems(found) == {"train/real/empty.mp4": "empty file"}


def test_a_table_of_ones_own_may_use_numbers_and_name_originals(tmp_path: Path) -> None:
    make_tree(tmp_path, "clips/a.mp4", "clips/b.mp4", "clips/c.mp4", "clips/d.png")
    write_lines(
        tmp_path / "list.csv",
        "Path,Label,split,identity,original,extra",
        "clips/a.mp4,0,train,anna,,x",
        "clips/b.mp4,1,,anna;bob,a.mp4,x",
        "clips/c.mp4,perhaps,,,,x",
        "clips/lost.mp4,real,,,,x",
        "clips/a.mp4,real,,,,x",
        "clips/d.png,REAL,someday,,,x",
        ",real,,,,",
    )
    found = read(tmp_path)
    rows = by_path(found)
    assert found.layout == "csv"
    assert rows["clips/a.mp4"].label == "real"
    assert rows["clips/b.mp4"].label == "fake"
    assert rows["clips/b.mp4"].sources == rows["clips/a.mp4"].sources
    assert rows["clips/b.mp4"].identities == ("anna", "bob")
    assert problems(found) == {
        "row 3 clips/c.mp4": "unknown label",
        "row 4 clips/lost.mp4": "missing file",
        "row 5 clips/a.mp4": "duplicate",
        "row 6 clips/d.png": "bad row",
        "row 7 ": "bad row",
    }


def test_the_layout_is_found_out_or_its_absence_explained(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no such file or folder"):
        detect(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ManifestError, match="no known layout fits"):
        detect(tmp_path / "empty")
    ffpp_tree(tmp_path / "above/ffpp")
    with pytest.raises(ManifestError, match=r"these folders in it are: ffpp \(ffpp\)"):
        detect(tmp_path / "above")
    both = celebdf_tree(ffpp_tree(tmp_path / "both"))
    with pytest.raises(ManifestError, match=r"several layouts fit .* --layout"):
        detect(both)
    assert read(both, "celebdf").layout == "celebdf"
    with pytest.raises(ManifestError, match="there are ffpp, "):
        read(both, "imagenet")
    with pytest.raises(ManifestError, match="not laid out as uadfv"):
        read(both, "uadfv")


def test_files_of_every_layout_exist_below_the_given_folder(tmp_path: Path) -> None:
    """Whatever the adapter: paths are relative, have forward slashes, and lead to a file."""
    makers = {
        "ffpp": ffpp_tree,
        "celebdf": celebdf_tree,
        "dfdc": dfdc_tree,
        "dfdc-preview": dfdc_preview_tree,
        "deeperforensics": deeperforensics_tree,
        "wilddeepfake": wilddeepfake_tree,
        "crop-folders": crop_folder_tree,
    }
    for name, make in makers.items():
        root = make(tmp_path / name)
        assert detect(root) == name
        found = read(root)
        assert found.samples
        for sample in found.samples:
            assert (root / sample.path).exists()
            assert not Path(sample.path).is_absolute()
        # The same twice: order included.
        assert read(root) == found
    assert set(makers) < set(ADAPTERS)


def test_a_name_that_is_not_utf8_is_named_and_left_out(tmp_path: Path) -> None:
    make_tree(tmp_path, "real/a.mp4", "fake/b.mp4")
    try:
        (tmp_path / "real" / os.fsdecode(b"\xff.mp4")).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    found = read(tmp_path)
    assert len(found.samples) == 2
    assert [problem.kind for problem in found.problems] == ["unexpected name"]
