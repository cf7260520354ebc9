"""How a training looks: a bar with what is left to do, or a line per validation. On stderr."""

from __future__ import annotations

import sys

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from forensics.report import printable
from forensics.training import progress

from .progress import paused, progress_bar

_LINE_EVERY = 100  # rows cut between two lines where there is no terminal


class TrainingScreen:
    """A live bar on a terminal; elsewhere a line now and then."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._bar = progress_bar(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[told]}"),
            quiet=quiet,
            speed_estimate_period=120,  # seconds looked back: validations come in between
        )
        self._live = not self._bar.disable
        self._task: TaskID | None = None
        self._best = ""
        self._told = 0

    def __enter__(self) -> TrainingScreen:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def cutting(self, done: int, total: int) -> None:
        """The `on_progress` of an extraction."""
        self._show("cutting crops", done, total, "")
        # Heard several times a second, whether or not a file was finished.
        if not self._live and done // _LINE_EVERY > self._told:
            self._told = done // _LINE_EVERY
            self.note(f"cutting crops: {done} of {total} files")

    def autoencoders(self, done: int, total: int) -> None:
        """The `on_autoencoders` of a training."""
        self._show("learning autoencoders", done, total, "")
        if not self._live and (done == 1 or done == total):
            self.note(f"learning autoencoders: step {done} of {total}")

    def step(self, told: progress.Progress) -> None:
        """The `on_step` of a training."""
        words = f"loss {told.loss:.3f}, {told.images_per_s:.0f} images/s{self._best}"
        self._show(f"training, epoch {told.epoch + 1}", told.step, told.total, words)

    def validated(self, told: progress.Validated) -> None:
        """The `on_validation` of a training."""
        mark = ", best so far" if told.best else ""
        if told.best:
            self._best = f", best AUC {told.auc:.3f}"
        self.note(
            f"step {told.step}: AUC {told.auc:.3f} of {told.videos} validation videos, "
            f"loss {told.loss:.3f}{mark}"
        )

    def note(self, text: str) -> None:
        """A line above the bar."""
        if not self._quiet:
            with paused(self._bar):
                print(printable(text), file=sys.stderr, flush=True)

    def _show(self, description: str, done: int, total: int, told: str) -> None:
        if self._task is None:
            self._task = self._bar.add_task(description, total=total, told=told)
        self._bar.update(
            self._task, completed=done, total=total, description=description, told=told
        )
