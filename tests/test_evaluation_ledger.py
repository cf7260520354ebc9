"""The ledger: whole rows whatever happens, and a run that goes on where it was killed."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from makers_evaluation import JUDGE, NamedEngine, outcome, selection

from forensics.errors import ConfigError, ForensicsError
from forensics.evaluation.ledger import FILE_NAME, Ledger, Results
from forensics.evaluation.outcome import Outcome, Unit
from forensics.evaluation.run import examine_all
from forensics.evaluation.tables import items_of, video_rows

FACTS = {"detector": {"name": "one", "sha256": "1"}, "frames": 32}
KEYS = [("a.mp4", "clean"), ("b.mp4", "clean")]


def test_a_result_is_one_row_with_its_people_and_frames(tmp_path: Path) -> None:
    chosen = selection(1)
    examine_all(chosen, JUDGE, NamedEngine(), tmp_path)
    (unit,) = chosen.units()
    with Results(tmp_path) as ledger:
        (found,) = ledger.outcomes()
        made = outcome(unit)
        assert found == replace(made, tracks=(), frames=())
        names, rows = ledger.rows("frames")
        frames = [dict(zip(names, row, strict=True)) for row in rows]
        assert [(f["place"], f["time_s"], f["x1"]) for f in frames] == [
            (unit.sample.path, frame / 4, 31.0) for frame in range(4)
        ]
        names, rows = ledger.rows("tracks")
        assert [dict(zip(names, row, strict=True))["probability"] for row in rows] == [
            made.probability
        ]
        assert ledger.states() == {"done": 1}


def test_recording_again_replaces_and_unknown_files_are_refused(tmp_path: Path) -> None:
    with Ledger(tmp_path, FACTS, KEYS) as ledger:
        for probability in (0.2, 0.9):
            ledger.record(Outcome(place="a.mp4", label="uncertain", probability=probability))
        assert [found.probability for found in ledger.outcomes()] == [0.9]
        with pytest.raises(KeyError, match="not a file of this run"):
            ledger.record(Outcome(place="c.mp4"))


def test_what_cannot_be_written_whole_is_not_written(tmp_path: Path) -> None:
    chosen = selection(1)
    (unit,) = chosen.units()
    good = outcome(unit)
    with Ledger(tmp_path, FACTS, [unit.key]) as ledger:
        bad = replace(good.frames[0], time_s=object())  # pyright: ignore[reportArgumentType]
        with pytest.raises(ForensicsError, match=r"0000\.mp4 cannot be recorded: .*goes on"):
            ledger.record(replace(good, frames=(good.frames[0], bad)))
        assert ledger.pending() == [unit.key]
        assert list(ledger.rows("frames")[1]) == []
        ledger.record(good)
        assert ledger.states() == {"done": 1}


def test_another_detector_configuration_or_manifest_is_named_and_refused(tmp_path: Path) -> None:
    Ledger(tmp_path, FACTS, KEYS).close()
    other = {"detector": {"name": "one", "sha256": "2"}, "frames": 32}
    with pytest.raises(ConfigError, match=r"detector\.sha256: '1' then, '2' now; name another"):
        Ledger(tmp_path, other, KEYS)
    with pytest.raises(ConfigError, match="fps: None then, 4 now"):
        Ledger(tmp_path, {**FACTS, "fps": 4}, KEYS)
    Ledger(tmp_path, FACTS, KEYS).close()
    run = tmp_path / "run"
    examine_all(selection(8), JUDGE, NamedEngine(), run)
    before = (run / "manifest.csv").read_bytes()
    with pytest.raises(ConfigError, match=r"manifest_sha256: .* num_files: 8 then, 9 now"):
        examine_all(selection(9), JUDGE, NamedEngine(), run)
    assert (run / "manifest.csv").read_bytes() == before


def test_two_writers_are_refused(tmp_path: Path) -> None:
    with (
        Ledger(tmp_path, FACTS, KEYS),
        pytest.raises(ConfigError, match="another process is writing this run"),
    ):
        Ledger(tmp_path, FACTS, KEYS)


def test_a_file_that_is_no_ledger_is_one_line(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"not a database, but longer than a header" * 100)
    with pytest.raises(ConfigError, match="the ledger cannot be used: file is not a database"):
        Ledger(tmp_path, FACTS, KEYS)
    with pytest.raises(ConfigError, match="cannot be read"):
        Results(tmp_path)
    with pytest.raises(ConfigError, match="no run is there"):
        Results(tmp_path / "absent")


def test_only_what_is_left_is_done_and_failures_on_request(tmp_path: Path) -> None:
    chosen = selection(32)

    class Interrupted(NamedEngine):
        def outcomes(self, units: Iterator[Unit]) -> Iterator[Outcome]:
            for number, found in enumerate(super().outcomes(units)):
                if number == 10:
                    raise KeyboardInterrupt
                yield found

    with pytest.raises(KeyboardInterrupt):
        examine_all(chosen, JUDGE, Interrupted(), tmp_path)
    rest, again, none = NamedEngine(), NamedEngine(), NamedEngine()
    examine_all(chosen, JUDGE, rest, tmp_path)
    assert rest.seen == [unit.key for unit in chosen.units()][10:]
    examine_all(chosen, JUDGE, again, tmp_path, retry_failed=True)
    assert [place for place, _ in again.seen] == ["fake/0007.mp4", "fake/0023.mp4"]
    examine_all(chosen, JUDGE, none, tmp_path)
    assert none.seen == []
    with Results(tmp_path) as ledger:
        assert ledger.states() == {"done": 30, "failed": 2}


def test_an_engine_is_closed_however_the_run_ends(tmp_path: Path) -> None:
    closed: list[bool] = []

    class Careful(NamedEngine):
        def outcomes(self, units: Iterator[Unit]) -> Iterator[Outcome]:
            try:
                yield from super().outcomes(units)
            finally:
                closed.append(True)

    def stop(_: Outcome) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        examine_all(selection(), JUDGE, Careful(), tmp_path, on_outcome=stop)
    assert closed == [True]


def _kill_until_done(folder: Path, *, kills: int, count: int, pause_s: float, seed: int) -> int:
    """Start a run, kill it at random moments `kills` times, then let it end."""
    maker = Path(__file__).parent / "makers_evaluation.py"
    command = [sys.executable, str(maker), str(folder), str(count), str(pause_s)]
    rng, done = random.Random(seed), 0
    while done < kills:
        process = subprocess.Popen(command)
        time.sleep(rng.uniform(0.3, 0.9))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            done += process.wait() == -signal.SIGKILL
        else:  # ended before: nothing is left to kill
            break
    subprocess.run([*command[:-1], "0"], check=True, timeout=60)
    return done


def _same_as_uninterrupted(folder: Path, count: int) -> None:
    chosen = selection(count)
    whole = folder.parent / "whole"
    examine_all(chosen, JUDGE, NamedEngine(), whole)
    tables: list[object] = []
    for run in (folder, whole):
        with Results(run) as ledger:
            rows = list(ledger.rows("files")[1])
            frames = list(ledger.rows("frames")[1])
            outcomes = list(ledger.outcomes())
            assert [found.key for found in outcomes] == [unit.key for unit in chosen.units()]
            items = items_of(chosen.samples, outcomes)
            measured = list(video_rows(items, thresholds=JUDGE.thresholds, num=20, seed=0))
            tables.append((rows, frames, measured))
    assert tables[0] == tables[1]


def test_a_killed_run_ends_with_one_row_per_file_and_the_same_numbers(tmp_path: Path) -> None:
    killed = _kill_until_done(tmp_path / "run", kills=3, count=400, pause_s=0.004, seed=1)
    assert killed == 3
    _same_as_uninterrupted(tmp_path / "run", 400)


@pytest.mark.slow
def test_a_run_killed_twenty_times_ends_the_same(tmp_path: Path) -> None:
    killed = _kill_until_done(tmp_path / "run", kills=20, count=4000, pause_s=0.004, seed=2)
    assert killed == 20
    _same_as_uninterrupted(tmp_path / "run", 4000)
