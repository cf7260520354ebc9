"""Everything a finished run leaves in its folder, made from the ledger alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from forensics.datasets.manifest import Sample
from forensics.evaluation.files import write_parquet, write_submission
from forensics.evaluation.leak import Finding
from forensics.evaluation.markdown import markdown
from forensics.evaluation.plots import draw_plots
from forensics.evaluation.sheet import draw_sheet
from forensics.evaluation.summary import DRAWS, read_run, summarise
from forensics.report import write_text

SUMMARY, DOCUMENT, SUBMISSION = "summary.json", "summary.md", "submission.csv"


def write_outputs(
    folder: Path,
    finding: Finding | None,
    *,
    location: Callable[[Sample], str],
    num_draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, Any]:
    """Write summary, plots, tables and contact sheet of the run in `folder`; return the summary.

    Each file appears whole or not at all. `location` says where a sample's file is.
    """
    summary = summarise(folder, finding, num_draws=num_draws, seed=seed)
    write_text(folder / SUMMARY, json.dumps(summary, allow_nan=False, indent=1) + "\n")
    write_text(folder / DOCUMENT, markdown(summary))
    run = read_run(folder)
    write_submission(run.clean, folder / SUBMISSION)
    write_parquet(folder)
    judged = run.clean.judged()
    if len(judged):
        detector = summary["detector"]
        note = (
            f"video level, {len(judged)} files with a probability; file "
            f"{detector['sha256'][:12]}, manifest {summary['manifest_sha256'][:12]}"
        )
        if finding is not None and finding.state != "clear":
            note += f"\n{_first_words(finding.sentence)}"
        draw_plots(
            judged,
            folder,
            title=f"{detector['name']} on {summary['dataset']}",
            note=note,
            thresholds=run.thresholds,
        )
        draw_sheet(folder, judged, location)
    return summary


def _first_words(sentence: str) -> str:
    """As much as fits beneath a plot."""
    return sentence if len(sentence) <= 110 else f"{sentence[:107]}..."
