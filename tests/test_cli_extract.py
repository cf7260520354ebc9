"""`deepfake extract` through its console script, with faces that are drawn."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import pytest
from makers_extract import DrawnFaces, write_clips, write_sequences
from typer.testing import CliRunner

from forensics.datasets import extraction
from forensics.datasets.shards import CropStore

(SCRIPT,) = metadata.entry_points(group="console_scripts", name="deepfake")


@pytest.fixture(autouse=True)
def drawn_faces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extraction, "mtcnn", DrawnFaces)


def extract(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(SCRIPT.load(), ["extract", *map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr


def test_extract_says_what_it_made(tmp_path: Path) -> None:
    manifest = write_sequences(tmp_path / "in", 4)
    out = tmp_path / "out"
    code, text, err = extract(manifest, "--out", out, "--frames", 2, "--workers", 1)
    assert (code, err) == (0, "")
    assert text == f"{out}: 8 crops of 4 rows, 4 of them cut now\n"
    assert len(CropStore.open(out)) == 8
    code, text, _ = extract(manifest, "--out", out, "--frames", 2, "--workers", 1)
    assert (code, text) == (0, f"{out}: 8 crops of 4 rows, 0 of them cut now\n")


def test_rows_without_crops_show_in_the_exit_status(tmp_path: Path) -> None:
    manifest = write_clips(tmp_path / "in", 5, frames=2)
    out = tmp_path / "out"
    arguments = (manifest, "--out", out, "--size", 48, "--format", "png", "--workers", 1)
    code, text, err = extract(*arguments)
    assert code == 1
    assert text.startswith(f"{out}: ")
    assert err == f"deepfake: 1 rows have no crops: 1 no_face; {out}/skipped.csv\n"
    pixels, _ = CropStore.open(out).read(0)
    assert pixels.shape == (48, 48, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("absent.csv", "--out", "out"), "absent.csv: cannot be read: No such file"),
        (("{}", "--out", "out", "--margin", "0.5"), "margin must be a number from 1 to 10"),
        (("{}", "--out", "out", "--frames", "0"), "frames must be a whole number from 1"),
        (("{}",), "Missing option '--out'"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    manifest = write_sequences(tmp_path / "in", 1)
    code, out, err = extract(*(each.format(manifest) for each in arguments))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert not Path("out").exists()


def test_extract_shows_an_example_and_its_exit_status() -> None:
    code, out, _ = extract("--help")
    assert code == 0
    assert "deepfake extract manifest.csv --out crops/" in out
    assert "Exit status" in out


# The first line: a background job's shell may have made the tests deaf to Ctrl-C.
CHILD = """
import signal; signal.signal(signal.SIGINT, signal.default_int_handler)
import sys
from importlib import metadata
import makers_extract
from forensics.datasets import extraction
extraction._UNIT_CROPS, extraction.mtcnn = (8, 8), makers_extract.SlowFaces
(script,) = metadata.entry_points(group="console_scripts", name="deepfake")
sys.argv[0] = "deepfake"
script.load()()
"""


def test_an_interrupted_run_says_so_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extraction, "_UNIT_CROPS", (8, 8))
    manifest = write_sequences(tmp_path / "in", 40)
    arguments = ["extract", str(manifest), "--out", str(tmp_path / "out"), "--frames", "4"]
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, *arguments, "--workers", "2"],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 30
    while not list(tmp_path.glob("out/index/*.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of the group
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (130, "", "deepfake: interrupted\n")
    done = len(list(tmp_path.glob("out/index/*.jsonl")))
    assert 0 < done < 20
    code, text, _ = extract(*arguments[1:], "--workers", 1)
    assert code == 0
    assert "160 crops of 40 rows" in text
    assert ", 40 of them" not in text
