"""How an evaluation looks: one live line on stderr, a few lines of result for stdout."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from forensics import metrics
from forensics.datasets.manifest import Sample
from forensics.evaluation.ledger import Ledger
from forensics.evaluation.outcome import AS_IT_IS, Outcome
from forensics.report import printable

from .progress import paused, progress_bar

_AUC_EVERY_S = 1.0  # sorting a hundred thousand scores takes a hundredth of that
_LINE_EVERY_S = 10.0  # where there is no terminal


class Screen:
    """stderr during a run: files, files per second, time left, running AUC, failures."""

    def __init__(self, *, quiet: bool, labels: Sequence[Sample]) -> None:
        self._quiet = quiet
        self._fake = {sample.place: sample.label == "fake" for sample in labels}
        self._judged: dict[str, float] = {}
        self._failed = self._done = self._left = 0
        self._auc_at = self._line_at = self._started = time.monotonic()
        self._auc = "AUC -"
        self._progress = progress_bar(
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False),
            TextColumn("{task.fields[auc]}"),
            TextColumn("{task.fields[failed]}", style="red"),
            quiet=quiet,
        )
        self._live = not self._progress.disable
        self._task: TaskID | None = None

    def __enter__(self) -> Screen:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def start(self, ledger: Ledger, left: int) -> None:
        """What is known already counts for the AUC, and not for the speed."""
        for outcome in ledger.outcomes():
            self._note(outcome)
        self._failed = ledger.states()["failed"]
        self._left = left
        self._started = self._line_at = time.monotonic()
        self._task = self._progress.add_task(
            "", total=left, rate="", auc=self._auc, failed=self._failures()
        )
        done = sum(ledger.states().values()) - left
        if done and not self._quiet:
            self._say(f"going on: {done} results are there already, {left} are left")

    def outcome(self, outcome: Outcome) -> None:
        """One more result."""
        self._done += 1
        self._failed += outcome.state == "failed"
        self._note(outcome)
        now = time.monotonic()
        if now - self._auc_at > _AUC_EVERY_S or self._done == self._left:
            self._auc, self._auc_at = self._running_auc(), now
        rate = f"{self._done / max(now - self._started, 1e-9):.2f} files/s"
        if self._task is not None:
            self._progress.update(
                self._task,
                completed=self._done,
                rate=rate,
                auc=self._auc,
                failed=self._failures(),
            )
        last = self._done == self._left
        if not self._live and not self._quiet and (now - self._line_at > _LINE_EVERY_S or last):
            self._line_at = now
            failures = self._failures()
            tail = f", {failures}" if failures else ""
            self._say(f"[{self._done}/{self._left}] {rate}, {self._auc}{tail}")

    def _note(self, outcome: Outcome) -> None:
        if outcome.probability is not None and outcome.condition == AS_IT_IS:
            self._judged[outcome.place] = outcome.probability

    def _running_auc(self) -> str:
        labels = [int(self._fake[place]) for place in self._judged]
        if not 0 < sum(labels) < len(labels):
            return "AUC -"
        return f"AUC {metrics.roc_auc(labels, list(self._judged.values())):.3f}"

    def _failures(self) -> str:
        return f"{self._failed} failed" if self._failed else ""

    def _say(self, line: str) -> None:
        with paused(self._progress):
            print(line, file=sys.stderr, flush=True)


def headline(summary: Mapping[str, Any], document: Path) -> str:
    """The few lines of a result that everybody asks for."""
    files = summary["files"]
    lines = [
        f"{summary['detector']['name']} on {summary['dataset']}: {files['total']} files, "
        f"{files['judged']} judged, {files['abstained']} abstained, {files['failed']} failed"
    ]
    for row in summary["rows"]:
        if row["by"] == "all":
            auc = row["measures"]["auc"]
            text = "no AUC: one class only" if auc is None else f"AUC {_interval(auc)}"
            lines.append(
                f"{row['level']} level, without a face {row['no_face']}: {text} "
                f"({row['num_real']} real, {row['num_fake']} fake)"
            )
    for loss in summary["robustness"]:
        if loss["auc"] is not None:
            lines.append(
                f"{loss['condition']}: AUC {_interval(loss['auc'])}, change "
                f"{loss['auc_change']['value']:+.3f}"
            )
    guard = summary["leak_guard"]
    if guard and guard["state"] != "clear":
        lines.append(guard["sentence"])
    lines.append(f"everything: {document}")
    return "".join(f"{printable(line)}\n" for line in lines)


def _interval(estimate: Mapping[str, float | None]) -> str:
    if estimate["low"] is None:
        return f"{estimate['value']:.3f}"
    return f"{estimate['value']:.3f} [{estimate['low']:.3f}, {estimate['high']:.3f}]"
