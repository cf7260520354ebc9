"""From outcomes to tables: which files form a row, and what is measured of them.

A row compares fakes with reals of the same data set: the row of a method holds its fakes and the
reals of that data set in the compressions its fakes have.

Legend: N items of a row (files, or frames with a face).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from forensics.datasets.manifest import Sample
from forensics.datasets.splits import components
from forensics.evaluation.bootstrap import Estimate, estimates, paired_difference
from forensics.evaluation.measures import Floats
from forensics.evaluation.outcome import AS_IT_IS, Outcome
from forensics.structures import Thresholds

# Longer side of the face in pixels; below 64 a detector of 224 px sees mostly interpolation.
FACE_SIZES = (64, 128, 256)
IMPUTED = 0.5  # what Kaggle's entrants gave videos without faces


@dataclass(frozen=True, slots=True, kw_only=True)
class Items:
    """What a row is made of: labels (N,), probabilities (N,) with NaN where there is none, clusters
    (N,), face_px (N,) NaN where unknown, and the samples; none where items are frames."""

    labels: NDArray[np.int64]
    probabilities: Floats
    clusters: NDArray[np.int64]
    face_px: Floats
    samples: tuple[Sample, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def where(self, chosen: NDArray[np.bool_]) -> Items:
        return self.at(np.flatnonzero(chosen))

    def at(self, rows: NDArray[np.int64]) -> Items:
        numbers: list[int] = rows.tolist()
        return Items(
            labels=self.labels[rows],
            probabilities=self.probabilities[rows],
            clusters=self.clusters[rows],
            face_px=self.face_px[rows],
            samples=tuple(self.samples[row] for row in numbers) if self.samples else (),
        )

    def judged(self) -> Items:
        return self.where(~np.isnan(self.probabilities))

    def imputed(self) -> Items:
        filled = np.where(np.isnan(self.probabilities), IMPUTED, self.probabilities)
        return Items(
            labels=self.labels,
            probabilities=filled,
            clusters=self.clusters,
            face_px=self.face_px,
            samples=self.samples,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of a table. `by` is what divides the files (`all`, `dataset`, `method`,
    `compression`, `face_px`), `no_face` what became of the `num_without` files of this row that
    have no probability; `num_real` and `num_fake` are those measured."""

    by: str
    name: str
    level: str
    no_face: str
    num_real: int
    num_fake: int
    num_without: int
    num_clusters: int
    measures: Mapping[str, Estimate | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """What a condition costs: `auc` on the changed files, `change` against the same files as they
    are with its p-value, and how many files lost their probability."""

    condition: str
    num_files: int
    auc: Estimate | None
    change: Estimate | None
    p_value: float | None
    lost: int


def items_of(
    samples: Sequence[Sample], outcomes: Iterable[Outcome], condition: str = AS_IT_IS
) -> Items:
    """Every file of the run once; one that failed, or has no outcome yet, has no probability."""
    found = {outcome.place: outcome for outcome in outcomes if outcome.condition == condition}
    rows = [found.get(sample.place) for sample in samples]
    return Items(
        labels=np.array([sample.label == "fake" for sample in samples], dtype=np.int64),
        probabilities=_floats([row.probability if row else None for row in rows]),
        clusters=cluster_numbers(samples),
        face_px=_floats([row.face_px if row else None for row in rows]),
        samples=tuple(samples),
    )


def cluster_numbers(samples: Sequence[Sample]) -> NDArray[np.int64]:
    """(N,) the connected component of each file over people, recordings and groups."""
    numbers = np.empty(len(samples), dtype=np.int64)
    for number, rows in enumerate(components(samples)):
        numbers[rows] = number
    return numbers


def video_rows(
    items: Items, *, thresholds: Thresholds | None, num: int, seed: int
) -> Iterator[Row]:
    """All rows at video level, without and with the files that got no probability."""
    for by, name, part in _parts(items):
        kinds = [("excluded", part.judged()), ("imputed 0.5", part.imputed())]
        for no_face, chosen in kinds[: 1 if by == "face_px" else 2]:
            if len(chosen):
                without = int(np.isnan(part.probabilities).sum())
                row = _row(by, name, "video", no_face, chosen, thresholds, num, seed)
                yield replace(row, num_without=without)


def frame_rows(
    files: Items,
    frames: Iterable[tuple[str, float]],
    *,
    thresholds: Thresholds | None,
    num: int,
    seed: int,
) -> Iterator[Row]:
    """Rows at frame level: all, and by data set. A frame without a face is no item.

    `frames`: (place, probability) of each; the rest is its file's. DFDC has four million of them,
    so a frame carries numbers and nothing else.
    """
    row_of = {sample.place: row for row, sample in enumerate(files.samples)}
    pairs = [(row_of[place], probability) for place, probability in frames]
    rows = np.array([row for row, _ in pairs], dtype=np.int64)
    items = Items(
        labels=files.labels[rows],
        probabilities=np.array([probability for _, probability in pairs], dtype=np.float64),
        clusters=files.clusters[rows],
        face_px=files.face_px[rows],
        samples=(),
    )
    datasets = _column(files, "dataset")
    if not len(items):
        return
    whole = _row("all", "all", "frame", "excluded", items, thresholds, num, seed)
    yield whole
    names = _names(datasets)
    for name in names:
        part = items.where((datasets == name)[rows])
        if len(names) == 1:  # the same frames: nothing to draw again
            yield replace(whole, by="dataset", name=name)
        elif len(part):
            yield _row("dataset", name, "frame", "excluded", part, thresholds, num, seed)


def losses(clean: Items, changed: Mapping[str, Items], *, num: int, seed: int) -> Iterator[Loss]:
    """Each condition against the same files as they are, where both got a probability."""
    for condition, items in changed.items():
        before, after = ~np.isnan(clean.probabilities), ~np.isnan(items.probabilities)
        both = before & after
        first, second = clean.where(both), items.where(both)
        auc = change = p_value = None
        if len(second) and 0 < second.labels.sum() < len(second):
            arguments = second.labels, second.probabilities, second.clusters
            auc = estimates(*arguments, thresholds=None, num=num, seed=seed)["auc"]
            change, p_value = paired_difference(
                second.labels,
                first.probabilities,
                second.probabilities,
                second.clusters,
                name="auc",
                num=num,
                seed=seed,
            )
        yield Loss(
            condition=condition,
            num_files=len(second),
            auc=auc,
            change=change,
            p_value=p_value,
            lost=int((before & ~after).sum()),
        )


def _row(
    by: str,
    name: str,
    level: str,
    no_face: str,
    items: Items,
    thresholds: Thresholds | None,
    num: int,
    seed: int,
) -> Row:
    return Row(
        by=by,
        name=name,
        level=level,
        no_face=no_face,
        num_real=int((items.labels == 0).sum()),
        num_fake=int((items.labels == 1).sum()),
        num_without=0,
        num_clusters=len(np.unique(items.clusters)),
        measures=estimates(
            items.labels,
            items.probabilities,
            items.clusters,
            thresholds=thresholds,
            num=num,
            seed=seed,
        ),
    )


def _parts(items: Items) -> Iterator[tuple[str, str, Items]]:
    """(by, name, files) of every row, in a fixed order."""
    yield "all", "all", items
    datasets = _column(items, "dataset")
    compressions = _column(items, "compression")
    methods = _column(items, "method")
    fake = items.labels == 1
    for dataset in _names(datasets):
        here = datasets == dataset
        yield "dataset", dataset, items.where(here)
        for method in _names(methods[here & fake]):
            fakes = here & fake & (methods == method)
            alike = np.isin(compressions, np.unique(compressions[fakes]))
            yield "method", f"{dataset}/{method}", items.where(fakes | (here & ~fake & alike))
        for compression in _names(compressions[here]):
            chosen = here & (compressions == compression)
            yield "compression", f"{dataset}/{compression}", items.where(chosen)
    edges = (0, *FACE_SIZES, np.inf)
    for low, high in pairwise(edges):
        name = f"{low} px and more" if np.isinf(high) else f"{low} to {high} px"
        chosen = (items.face_px >= low) & (items.face_px < high)
        if chosen.any():
            yield "face_px", name, items.where(chosen)


def _column(items: Items, name: str) -> NDArray[np.str_]:
    return np.array([str(getattr(sample, name)) for sample in items.samples], dtype=np.str_)


def _names(column: NDArray[np.str_]) -> list[str]:
    names: list[str] = np.unique(column).tolist()
    return [name for name in names if name]


def _floats(values: Sequence[float | None]) -> Floats:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
