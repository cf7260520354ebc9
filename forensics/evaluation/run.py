"""The order of an evaluation: files, ledger, engine; what follows reads the ledger alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from forensics.datasets.manifest_file import write_manifest
from forensics.evaluation.ledger import Ledger
from forensics.evaluation.outcome import AS_IT_IS, Engine, OnOutcome, Unit
from forensics.evaluation.selection import Selection
from forensics.structures import Thresholds

MANIFEST = "manifest.csv"
# The ledger as it stands, and how many files are left.
OnStart = Callable[[Ledger, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """Whose scores these are: a detector, or (`thresholds` None) somebody's table of predictions.

    `protocol` holds what else changes a score, as JSON knows it: how frames are chosen, cut,
    computed and put together.
    """

    name: str
    version: str
    sha256: str
    thresholds: Thresholds | None
    protocol: Mapping[str, Any]


def facts_of(selection: Selection, judge: Judge, conditions: Sequence[str]) -> dict[str, Any]:
    """What every number of a run rests on; a run begun with other facts cannot go on."""
    return {
        "dataset": Path(selection.dataset).name,
        "split": selection.split,
        "num_files": len(selection.samples),
        "manifest_sha256": selection.manifest_sha256(),
        "conditions": list(conditions),
        "detector": {
            "name": judge.name,
            "version": judge.version,
            "sha256": judge.sha256,
            "thresholds": asdict(judge.thresholds) if judge.thresholds else None,
        },
        "protocol": dict(judge.protocol),
    }


def examine_all(
    selection: Selection,
    judge: Judge,
    engine: Engine,
    folder: Path,
    *,
    conditions: Sequence[str] = (AS_IT_IS,),
    retry_failed: bool = False,
    on_start: OnStart | None = None,
    on_outcome: OnOutcome | None = None,
) -> None:
    """Examine what is still pending, writing each result as it comes.

    Killed or interrupted at any moment and called again, it ends with one row per file. Raises
    ConfigError where `folder` holds a run of something else, or another process writes it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    units = list(selection.units(conditions))
    facts = facts_of(selection, judge, conditions)
    with Ledger(folder, facts, (unit.key for unit in units)) as ledger:
        # Behind the ledger: a folder that holds another run keeps its manifest.
        write_manifest(selection.samples, folder / MANIFEST)
        by_key = {unit.key: unit for unit in units}
        left = [by_key[key] for key in ledger.pending(retry_failed=retry_failed)]
        if on_start is not None:
            on_start(ledger, len(left))
        # Closed however this ends: an engine has processes to stop.
        outcomes = cast("Any", engine.outcomes(_each(left)))
        with closing(outcomes):
            for outcome in outcomes:
                ledger.record(outcome)
                if on_outcome is not None:
                    on_outcome(outcome)


def _each(units: list[Unit]) -> Iterator[Unit]:
    yield from units
