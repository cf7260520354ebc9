"""Two or more runs on the same files: what differs, and whether chance explains it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from forensics.errors import ConfigError
from forensics.evaluation.bootstrap import Estimate, estimates, paired_difference
from forensics.evaluation.summary import DRAWS, Run, read_run
from forensics.evaluation.tables import Items

MEASURES = ("auc", "ap", "eer", "log_loss", "brier")


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """One run on the common files."""

    name: str
    sha256: str
    measures: dict[str, Estimate | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """`second` minus `first` in one measure, on the same files and the same draws."""

    first: str
    second: str
    measure: str
    change: Estimate
    p_value: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """All runs on `num_real` + `num_fake` files that every one of them judged; `left_out` were not
    judged by all or are not in all of them."""

    num_real: int
    num_fake: int
    left_out: int
    draws: int
    seed: int
    runs: tuple[Standing, ...]
    differences: tuple[Difference, ...]


def compare(folders: Sequence[Path], *, num_draws: int = DRAWS, seed: int = 0) -> Comparison:
    """Compare the runs in `folders`, each with each other, at video level.

    Raises ConfigError for fewer than two runs, for files that two runs label differently, and
    where the common files are not of both classes.
    """
    if len(folders) < 2:
        raise ConfigError("a comparison needs at least two runs")
    runs = [read_run(folder) for folder in folders]
    names = _names(folders, runs)
    common, left_out = _common(folders, runs)
    labels, clusters = common[0].labels, common[0].clusters
    if not 0 < labels.sum() < len(labels):
        raise ConfigError(
            f"the runs have {len(labels)} judged files in common, and not of both classes"
        )
    standings = [
        Standing(
            name=name,
            sha256=run.facts["detector"]["sha256"],
            measures={
                measure: estimate
                for measure, estimate in estimates(
                    labels,
                    items.probabilities,
                    clusters,
                    thresholds=None,
                    num=num_draws,
                    seed=seed,
                ).items()
                if measure in MEASURES
            },
        )
        for name, run, items in zip(names, runs, common, strict=True)
    ]
    differences: list[Difference] = []
    for first, second in combinations(range(len(runs)), 2):
        for measure in MEASURES:
            change, p_value = paired_difference(
                labels,
                common[first].probabilities,
                common[second].probabilities,
                clusters,
                name=measure,
                num=num_draws,
                seed=seed,
            )
            differences.append(
                Difference(
                    first=names[first],
                    second=names[second],
                    measure=measure,
                    change=change,
                    p_value=p_value,
                )
            )
    return Comparison(
        num_real=int((labels == 0).sum()),
        num_fake=int(labels.sum()),
        left_out=left_out,
        draws=num_draws,
        seed=seed,
        runs=tuple(standings),
        differences=tuple(differences),
    )


def _names(folders: Sequence[Path], runs: Sequence[Run]) -> list[str]:
    """Detectors' names; the folders' where two are the same."""
    names = [str(run.facts["detector"]["name"]) for run in runs]
    if len(set(names)) == len(names):
        return names
    short = [folder.name or str(folder) for folder in folders]
    return short if len(set(short)) == len(short) else [str(folder) for folder in folders]


def _common(folders: Sequence[Path], runs: Sequence[Run]) -> tuple[list[Items], int]:
    """The same files of every run in the same order, and how many others there are."""
    first = {sample.place: sample.label for sample in runs[0].samples}
    everywhere = set(first)
    for folder, run in zip(folders, runs, strict=True):
        for sample in run.samples:
            if first.get(sample.place, sample.label) != sample.label:
                raise ConfigError(
                    f"{sample.place}: {first[sample.place]} in {folders[0]}, {sample.label} in "
                    f"{folder}; these runs are not of the same data"
                )
        judged = zip(run.samples, np.isnan(run.clean.probabilities).tolist(), strict=True)
        everywhere &= {sample.place for sample, missing in judged if not missing}
    total = len({sample.place for run in runs for sample in run.samples})
    common: list[Items] = []
    for run in runs:
        row_of = {sample.place: row for row, sample in enumerate(run.samples)}
        rows = np.array(
            [row_of[sample.place] for sample in runs[0].samples if sample.place in everywhere],
            dtype=np.int64,
        )
        common.append(run.clean.at(rows))
    return common, total - len(everywhere)
