"""`deepfake data check`: a data set read, shown, and written as a manifest."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from forensics.datasets.check import Check, check, to_document
from forensics.datasets.manifest import LABELS, Problem, relocated
from forensics.datasets.manifest_file import write_manifest
from forensics.datasets.splits import components, describe
from forensics.errors import ConfigError
from forensics.report import printable

from .terminal import emit

CLEAN, FOUND = 0, 1
_SHOWN = 5  # problems of one kind, and leaks; --json has all


def run(
    folder: Path,
    *,
    layout: str | None,
    out: Path | None,
    split: str | None,
    seed: int,
    as_json: bool,
) -> int:
    """Check one folder; the result is the exit status."""
    result = check(folder, layout, fractions=_fractions(split), seed=seed)
    if out is not None:
        base = folder.parent if folder.is_file() else folder
        write_manifest(relocated(result.samples, base, out.parent), out)
    emit(json.dumps(to_document(result), indent=2) + "\n" if as_json else _as_text(result, out))
    return CLEAN if result.clean else FOUND


def _fractions(text: str | None) -> Mapping[str, float] | None:
    if text is None:
        return None
    try:
        shares = [float(part) for part in text.split(",")]
    except ValueError:
        shares = []
    if not 2 <= len(shares) <= 3:
        raise ConfigError(f"--split {text}: expected shares of train,val,test such as 0.8,0.1,0.1")
    return dict(zip(("train", "val", "test"), shares, strict=False))


def _as_text(result: Check, out: Path | None) -> str:
    console = Console(file=sys.stdout, highlight=False)
    with console.capture() as capture:
        labels = ", ".join(
            f"{sum(each.label == label for each in result.samples)} {label}" for label in LABELS
        )
        head = Text(printable(str(result.root)), style="bold")
        head.append(f": {result.found.layout}, {len(result.samples)} files, {labels}", "not bold")
        console.print(head, soft_wrap=True)
        console.print(_counts(result))
        for line in _people(result):
            console.print(Text(printable(line)), soft_wrap=True)
        for note in result.found.notes:
            console.print(Text(f"note: {printable(note)}"), soft_wrap=True)
        for line in (*_problems(result), *_leaks(result)):
            console.print(Text(printable(line)), soft_wrap=True)
        if out is not None:
            console.print(Text(f"written: {printable(str(out))}"), soft_wrap=True)
    return capture.get()


def _counts(result: Check) -> Table:
    """A line per value of the columns that tell the files apart."""
    table = Table(show_edge=False, pad_edge=False)
    for heading in ("", "", *LABELS):
        table.add_column(heading, justify="right" if heading else "left")
    for field in ("split", "dataset", "method", "compression", "kind"):
        counts = result.counts(field)
        if list(counts) == [""]:
            continue
        for number, (value, labels) in enumerate(counts.items()):
            shown = Text(printable(value) or "(none)")
            name = field if number == 0 else ""
            table.add_row(name, shown, *(str(labels[label]) for label in LABELS))
    return table


def _people(result: Check) -> list[str]:
    lines: list[str] = []
    for name, field in (("identities", "identities"), ("sources", "sources")):
        without = result.without(field)
        missing = f"; {without} files name none" if without else ""
        lines.append(f"{name}: {result.names(field)}{missing}")
    lines.append(f"groups that share nobody: {len(components(result.samples))}")
    return lines


def _problems(result: Check) -> list[str]:
    by_kind: dict[str, list[Problem]] = {}
    for problem in result.found.problems:
        by_kind.setdefault(problem.kind, []).append(problem)
    lines: list[str] = []
    for kind, problems in by_kind.items():
        lines.append(f"problem: {kind} ({len(problems)})")
        lines += [f"  {each.where}: {each.detail}" for each in problems[:_SHOWN]]
        if len(problems) > _SHOWN:
            lines.append(f"  and {len(problems) - _SHOWN} more; --json names all")
    return lines


def _leaks(result: Check) -> list[str]:
    if not result.leaks:
        return []
    lines = [f"leak: {len(result.leaks)} identities, sources or groups are in two splits"]
    lines += [f"  {describe(leak, result.samples)}" for leak in result.leaks[:_SHOWN]]
    if len(result.leaks) > _SHOWN:
        lines.append(f"  and {len(result.leaks) - _SHOWN} more; --json names all")
    return [*lines, "  --split makes splits that share nobody"]
