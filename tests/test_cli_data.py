"""`deepfake data` through its console script."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path

import pytest
from makers_datasets import celebdf_tree, dfdc_tree, ffpp_tree, make_tree
from typer.testing import CliRunner

from forensics.datasets.manifest_file import read_manifest
from forensics.datasets.splits import check_no_leak

(SCRIPT,) = metadata.entry_points(group="console_scripts", name="deepfake")


def data(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(SCRIPT.load(), ["data", *arguments], env={"COLUMNS": "120"})
    return result.exit_code, result.stdout, result.stderr


def clean_tree(root: Path, pairs: int = 10) -> Path:
    names = [f"{label}/{n}.mp4" for label in ("real", "fake/FaceSwap") for n in range(pairs)]
    return make_tree(root, *names)


def test_check_shows_counts_and_names_nothing_where_nothing_is_wrong(tmp_path: Path) -> None:
    code, out, err = data("check", str(clean_tree(tmp_path / "mine")))
    assert (code, err) == (0, "")
    assert "mine: real-fake, 20 files, 10 real, 10 fake" in out
    assert any("FaceSwap" in line and line.split()[-1] == "10" for line in out.splitlines())
    assert "sources: 10" in out
    assert "problem" not in out


def test_check_names_problems_and_leaks_and_says_so_in_its_status(tmp_path: Path) -> None:
    code, out, _ = data("check", str(celebdf_tree(tmp_path)))
    assert code == 1
    assert "problem: missing file (100)" in out
    assert "and 95 more; --json names all" in out
    assert "leak: 2 identities, sources or groups are in two splits" in out
    assert "identity celebdf:id0 in row" in out


def test_new_splits_share_nobody_and_are_written(tmp_path: Path) -> None:
    root, out = clean_tree(tmp_path / "mine"), tmp_path / "lists/manifest.csv"
    out.parent.mkdir()
    code, text, _ = data("check", str(root), "--split", "0.6,0.2,0.2", "--out", str(out))
    assert code == 0
    assert "written" in text
    samples = read_manifest(out)
    check_no_leak(samples)
    assert {sample.split for sample in samples} == {"train", "val", "test"}
    assert all((out.parent / sample.path).exists() for sample in samples)
    again = tmp_path / "lists/again.csv"
    data("check", str(root), "--split", "0.6,0.2,0.2", "--out", str(again))
    assert again.read_bytes() == out.read_bytes()
    data("check", str(root), "--split", "0.6,0.2,0.2", "--seed", "5", "--out", str(again))
    assert again.read_bytes() != out.read_bytes()


def test_a_manifest_is_read_again_to_the_same_rows(tmp_path: Path) -> None:
    for make in (ffpp_tree, dfdc_tree):
        first, second = tmp_path / f"{make.__name__}.csv", tmp_path / "again.parquet"
        data("check", str(make(tmp_path / make.__name__)), "--out", str(first))
        code, _, err = data("check", str(first), "--out", str(second))
        assert (code in (0, 1), err) == (True, "")
        assert read_manifest(first) == read_manifest(second)


def test_json_holds_everything(tmp_path: Path) -> None:
    code, out, _ = data("check", str(celebdf_tree(tmp_path)), "--json")
    assert code == 1
    document = json.loads(out)
    assert document["schema"] == "deepfake-data-check/1"
    assert document["layout"] == "celebdf"
    assert document["labels"] == {"real": 3, "fake": 2}
    assert document["splits"]["test"] == {"real": 2, "fake": 1}
    assert len(document["problems"]) == 101
    leak = next(leak for leak in document["leaks"] if leak["name"] == "celebdf:id0")
    assert leak["kind"] == "identity"
    assert leak["rows"]["test"]["path"] == "Celeb-synthesis/id0_id16_0003.mp4"


def test_a_class_without_files_is_a_problem(tmp_path: Path) -> None:
    make_tree(tmp_path, "real/a.mp4", "real/b.mp4", "fake/notes.txt")
    code, out, _ = data("check", str(tmp_path))
    assert code == 1
    assert "problem: empty class (1)\n  fake: no fake file at all" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{}/absent"], "no such file or folder"),
        (["{}", "--layout", "imagenet"], "no layout is called 'imagenet'"),
        (["{}", "--split", "most,rest"], "expected shares of train,val,test"),
        (["{}", "--split", "0.9,0.9"], "must add up to 1"),
        (["{}", "--out", "{}/m.txt"], "a manifest ends in .csv or .parquet"),
        (["{}", "--out", "{}/nowhere/m.csv"], "No such file or directory"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    clean_tree(tmp_path)
    code, out, err = data("check", *(each.format(tmp_path) for each in arguments))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err


def test_a_folder_without_a_usable_file_says_what_was_wrong_with_the_first(tmp_path: Path) -> None:
    for name in ("real/a.mp4", "fake/b.mp4"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    code, _, err = data("check", str(tmp_path))
    assert code == 2
    assert "no usable file in this real-fake folder; first of 2 problems: " in err


def test_names_cannot_write_to_the_terminal(tmp_path: Path) -> None:
    make_tree(tmp_path, "real/a.mp4", "fake/\x1b[31mred/b.mp4")
    _, out, _ = data("check", str(tmp_path))
    assert "\x1b[31mred" not in out


def test_data_and_its_commands_show_help() -> None:
    code, out, _ = data("--help")
    assert code == 0
    assert "check" in out
    code, out, _ = data("check", "--help")
    assert code == 0
    assert "deepfake data check" in out
    assert "Exit status" in out
    code, _, err = data()
    assert (code, err) == (2, "deepfake: Missing command. Try `deepfake --help`.\n")
