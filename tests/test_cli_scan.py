"""`deepfake scan` through its console script, with a scanner that answers by file name."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from makers_report import HOSTILE, FakeScanner
from typer.testing import CliRunner

import forensics
from forensics.report import COLUMNS, schema

(SCRIPT,) = metadata.entry_points(group="console_scripts", name="deepfake")

# A process of its own, for what only a real stdout or signal can show; still without torch.
CHILD = """
import sys, forensics
from importlib import metadata
from makers_report import FakeScanner
forensics.Scanner = FakeScanner
(script,) = metadata.entry_points(group="console_scripts", name="deepfake")
sys.argv[0] = "deepfake"
script.load()()
"""


class Outcome:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


Scan = Callable[..., Outcome]


@pytest.fixture
def scan(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Scan:
    """Run `deepfake scan ARGUMENTS` in an empty folder."""
    monkeypatch.setitem(vars(forensics), "Scanner", FakeScanner)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Outcome:
        result = CliRunner().invoke(SCRIPT.load(), ["scan", *arguments], env={"COLUMNS": "100"})
        return Outcome(result.exit_code, result.stdout, result.stderr)

    return run


def touch(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


def child(*arguments: str, **options: object) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, "scan", *arguments],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        **options,  # pyright: ignore
    )


@pytest.mark.parametrize(
    ("names", "code"),
    [
        (["real.mp4"], 0),
        (["uncertain.mp4"], 0),
        (["fake.mp4"], 1),
        (["no.mp4"], 3),
        (["broken.mp4", "big.mp4"], 3),
        (["broken.mp4", "real.mp4"], 0),
        (["broken.mp4", "fake.mp4"], 1),
        (["crash.mp4", "real.mp4"], 2),
        (["crash.mp4", "broken.mp4"], 2),
        (["crash.mp4", "fake.mp4"], 1),
        (["gone.mp4", "fake.mp4"], 1),
        (["badweights.mp4", "fake.mp4"], 2),
    ],
)
def test_the_exit_status_says_what_was_found(scan: Scan, names: list[str], code: int) -> None:
    touch(*names)
    assert scan(*names).code == code


def test_a_missing_path_is_an_error_and_the_rest_is_scanned(scan: Scan) -> None:
    touch("real.mp4")
    outcome = scan("real.mp4", "absent.mp4")
    assert outcome.code == 2
    assert outcome.err.splitlines()[0] == (
        "deepfake: absent.mp4: no such file or folder; check the path"
    )
    assert "likely_real" in outcome.out


def test_a_missing_path_does_not_hide_a_fake(scan: Scan) -> None:
    touch("fake.mp4")
    assert scan("absent.mp4", "fake.mp4").code == 1


def test_one_crashing_file_never_stops_a_batch_and_takes_one_line(scan: Scan) -> None:
    touch("crash.mp4", "real.mp4", "zreal.mp4")
    outcome = scan(".", "--quiet")
    (line,) = outcome.err.splitlines()
    assert line.startswith("deepfake: crash.mp4: unexpected RuntimeError: [bold]boom[/bold]")
    assert outcome.out.count("probability of fake") == 2


def test_a_broken_checkpoint_stops_the_run_with_one_line(scan: Scan) -> None:
    touch("badweights.mp4", "real.mp4")
    outcome = scan("badweights.mp4", "real.mp4", "--quiet")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err == "deepfake: weights: damaged\n"


def test_folders_globs_and_files_are_expanded_sorted_and_scanned_once(scan: Scan) -> None:
    touch("d/b.mp4", "d/a.MOV", "d/deep/c.jpg", "d/.hidden.mp4", "d/notes.txt", "odd.xyz")
    Path("link.mp4").symlink_to("d/b.mp4")
    outcome = scan("odd.xyz", "d", "d/*.mp4", "link.mp4", "--json")
    paths = [json.loads(line)["media"]["path"] for line in outcome.out.splitlines()]
    assert paths == ["odd.xyz", "d/a.MOV", "d/b.mp4", "d/deep/c.jpg"]


def test_a_recursive_glob_reaches_the_bottom(scan: Scan) -> None:
    touch("x/1.mp4", "x/y/2.mp4", "x/y/3.txt")
    outcome = scan("x/**/*.mp4", "--json")
    assert len(outcome.out.splitlines()) == 2


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("empty", "empty: no media files in this folder"),
        ("no*.mp4", "no*.mp4: no file matches this pattern"),
        ("https://example.org/a.mp4", "https://example.org/a.mp4: addresses are not fetched"),
    ],
)
def test_an_argument_that_leads_nowhere_is_named_with_what_to_do(
    scan: Scan, argument: str, said: str
) -> None:
    Path("empty").mkdir()
    outcome = scan(argument)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith(f"deepfake: {said}")
    assert len(outcome.err.splitlines()) == 1


def test_json_lines_follow_the_schema_and_stdout_holds_nothing_else(scan: Scan) -> None:
    touch("fake.mp4", "no.mp4")
    lines = scan("fake.mp4", "no.mp4", "--json").out.splitlines()
    assert len(lines) == 2
    for line in lines:
        jsonschema.Draft202012Validator(schema()).validate(json.loads(line))


def test_csv_has_a_header_and_a_row_per_file(scan: Scan) -> None:
    touch("fake.mp4", "no.mp4", "crash.mp4")
    rows = list(csv.reader(io.StringIO(scan(".", "--csv").out)))
    assert tuple(rows[0]) == COLUMNS
    assert [row[1] for row in rows[1:]] == ["likely_fake", "no_face"]


def test_the_table_shows_each_person_and_the_seconds_of_highest_suspicion(scan: Scan) -> None:
    touch("fake.mp4")
    out = scan("fake.mp4").out
    assert (
        "fake.mp4: likely_fake, probability of fake 0.91 (real up to 0.20, fake from 0.80)" in out
    )
    assert "0.0 s to 1.0 s (0.95)" in out
    assert "- The whole file could be decoded." in out


def test_a_hostile_name_reaches_no_output_raw(scan: Scan) -> None:
    name = "fake-" + HOSTILE.replace("/", "").replace("\x00", "")
    touch(name, "real.mp4")
    for layout in ([], ["--json"], ["--csv"]):
        outcome = scan(name, ".", *layout, "--out", "reports")
        assert outcome.code == 1
        text = outcome.out + outcome.err
        assert "\x1b" not in text
        assert "\u202e" not in text
        text.encode("utf-8")


def test_markup_in_a_name_is_shown_as_it_is(scan: Scan) -> None:
    touch("real-[red]x.mp4")
    outcome = scan(".")
    assert "real-[red]x.mp4: likely_real" in outcome.out


def test_out_writes_one_document_per_file_under_unique_names(scan: Scan) -> None:
    touch("a/fake.mp4", "b/fake.mp4", "b/real.mp4")
    assert scan("a", "b", "--out", "new/reports").code == 1
    names = sorted(path.name for path in Path("new/reports").iterdir())
    assert names == ["fake.mp4-2.json", "fake.mp4.json", "real.mp4.json"]
    for path in Path("new/reports").iterdir():
        jsonschema.Draft202012Validator(schema()).validate(json.loads(path.read_text()))


def test_the_longest_possible_name_still_gets_a_report(scan: Scan) -> None:
    touch("real-" + "é" * 123 + ".mp4")
    assert scan(".", "--out", "reports").code == 0
    assert len(list(Path("reports").glob("*.json"))) == 1


def test_out_that_is_a_file_is_one_line_and_nothing_is_scanned(scan: Scan) -> None:
    touch("real.mp4", "taken")
    outcome = scan("real.mp4", "--out", "taken")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("deepfake: taken: File exists")
    assert len(outcome.err.splitlines()) == 1


def test_a_full_disk_ends_the_run_with_one_line_and_no_half_file(
    scan: Scan, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    touch("fake.mp4", "real.mp4")
    monkeypatch.setattr(os, "fsync", full)
    outcome = scan(".", "--quiet", "--out", "reports")
    assert outcome.code == 2
    said = "reports/fake.mp4.json: No space left on device; nothing was written half"
    assert outcome.err == f"deepfake: {said}\n"
    assert list(Path("reports").iterdir()) == []


def test_report_writes_one_page_with_a_section_per_file(scan: Scan) -> None:
    touch("fake.mp4", "no.mp4", "crash.mp4")
    outcome = scan(".", "--report", "r.html", "--json", "--quiet")
    assert outcome.code == 1
    text = Path("r.html").read_text("utf-8")
    assert text.count("<article") == 2
    assert "2 files examined" in text
    assert all(json.loads(line)["schema"] for line in outcome.out.splitlines())


@pytest.mark.parametrize("target", ["r.pdf", "absent/r.html", "folder.html"])
def test_a_page_that_cannot_be_written_is_told_before_anything_is_scanned(
    scan: Scan, target: str
) -> None:
    touch("fake.mp4")
    Path("folder.html").mkdir()
    outcome = scan("fake.mp4", "--report", target)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith(f"deepfake: {target}: ")
    assert len(outcome.err.splitlines()) == 1


@pytest.mark.parametrize("target", ["o.gif", "absent/o.mp4", "fake.mp4"])
def test_an_overlay_that_cannot_be_written_is_told_before_anything_is_scanned(
    scan: Scan, target: str
) -> None:
    touch("fake.mp4")
    outcome = scan("fake.mp4", "--overlay", target)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith(f"deepfake: {target}: ")
    assert len(outcome.err.splitlines()) == 1


def test_without_a_page_no_evidence_is_asked_for(
    scan: Scan, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []
    plain = FakeScanner.scan

    def watched(self: FakeScanner, path: Path, **options: Any) -> Any:
        asked.append(options["keep_evidence"])
        return plain(self, path, **options)

    monkeypatch.setattr(FakeScanner, "scan", watched)
    touch("real.mp4")
    scan("real.mp4")
    scan("real.mp4", "--report", "r.html")
    assert asked == [False, True]


def test_options_reach_the_configuration_and_override_the_file(scan: Scan) -> None:
    touch("real.mp4")
    Path("c.yaml").write_text("sampling: {frames: 8, start_s: 2}\nbatch_size: 4\n")
    outcome = scan(
        *("real.mp4", "--json", "--config", "c.yaml", "--frames", "5", "--threshold", "0.7"),
        *("--longest-side", "960", "--decoder", "decord", "--device", "cpu", "--end", "9"),
    )
    config = json.loads(outcome.out)["config"]
    assert config["sampling"] == {"frames": 5, "fps": None, "start_s": 2.0, "end_s": 9.0}
    assert (config["batch_size"], config["threshold"]) == (4, 0.7)
    assert (config["faces"]["longest_side"], config["decoder"]) == (960, "decord")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sampling: {framez: 8}", "c.yaml: sampling.framez: "),
        ("batch_size: 0", "c.yaml: "),
        ("- a list", "c.yaml: expected settings as"),
        ("a: [", "c.yaml: not valid YAML"),
        ("limits: {}\nfaces: {}\nlimits: {}", "c.yaml: not valid YAML: limits twice"),
    ],
)
def test_a_wrong_configuration_is_one_line_with_the_file(scan: Scan, text: str, said: str) -> None:
    touch("real.mp4")
    Path("c.yaml").write_text(text)
    outcome = scan("real.mp4", "--config", "c.yaml")
    assert outcome.code == 2
    assert outcome.err.startswith(f"deepfake: {said}")
    assert len(outcome.err.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["real.mp4", "--nope"],
        ["real.mp4", "--frames", "0"],
        ["real.mp4", "--frames", "many"],
        ["real.mp4", "--threshold", "1.5"],
        ["real.mp4", "--start", "5", "--end", "2"],
        ["real.mp4", "--start", "nan"],
        ["real.mp4", "--longest-side", "0"],
        ["real.mp4", "--device", "abacus"],
        ["real.mp4", "--json", "--csv"],
        ["real.mp4", "--config", "absent.yaml"],
    ],
)
def test_wrong_usage_is_one_line_and_status_two(scan: Scan, arguments: list[str]) -> None:
    touch("real.mp4")
    outcome = scan(*arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert len(outcome.err.splitlines()) == 1
    assert outcome.err.startswith("deepfake: ")


def test_without_a_terminal_progress_is_one_line_per_file_and_quiet_is_silent(scan: Scan) -> None:
    touch("fake.mp4", "real.mp4")
    assert scan(".").err == "[1/2] fake.mp4: likely_fake\n[2/2] real.mp4: likely_real\n"
    assert scan(".", "--quiet").err == ""
    assert scan("real.mp4").err == ""


@pytest.mark.parametrize("word", ["interrupt", "cleanup"])
def test_an_interrupt_ends_with_130_and_keeps_what_was_done(scan: Scan, word: str) -> None:
    touch("fake.mp4", f"{word}.mp4", "real.mp4")
    outcome = scan("fake.mp4", f"{word}.mp4", "real.mp4", "--json", "--quiet")
    assert outcome.code == 130
    assert outcome.err == "deepfake: interrupted\n"
    assert len(outcome.out.splitlines()) == 1


def test_a_reader_that_leaves_ends_the_run_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "real.mp4").touch()
    read, write = os.pipe()
    os.close(read)
    process = child(str(tmp_path), "--json", stdout=write)
    os.close(write)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux's always full device")
def test_a_full_device_behind_stdout_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "fake.mp4").touch()
    with Path("/dev/full").open("w") as full:
        process = child(str(tmp_path), stdout=full)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert err == "deepfake: No space left on device; nothing was written half\n"


def test_a_terminal_without_unicode_gets_escapes(tmp_path: Path) -> None:
    (tmp_path / "real-é漢.mp4").touch()
    (tmp_path / os.fsdecode(b"real-\xff.mp4")).touch()
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    environment |= {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run(
        [sys.executable, "-c", CHILD, "scan", str(tmp_path)],
        env=environment,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0
    assert rb"real-\xe9\u6f22.mp4: likely_real" in done.stdout
    assert rb"real-\xff.mp4: likely_real" in done.stdout


def test_a_real_ctrl_c_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "real.mp4").touch()
    code = CHILD.replace(
        "forensics.Scanner = FakeScanner",
        "import signal, time\n"
        # A job in the background of a shell is born with interrupts ignored.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "class Slow(FakeScanner):\n"
        "    def scan(self, path, **options):\n"
        "        print('started', file=sys.stderr, flush=True)\n"
        "        time.sleep(60)\n"
        "forensics.Scanner = Slow",
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, "scan", str(tmp_path), "--quiet"],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert process.stderr.readline() == "started\n"
    start = time.perf_counter()
    process.send_signal(signal.SIGINT)
    assert process.stderr.read() == "deepfake: interrupted\n"
    assert process.wait(timeout=30) == 130
    process.stderr.close()
    assert time.perf_counter() - start < 30
