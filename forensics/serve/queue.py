"""One file after the other through one scanner: a bounded queue, states, cancellation, history."""

from __future__ import annotations

import secrets
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Literal, Protocol

from pydantic import BaseModel

from forensics.errors import ForensicsError, ScanCancelled
from forensics.findings import Report
from forensics.report import printable
from forensics.serve.store import Store, Upload
from forensics.structures import Label
from forensics.video import Cancellation

State = Literal["queued", "running", "cancelling", "done", "failed", "cancelled"]
ENDED: tuple[State, ...] = ("done", "failed", "cancelled")
# Jobs that are remembered after their end: a report is about 0.3 MB on disk, of a crowd several.
HISTORY = 200
_CLOSE_S = 20.0  # a batch of faces on a slow machine; the decoder itself is killed


class QueueFull(ForensicsError):
    """As many files wait as may wait."""


class Examiner(Protocol):
    """What examines a file: a `forensics.Scanner`."""

    def scan(
        self,
        path: Path,
        *,
        on_progress: Callable[[str, int, int], None],
        cancellation: Cancellation,
        keep_evidence: bool,
    ) -> Report: ...


class JobStatus(BaseModel):
    """A file that was submitted, and what has become of it."""

    id: str
    name: str
    size_bytes: int
    state: State
    stage: (
        str | None
    )  # "loading", "looking" (frames), "scoring" (faces) or "explaining" while it runs
    done: int
    total: int
    label: Label | None  # the verdict's, once the state is "done"
    probability: float | None
    message: str | None  # why it failed
    submitted: str
    started: str | None
    finished: str | None
    revision: int


class JobList(BaseModel):
    """Jobs that changed after the revision that was asked for, newest first."""

    server: str  # another word after a restart: everything known before is gone
    revision: int
    free_places: int  # how many files may be sent now
    jobs: list[JobStatus]


@dataclass(slots=True, kw_only=True)
class _Job:
    id: str
    upload: Upload
    status: JobStatus
    cancellation: Cancellation = field(default_factory=Cancellation)


