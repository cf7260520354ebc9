"""Units of an extraction done by processes: started, watched, stopped, and survived.

A worker that is killed must not hang the others, and a parent that is killed must not leave workers
behind that write beside its successor's.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forensics.config import ExtractionConfig
from forensics.datasets.cutting import cut_row
from forensics.datasets.manifest import Sample
from forensics.datasets.shard_index import Outcome, write_unit
from forensics.errors import ForensicsError
from forensics.video import dismiss

if TYPE_CHECKING:
    from forensics.faces import FaceDetector

OUT_OF_MEMORY = (
    "memory runs out; finished shards are kept: run the same command again, with fewer --workers"
)
_POLL_S = 0.2

MakeDetector = Callable[[], "FaceDetector"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One unit: its rows (number, sample), and where they come from and go to."""

    unit: int
    rows: tuple[tuple[int, Sample], ...]
    folder: Path
    out: Path
    config: ExtractionConfig


class _Stopped(Exception):
    """Raised inside a worker when the run is given up."""


def _do(job: Job, detector: FaceDetector, on_row: Callable[[], None]) -> None:
    def outcomes() -> Iterator[Outcome]:
        for row, sample in job.rows:
            yield cut_row(row, sample, job.folder, job.config, detector)
            on_row()

    write_unit(job.out, job.unit, outcomes(), margin=job.config.margin)


def run_jobs(
    jobs: Sequence[Job], workers: int, make_detector: MakeDetector, advance: Callable[[int], None]
) -> None:
    """Do all units, in this process or in `workers` others; `advance` hears the rows done so far.

    Raises what a unit raises, and ForensicsError where a worker was killed; finished units stay
    finished.
    """
    if workers > 1 and len(jobs) > 1:
        _run_apart(jobs, min(workers, len(jobs)), make_detector, advance)
        return
    done, detector = 0, make_detector()

    def on_row() -> None:
        nonlocal done
        done += 1
        advance(done)

    try:
        for job in jobs:
            _do(job, detector, on_row)
    finally:
        dismiss()


def _run_apart(
    jobs: Sequence[Job], workers: int, make_detector: MakeDetector, advance: Callable[[int], None]
) -> None:
    # Spawned: torch and the threads of its parent do not survive a fork.
    context = multiprocessing.get_context("spawn")
    # Without locks, which a killed worker would keep: each job writes to its own place.
    progress = context.RawArray("q", len(jobs))
    stop = context.RawValue("b", 0)
    pool = ProcessPoolExecutor(
        workers, context, initializer=_start_worker, initargs=(make_detector, progress, stop)
    )
    try:
        pending: set[Future[None]] = {
            pool.submit(_work, job, place) for place, job in enumerate(jobs)
        }
        while pending:
            done, pending = wait(pending, timeout=_POLL_S, return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
            advance(sum(progress))
    except BrokenProcessPool as error:
        raise ForensicsError(
            f"a worker process was killed, as happens when {OUT_OF_MEMORY}"
        ) from error
    finally:
        stop.value = 1  # between two rows: a worker does not finish its unit for nothing
        pool.shutdown(cancel_futures=True)
    advance(sum(progress))


@dataclass(slots=True)
class _Worker:
    """What a worker process keeps for all of its units; the detector is made for the first."""

    make_detector: MakeDetector
    progress: Any
    stop: Any
    detector: FaceDetector | None = None


# State of the module by necessity: a pool hands its workers nothing else.
_worker: list[_Worker] = []


def _start_worker(make_detector: MakeDetector, progress: Any, stop: Any) -> None:
    # Ctrl-C reaches the whole group; the parent decides what becomes of it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)  # killed parents cannot say goodbye; nobody would read the result

    threading.Thread(target=follow, daemon=True).start()
    _worker[:] = [_Worker(make_detector, progress, stop)]


def _work(job: Job, place: int) -> None:
    (worker,) = _worker
    # Not in the initializer, whose errors a pool reports as a death.
    worker.detector = worker.detector or worker.make_detector()

    def on_row() -> None:
        worker.progress[place] += 1
        if worker.stop.value:
            raise _Stopped

    _do(job, worker.detector, on_row)
