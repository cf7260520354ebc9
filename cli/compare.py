"""`deepfake compare`: runs side by side, with their differences and p-values."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from forensics.evaluation.bootstrap import Estimate
from forensics.evaluation.compare import MEASURES, Comparison, compare
from forensics.report import printable

from .terminal import emit

SCHEMA = "deepfake-comparison/1"


def run(folders: Sequence[Path], *, as_json: bool) -> int:
    """Print the comparison; the result is the exit status."""
    comparison = compare(folders)
    if as_json:
        emit(json.dumps({"schema": SCHEMA, **asdict(comparison)}, allow_nan=False) + "\n")
    else:
        emit(_text(comparison))
    return 0


def _text(comparison: Comparison) -> str:
    console = Console(file=sys.stdout, highlight=False)
    with console.capture() as capture:
        console.print(
            f"{comparison.num_real} real and {comparison.num_fake} fake files that every run "
            f"judged ({comparison.left_out} left out), video level; 95% intervals and two-sided "
            f"p-values from {comparison.draws} draws of clusters, seed {comparison.seed}",
            soft_wrap=True,
        )
        console.print(_standings(comparison))
        console.print(_differences(comparison))
    return capture.get()


def _standings(comparison: Comparison) -> Table:
    """A column per run: two of them fit into 80 characters with their intervals."""
    table = Table(show_edge=False, pad_edge=False)
    table.add_column("measure")
    for standing in comparison.runs:
        table.add_column(Text(printable(standing.name)), justify="right")
    for measure in MEASURES:
        table.add_row(
            measure, *(_value(standing.measures[measure]) for standing in comparison.runs)
        )
    return table


def _differences(comparison: Comparison) -> Table:
    table = Table(show_edge=False, pad_edge=False)
    for heading in ("second minus first", "measure", "change", "p"):
        table.add_column(heading, justify="left" if heading[0] == "s" else "right")
    for found in comparison.differences:
        table.add_row(
            Text(f"{printable(found.second)} - {printable(found.first)}"),
            found.measure,
            _value(found.change, signed=True),
            "-" if found.p_value is None else f"{found.p_value:.3f}",
        )
    return table


def _value(estimate: Estimate | None, *, signed: bool = False) -> str:
    if estimate is None:
        return "-"
    spec = "+.3f" if signed else ".3f"
    text = format(estimate.value, spec)
    if estimate.low is None or estimate.high is None:
        return text
    return f"{text} \\[{estimate.low:{spec}}, {estimate.high:{spec}}]"