class JobQueue:
    """Has at most `places` files waiting (uploads under way count) while one is examined."""

    def __init__(self, scanner: Examiner, store: Store, *, places: int) -> None:
        self._scanner, self._store, self._places = scanner, store, places
        self._changed = threading.Condition()
        self._jobs: dict[str, _Job] = {}  # in order of submission
        self._waiting: deque[_Job] = deque()
        self._reserved, self._revision, self._closing = 0, 0, False
        self._server = secrets.token_hex(8)
        self._worker = threading.Thread(target=self._work, name="forensics-serve", daemon=True)
        self._worker.start()

    def reserve(self) -> None:
        """Take a place for a file that is about to arrive. Raises QueueFull."""
        with self._changed:
            if self._free_places() == 0:
                raise QueueFull(
                    f"{self._places} files are waiting already: wait until one is done, or start "
                    "the server with a longer --queue"
                )
            self._reserved += 1

    def release(self) -> None:
        """Give a reserved place back: the file did not arrive."""
        with self._changed:
            self._reserved -= 1

    def submit(self, upload: Upload, name: str) -> JobStatus:
        """Queue a file on the place that was reserved for it; `name` is what reports call it."""
        with self._changed:
            self._reserved -= 1
            status = JobStatus(
                id=secrets.token_hex(16),
                name=name,
                size_bytes=upload.size_bytes,
                state="queued",
                stage=None,
                done=0,
                total=0,
                label=None,
                probability=None,
                message=None,
                submitted=_now(),
                started=None,
                finished=None,
                revision=0,
            )
            job = _Job(id=status.id, upload=upload, status=status)
            self._jobs[job.id] = job
            self._waiting.append(job)
            self._update(job)
            return job.status

    def status(self, job_id: str) -> JobStatus | None:
        """A job's state now; None for an id that was never given or is no longer remembered."""
        with self._changed:
            job = self._jobs.get(job_id)
            return job.status if job is not None else None

    def changes(self, since: int) -> JobList:
        """All jobs that changed after revision `since`; 0 for all."""
        with self._changed:
            jobs = [job.status for job in self._jobs.values() if job.status.revision > since]
            return JobList(
                server=self._server,
                revision=self._revision,
                free_places=self._free_places(),
                jobs=jobs[::-1],
            )

    def cancel(self, job_id: str) -> JobStatus | None:
        """End a job that waits or runs; one that has ended stays what it is. None as `status`."""
        with self._changed:
            job = self._jobs.get(job_id)
            if job is None:
                return None
            if job.status.state == "queued":
                self._waiting.remove(job)
                self._end(job, state="cancelled")
            elif job.status.state == "running":
                self._update(job, state="cancelling")
        job.cancellation.cancel()  # outside: it may wait for the decoder's end
        return job.status

    def close(self) -> None:
        """Cancel everything and wait for the worker."""
        with self._changed:
            self._closing = True
            jobs = list(self._jobs.values())
            self._changed.notify_all()
        for job in jobs:
            self.cancel(job.id)
        self._worker.join(_CLOSE_S)

    def _free_places(self) -> int:
        return self._places - len(self._waiting) - self._reserved

    def _work(self) -> None:
        while (job := self._next()) is not None:
            try:
                self._examine(job)
            except ScanCancelled:
                self._end(job, state="cancelled")
            except ForensicsError as error:
                self._end(job, state="failed", message=_about(job, str(error)))
            except OSError as error:
                what = f"the report cannot be written: {error.strerror}"
                self._end(job, state="failed", message=what)
            except Exception as error:
                what = f"unexpected {type(error).__name__}: {error}; please report this"
                self._end(job, state="failed", message=_about(job, what))

    def _next(self) -> _Job | None:
        with self._changed:
            while not self._waiting and not self._closing:
                self._changed.wait()
            if self._closing:
                return None
            job = self._waiting.popleft()
            self._update(job, state="running", started=_now())
            return job

    def _examine(self, job: _Job) -> None:
        report = self._scanner.scan(
            job.upload.path,
            on_progress=partial(self._progress, job),
            cancellation=job.cancellation,
            keep_evidence=True,  # for the HTML report
        )
        report = _under_its_name(report, job)
        job.cancellation.check()
        self._store.keep(job.id, report)
        verdict = report.verdict
        self._end(job, state="done", label=verdict.label, probability=verdict.probability)

    def _progress(self, job: _Job, stage: str, done: int, total: int) -> None:
        with self._changed:
            self._update(job, stage=stage, done=done, total=total)

    def _update(self, job: _Job, **changes: object) -> None:
        """A new status under the next revision; the caller holds the lock."""
        self._revision += 1
        job.status = job.status.model_copy(update={**changes, "revision": self._revision})
        self._changed.notify_all()

    def _end(self, job: _Job, *, state: State, **changes: object) -> None:
        job.upload.path.unlink(missing_ok=True)
        with self._changed:
            if job.status.state == "cancelling":  # while the report was written, perhaps
                state, changes = "cancelled", {}
            if state != "done":
                self._store.forget(job.id)  # what was written of it before it failed
            self._update(job, state=state, finished=_now(), **changes)
            ended = [each for each in self._jobs.values() if each.status.state in ENDED]
            for oldest in ended[: max(0, len(ended) - HISTORY)]:
                del self._jobs[oldest.id]
                self._store.forget(oldest.id)


def display_name(name: str) -> str:
    """What a file is called on the page and in its report: its last part, printable, not long."""
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    shown = printable(" ".join(last.split()))
    return (shown if len(shown) <= 120 else f"{shown[:80]}…{shown[-39:]}") or "unnamed"


def _under_its_name(report: Report, job: _Job) -> Report:
    """The report as of the file the user knows; the random name means nothing to anybody."""
    reasons = tuple(_about(job, reason) for reason in report.verdict.reasons)
    return replace(report, path=job.status.name, verdict=replace(report.verdict, reasons=reasons))


def _about(job: _Job, sentence: str) -> str:
    return sentence.replace(str(job.upload.path), job.status.name)


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
