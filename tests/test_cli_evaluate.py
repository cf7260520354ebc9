"""`deepfake evaluate` and `deepfake compare` through their console script."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path

import pytest
from makers_faces import write_tree
from typer.testing import CliRunner, Result

from forensics.datasets.adapters import read
from forensics.datasets.manifest_file import write_manifest
from forensics.evaluation.ledger import Results
from forensics.evaluation.outcome import Outcome, Unit

(SCRIPT,) = metadata.entry_points(group="console_scripts", name="deepfake")

# The real engine, with the face detector that finds drawn faces, slowed down to be interrupted.
CHILD = """
import signal, sys, time
from importlib import metadata
# A background job's shell may have made this process deaf to it.
signal.signal(signal.SIGINT, signal.default_int_handler)
import forensics.faces
from makers_faces import SquareDetector
class Slow(SquareDetector):
    def __init__(self, *_, **__):
        super().__init__()
    def detect(self, frames):
        time.sleep(0.2)
        return super().detect(frames)
forensics.faces.MtcnnDetector = Slow
(script,) = metadata.entry_points(group="console_scripts", name="deepfake")
sys.argv[0] = "deepfake"
script.load()()
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tree(tmp_path_factory.mktemp("tree"))


@pytest.fixture
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plots take seconds and are looked at elsewhere."""
    monkeypatch.setattr("forensics.evaluation.outputs.draw_plots", lambda *_, **__: [])
    monkeypatch.setattr("forensics.evaluation.outputs.draw_sheet", lambda *_, **__: None)


def deepfake(*arguments: object) -> Result:
    texts = [str(argument) for argument in arguments]
    return CliRunner().invoke(SCRIPT.load(), texts, env={"COLUMNS": "200"})


def predictions(path: Path, rows: Sequence[tuple[str, float]]) -> Path:
    lines = ["filename,label", *(f"{name},{value}" for name, value in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


ALL = [
    ("0.mp4", 0.1),
    ("1.mp4", 0.9),
    ("2.mp4", 0.4),
    ("3.mp4", 0.3),
    ("4.mp4", 0.2),
    ("nobody.mp4", 0.5),
    ("broken.mp4", 0.8),
]


def test_predictions_become_a_run_with_its_outputs(tree: Path, tmp_path: Path) -> None:
    given = predictions(tmp_path / "theirs.csv", ALL)
    out = tmp_path / "run"
    done = deepfake("evaluate", "real-fake", "--root", tree, "--from-csv", given, "--out", out)
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert lines[0] == "theirs.csv on real-fake: 7 files, 7 judged, 0 abstained, 0 failed"
    assert lines[1].startswith("video level, without a face excluded: AUC 0.833 [")
    assert lines[-1] == f"everything: {out / 'summary.md'}"
    assert "[7/7]" in done.stderr
    assert {file.name for file in out.iterdir()} >= {
        "summary.json",
        "summary.md",
        "submission.csv",
        "videos.parquet",
        "roc.svg",
    }


@pytest.mark.usefixtures("without_pictures")
def test_a_file_without_an_answer_is_status_one_and_can_be_retried(
    tree: Path, tmp_path: Path
) -> None:
    given = predictions(tmp_path / "theirs.csv", ALL[:-1])
    arguments = ("evaluate", "real-fake", "--root", tree, "--from-csv", given, "--out", tmp_path)
    done = deepfake(*arguments)
    assert done.exit_code == 1
    assert "1 files failed; --retry-failed examines them again" in done.stderr
    again = deepfake(*arguments, "--retry-failed")
    assert "going on: 6 results are there already, 1 are left" in again.stderr
    assert "[1/1]" in again.stderr
    done = deepfake(*arguments, "-q")
    assert done.stderr == "deepfake: 1 files failed; --retry-failed examines them again\n"


@pytest.mark.usefixtures("without_pictures")
def test_another_table_cannot_go_on_with_a_run(tree: Path, tmp_path: Path) -> None:
    first = predictions(tmp_path / "first.csv", ALL)
    second = predictions(tmp_path / "second.csv", ALL[:2])
    arguments = ("evaluate", "real-fake", "--root", tree, "--out", tmp_path / "run", "--from-csv")
    assert deepfake(*arguments, first).exit_code == 0
    refused = deepfake(*arguments, second)
    assert refused.exit_code == 2
    assert "detector.name: 'first.csv' then, 'second.csv' now" in refused.stderr


@pytest.mark.usefixtures("without_pictures")
def test_two_runs_are_compared(tree: Path, tmp_path: Path) -> None:
    for name, rows in (("good", ALL), ("bad", [(n, 1 - p) for n, p in ALL])):
        given = predictions(tmp_path / f"{name}.csv", rows)
        arguments = ("--root", tree, "--from-csv", given, "--out", tmp_path / name)
        assert deepfake("evaluate", "real-fake", *arguments).exit_code == 0
    shown = deepfake("compare", tmp_path / "good", tmp_path / "bad")
    assert shown.exit_code == 0
    assert "4 real and 3 fake files that every run judged (0 left out)" in shown.stdout
    assert "bad.csv - good.csv" in shown.stdout
    document = json.loads(deepfake("compare", tmp_path / "good", tmp_path / "bad", "--json").stdout)
    assert document["schema"] == "deepfake-comparison/1"
    assert document["differences"][0]["change"]["value"] == pytest.approx(-0.6666666, abs=1e-6)
    refused = deepfake("compare", tmp_path / "good")
    assert (refused.exit_code, refused.stderr) == (
        2,
        "deepfake: a comparison needs at least two runs\n",
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nonsense",), "neither a manifest nor a known layout"),
        (("real-fake",), "name its folder with --root"),
        (("real-fake", "--root", "TREE", "--split", "val"), "no file is in split val"),
        (("real-fake", "--root", "TREE", "--workers", "0"), "workers must be at least 1"),
        (("real-fake", "--root", "TREE", "--frames", "0"), "frames must be a whole number"),
        (("real-fake", "--root", "TREE", "--detector", "none"), "neither a file nor a shipped"),
        (("real-fake", "--root", "TREE", "--ray-address", "x"), "--ray-address needs --engine ray"),
        (("real-fake", "--from-csv", "x", "--robustness"), "exclude each other"),
        (("real-fake", "--root", "TREE", "--from-csv", "absent.csv"), "cannot be read"),
    ],
)
def test_wrong_usage_is_one_line(
    tree: Path, tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    texts = [str(tree) if text == "TREE" else text for text in arguments]
    refused = deepfake("evaluate", *texts, "--out", tmp_path / "run")
    assert refused.exit_code == 2
    (line,) = [text for text in refused.stderr.splitlines() if words in text]
    assert line.startswith("deepfake: ")
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("without_pictures")
def test_a_data_sets_problems_are_said_and_the_rest_is_evaluated(
    tree: Path, tmp_path: Path
) -> None:
    samples = read(tree, "real-fake").samples
    write_manifest(samples, tree / "list.csv")
    text = (tree / "list.csv").read_text("utf-8")
    gone = text.splitlines()[1].replace("0.mp4", "gone.mp4").replace("1.mp4", "gone.mp4")
    (tree / "list.csv").write_text(f"{text}{gone}\n", encoding="utf-8")
    given = predictions(tmp_path / "theirs.csv", ALL)
    done = deepfake("evaluate", tree / "list.csv", "--from-csv", given, "--out", tmp_path / "run")
    (tree / "list.csv").unlink()
    assert done.exit_code == 0
    assert "gone.mp4: missing file" in done.stderr


@pytest.mark.usefixtures("without_pictures")
def test_a_leak_is_refused_before_anything_is_examined(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from forensics.evaluation.leak import Finding

    def leak(*_: object, **__: object) -> Finding:
        return Finding(state="leak", sentence="LEAK: 2 of 7 files share people.")

    class Nothing:
        def __init__(self, *_: object, **__: object) -> None:
            pass

        def outcomes(self, units: Iterator[Unit]) -> Iterator[Outcome]:
            for unit in units:
                p = 0.5 + int.from_bytes(unit.sample.path[:1].encode(), "big") / 1000
                yield Outcome(place=unit.sample.place, probability=p, label="uncertain")

    monkeypatch.setattr("forensics.cli.evaluate.find", leak)
    monkeypatch.setattr("forensics.evaluation.local.LocalEngine", Nothing)
    arguments = ("evaluate", "real-fake", "--root", tree, "--out", tmp_path / "run")
    refused = deepfake(*arguments)
    assert refused.exit_code == 2
    assert "LEAK: 2 of 7 files share people. Choose another --split" in refused.stderr
    assert not (tmp_path / "run").exists()
    allowed = deepfake(*arguments, "--allow-leak")
    assert allowed.exit_code == 0
    assert "LEAK: 2 of 7 files share people." in allowed.stdout
    text = (tmp_path / "run" / "summary.md").read_text("utf-8")
    assert text.count("**LEAK: 2 of 7") == text.count("| --- ")


def test_help_does_not_load_torch_and_commands_have_examples() -> None:
    for command in ("evaluate", "compare"):
        shown = deepfake(command, "--help")
        assert "Example" in shown.stdout
        assert "Exit status" in shown.stdout


def _child(out: Path, tree: Path, checkpoint: Path) -> subprocess.Popen[str]:
    """The command in a process of its own: only that has a Ctrl-C."""
    arguments = ["evaluate", "real-fake", "--root", str(tree), "--out", str(out)]
    arguments += ["--detector", str(checkpoint), "--frames", "4", "--workers", "1"]
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, *arguments],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _interrupted(out: Path, tree: Path, checkpoint: Path) -> dict[str, Outcome]:
    """What the ledger holds after a Ctrl-C behind the first file."""
    process = _child(out, tree, checkpoint)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if (out / "manifest.csv").exists():
            with Results(out) as results:
                if results.states()["done"]:
                    break
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said.splitlines()[-1]) == (
        130,
        f"deepfake: interrupted; the same command goes on with {out}",
    )
    assert not (out / "summary.json").exists()
    with Results(out) as results:
        assert results.states()["pending"] > 0
        return {found.place: found for found in results.outcomes()}


def test_ctrl_c_ends_a_run_cleanly(tree: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    found = _interrupted(tmp_path / "run", tree, tiny_checkpoint)
    assert {outcome.state for outcome in found.values()} == {"done"}


@pytest.mark.slow
def test_the_same_command_goes_on_after_a_ctrl_c(
    tree: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    before = _interrupted(tmp_path / "run", tree, tiny_checkpoint)
    process = _child(tmp_path / "run", tree, tiny_checkpoint)
    shown, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert "7 files, 5 judged, 2 abstained, 0 failed" in shown
    with Results(tmp_path / "run") as results:
        after = {found.place: found for found in results.outcomes()}
    assert len(after) == 7
    assert before.items() <= after.items()
