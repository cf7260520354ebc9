"""`deepfake evaluate`: a run from its arguments to its folder, with a live line on stderr."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from forensics.config import load_config
from forensics.evaluation.files import arrow_library
from forensics.evaluation.leak import Finding, find, require_clear
from forensics.evaluation.outcome import AS_IT_IS, Engine
from forensics.evaluation.outputs import DOCUMENT, write_outputs
from forensics.evaluation.plots import plot_library
from forensics.evaluation.predictions import Predictions
from forensics.evaluation.run import Judge, examine_all
from forensics.evaluation.selection import Selection, select

from .evaluate_show import Screen, headline
from .terminal import INTERRUPTED, emit, error_line

FINISHED, FILES_FAILED = 0, 1
_SHOWN_PROBLEMS = 5  # of a data set's list; the rest is counted


def run(
    dataset: str,
    *,
    out: Path,
    root: str | None,
    detector: str,
    split: str | None,
    frames: int | None,
    workers: int | None,
    engine: str,
    ray_address: str | None,
    retry_failed: bool,
    robustness: bool,
    allow_leak: bool,
    from_csv: Path | None,
    quiet: bool,
) -> int:
    """Evaluate; the result is the exit status."""
    # First: nobody should learn after hours of work that the plots cannot be drawn.
    plot_library()
    arrow_library()
    selection = select(dataset, root, split=split)
    _say_problems(selection)
    finding: Finding | None = None
    if from_csv is not None:
        predictions = Predictions(from_csv)
        judge, works = predictions.judge, predictions
    else:
        judge, works, finding = _detector(
            selection, detector, frames, workers, engine, ray_address, allow_leak
        )
    conditions = [AS_IT_IS, *_conditions()] if robustness else [AS_IT_IS]
    try:
        with Screen(quiet=quiet, labels=selection.samples) as screen:
            examine_all(
                selection,
                judge,
                works,
                out,
                conditions=conditions,
                retry_failed=retry_failed,
                on_start=screen.start,
                on_outcome=screen.outcome,
            )
    except KeyboardInterrupt:
        error_line(f"interrupted; the same command goes on with {out}")
        return INTERRUPTED
    summary = write_outputs(out, finding, location=selection.location)
    emit(headline(summary, out / DOCUMENT))
    return _status(summary)


def _detector(
    selection: Selection,
    name: str,
    frames: int | None,
    workers: int | None,
    engine: str,
    ray_address: str | None,
    allow_leak: bool,
) -> tuple[Judge, Engine, Finding]:
    from forensics.checkpoint import load_checkpoint
    from forensics.config import ScanConfig
    from forensics.evaluation.examine import judge_of, shared_precision
    from forensics.evaluation.local import LocalEngine

    settings: dict[str, Any] = {} if frames is None else {"sampling": {"frames": frames}}
    config = load_config(ScanConfig, settings, "command line")
    checkpoint = load_checkpoint(name)
    card = checkpoint.card
    finding = find(
        selection.samples,
        checkpoint.path,
        manifest=card.training_manifest,
        manifest_sha256=card.manifest_sha256,
    )
    require_clear(finding, allowed=allow_leak)
    if finding.state != "clear":
        error_line(finding.sentence)
    if engine == "ray":
        from forensics.evaluation.cluster import RayEngine

        cluster = RayEngine(checkpoint, config, address=ray_address, workers=workers)
        return judge_of(checkpoint, config, cluster.precision()), cluster, finding
    _, dtype = shared_precision(card, config)
    local = LocalEngine(checkpoint, config, workers=workers)
    return judge_of(checkpoint, config, dtype), local, finding


def _conditions() -> list[str]:
    from forensics.evaluation.degrade import CONDITIONS

    return list(CONDITIONS)


def _say_problems(selection: Selection) -> None:
    """What the data set names and does not have is said, and the rest is evaluated."""
    for problem in selection.problems[:_SHOWN_PROBLEMS]:
        error_line(problem)
    more = len(selection.problems) - _SHOWN_PROBLEMS
    if more > 0:
        error_line(f"and {more} more problems of this data set")


def _status(summary: Mapping[str, Any]) -> int:
    failed = summary["files"]["failed"]
    if not failed:
        return FINISHED
    error_line(f"{failed} files failed; --retry-failed examines them again")
    return FILES_FAILED
