"""Manifests written and read again: CSV and Parquet alike, and errors that name the row."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import pytest
from makers_datasets import ffpp_tree, wilddeepfake_tree

from forensics.datasets.adapters import read
from forensics.datasets.manifest import Sample, relocated
from forensics.datasets.manifest_file import read_manifest, write_manifest
from forensics.errors import ManifestError

HEADER = "path,label,kind,dataset,split\n"


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_what_is_written_is_read_again(tmp_path: Path, suffix: str) -> None:
    samples = [
        *read(ffpp_tree(tmp_path / "ffpp")).samples,
        *read(wilddeepfake_tree(tmp_path / "wild")).samples,
        Sample(path='odd, "name"\n é.mp4', label="real", kind="video", dataset="d", split="val"),
    ]
    path = tmp_path / f"manifest{suffix}"
    write_manifest(samples, path)
    assert read_manifest(path) == samples
    assert not list(tmp_path.glob("*.part"))


def test_further_columns_and_a_byte_order_mark_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text(
        "\ufefflabel,path,kind,dataset,width\nreal,a.mp4,video,mine,640\n", encoding="utf-8"
    )
    assert read_manifest(path) == [Sample(path="a.mp4", label="real", kind="video", dataset="mine")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEADER + "a.mp4,real,video,d,train\nb.mp4,1,video,d,\n", r"row 2: b.mp4: '1' is none of"),
        (HEADER + "a.mp4,real,film,d,\n", r"row 1: a.mp4: 'film' is none of"),
        (HEADER + "a.mp4,real,video,d,dev\n", r"row 1: a.mp4: 'dev' is none of"),
        (HEADER + ",real,video,d,\n", "row 1: no path"),
        (HEADER + "a.mp4,real,video,d,\na.mp4,fake,video,d,\n", "row 2: a.mp4 is row 1 already"),
        (HEADER + "a.mp4,real,video\n", "line 2: not as many cells"),
        (HEADER + "a.mp4,real,video,d,,,,\n", "line 2: not as many cells"),
        (HEADER, "has no rows"),
        ("", "no column dataset, kind, label, path"),
        ("path,label\na.mp4,0\n", "no column dataset, kind; `deepfake data check m.csv"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "m.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ManifestError, match=message):
        read_manifest(path)


def test_files_that_are_no_manifests_are_refused(tmp_path: Path) -> None:
    (tmp_path / "m.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(ManifestError, match="not a Parquet file"):
        read_manifest(tmp_path / "m.parquet")
    (tmp_path / "m.csv").write_bytes(b"path,label,kind,dataset\n\xff\xfe,real,video,d\n")
    with pytest.raises(ManifestError, match="not a CSV file in UTF-8"):
        read_manifest(tmp_path / "m.csv")
    with pytest.raises(ManifestError, match="cannot be read: No such file"):
        read_manifest(tmp_path / "absent.csv")
    with pytest.raises(ManifestError, match=r"a folder; `deepfake data check .* makes a manifest"):
        read_manifest(tmp_path)
    with pytest.raises(ManifestError, match=r"ends in \.csv or \.parquet"):
        write_manifest([], tmp_path / "m.json")


def test_a_row_of_parquet_is_checked_alike(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    arrow = pytest.importorskip("pyarrow")
    row = {"path": ["a.mp4"], "label": [1], "kind": ["video"], "dataset": ["d"], "split": [None]}
    parquet.write_table(arrow.table(row), tmp_path / "m.parquet")
    with pytest.raises(ManifestError, match=r"row 1: a.mp4: '1' is none of"):
        read_manifest(tmp_path / "m.parquet")


def test_parquet_without_pyarrow_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.lib", None)
    with pytest.raises(ManifestError, match=r"pip install 'deepfake\[data\]'"):
        write_manifest([], tmp_path / "m.parquet")
    assert not list(tmp_path.iterdir())


def test_a_manifest_written_elsewhere_still_leads_to_its_files(tmp_path: Path) -> None:
    root = ffpp_tree(tmp_path / "data/ffpp")
    out = tmp_path / "lists"
    out.mkdir()
    samples = relocated(read(root).samples, root, out)
    write_manifest(samples, out / "m.csv")
    for sample in read_manifest(out / "m.csv"):
        assert (out / sample.path).exists()


def test_a_refusing_disk_leaves_the_old_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.csv"
    sample = Sample(path="a.mp4", label="real", kind="video", dataset="d")
    write_manifest([sample], path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left") as caught:
        write_manifest([sample, Sample(path="b", label="fake", kind="video", dataset="d")], path)
    assert caught.value.filename == str(path)
    with path.open(newline="", encoding="utf-8") as file:
        assert len(list(csv.reader(file))) == 2
    assert [each.name for each in tmp_path.iterdir()] == ["m.csv"]
