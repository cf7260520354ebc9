"""How a scan looks: a progress bar on stderr, a table per file for stdout. No decisions here."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table
from rich.text import Text

from forensics import Report
from forensics.report import Moment, most_suspicious, printable

from .progress import paused, progress_bar
from .terminal import error_line

_COLOURS = {"likely_fake": "bold red", "likely_real": "green", "uncertain": "yellow"}


class Screen:
    """stderr during a scan: a live bar on a terminal, one line per finished file elsewhere."""

    def __init__(self, num_files: int, *, quiet: bool) -> None:
        self._num_files, self._done, self._quiet = num_files, 0, quiet
        self._progress = progress_bar(
            TextColumn("{task.fields[count]} {task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            quiet=quiet,
        )
        self._live = not self._progress.disable
        self._task: TaskID | None = None

    def __enter__(self) -> Screen:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def file_started(self, path: Path) -> Callable[[str, int, int], None]:
        """Show the next file; the result is the `on_progress` of its scan."""
        if self._task is not None:
            self._progress.remove_task(self._task)
        name = escape(printable(path.name))
        task = self._progress.add_task(
            name, count=f"{self._done + 1}/{self._num_files}", total=None
        )
        self._task = task

        def on_progress(stage: str, done: int, total: int) -> None:
            self._progress.update(task, description=f"{name}: {stage}", completed=done, total=total)

        return on_progress

    def file_finished(self, path: Path, outcome: str) -> None:
        self._done += 1
        if not self._live and not self._quiet and self._num_files > 1:
            line = f"[{self._done}/{self._num_files}] {printable(str(path))}: {outcome}"
            print(line, file=sys.stderr, flush=True)

    def pausing(self, show: Callable[[], None]) -> None:
        """Take the bar off the terminal while `show` writes there."""
        with paused(self._progress):
            show()

    def error(self, message: str) -> None:
        self.pausing(lambda: error_line(message))


def as_table(report: Report) -> str:
    """One file's verdict, its people and the reasons, for people to read."""
    console = Console(file=sys.stdout, highlight=False)
    with console.capture() as capture:
        console.print(_headline(report), soft_wrap=True)
        if report.verdict.people:
            console.print(_people(report))
        for reason in report.verdict.reasons:
            console.print(Text(f"- {printable(reason)}"), soft_wrap=True)
        console.print()
    return capture.get()


def _headline(report: Report) -> Text:
    verdict = report.verdict
    line = Text(printable(report.path), style="bold").append(": ")
    line.append(verdict.label, style=_COLOURS.get(verdict.label, "magenta"))
    if verdict.probability is not None:
        line.append(f", probability of fake {verdict.probability:.2f}", style="not bold")
    if verdict.probability is not None and verdict.thresholds is not None:
        real, fake = verdict.thresholds.real, verdict.thresholds.fake
        line.append(f" (real up to {real:.2f}, fake from {fake:.2f})", style="not bold dim")
    return line


def _people(report: Report) -> Table:
    table = Table(show_edge=False, pad_edge=False)
    for heading in ("person", "verdict", "probability", "frames", "face", "most suspicious"):
        table.add_column(heading, justify="left" if heading == "verdict" else "right")
    for person in report.verdict.people:
        track = person.score.track
        table.add_row(
            str(track.id),
            Text(person.label, style=_COLOURS[person.label]),
            f"{person.score.probability:.2f}" + ("" if person.sufficient else " *"),
            str(len(track.times_s)),
            f"{track.face_px:.0f} px",
            _moment(most_suspicious(person.score)),
        )
    if not all(person.sufficient for person in report.verdict.people):
        table.caption = "* seen too little to count for the verdict"
        table.caption_justify = "left"
    return table


def _moment(moment: Moment) -> str:
    span = _clock(moment.start_s)
    if moment.end_s > moment.start_s:
        span += f" to {_clock(moment.end_s)}"
    return f"{span} ({moment.probability:.2f})"


def _clock(seconds: float) -> str:
    """12.3 s; 4:05.0 and 1:04:05.0 where seconds alone are hard to find in a player."""
    tenths = round(seconds * 10)
    if abs(tenths) < 600:
        return f"{tenths / 10:.1f} s"
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    head = f"{hours}:{minutes:02d}" if hours else f"{minutes}"
    return f"{head}:{rest / 10:04.1f}"
