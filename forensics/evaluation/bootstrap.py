"""How far chance reaches: intervals and paired comparisons by drawing whole clusters of files.

Files that share a person or a recording are not independent: a cluster is a connected component
of such files (`forensics.datasets.splits.components`), drawn whole, or the intervals would come
out too narrow.

Legend: N items, D draws, weights (D, N): how often each item was drawn.

Source: Efron and Tibshirani, "An introduction to the bootstrap", 1993; Field and Welsh,
"Bootstrapping clustered data", 2007.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from forensics.evaluation.measures import Floats, measure
from forensics.structures import Thresholds

# Weights of one chunk of draws: 16 MB, and some of its size again for sums.
_CHUNK_CELLS = 2_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A measure and its 95% interval; `low` and `high` are None where there is no interval."""

    value: float
    low: float | None
    high: float | None


def draws(
    clusters: NDArray[np.int64], labels: NDArray[np.int64], *, num: int, seed: int
) -> Iterator[Floats]:
    """Chunks of weights (D, N); `clusters` (N,) numbers each item's cluster from 0.

    A draw that loses one of the classes is drawn again.
    """
    rng = np.random.default_rng(seed)
    count = int(clusters.max()) + 1
    has = [np.bincount(clusters, weights=labels == label, minlength=count) > 0 for label in (0, 1)]
    wanted = [holders for holders in has if holders.any()]
    per_chunk = max(1, _CHUNK_CELLS // len(clusters))
    done = 0
    while done < num:
        chunk: list[NDArray[np.int64]] = []
        while len(chunk) < min(per_chunk, num - done):
            drawn = np.bincount(rng.integers(count, size=count), minlength=count)
            if all((drawn[holders] > 0).any() for holders in wanted):
                chunk.append(drawn)
        done += len(chunk)
        yield np.stack(chunk)[:, clusters].astype(np.float64)


def estimates(
    labels: NDArray[np.int64],
    probabilities: Floats,
    clusters: NDArray[np.int64],
    *,
    thresholds: Thresholds | None,
    num: int,
    seed: int,
) -> dict[str, Estimate | None]:
    """Every measure of these items with its percentile interval over clusters.

    None for a measure that these items do not have (ranking with one class). Fewer than two
    clusters, or `num` of 0, give no intervals.
    """
    _, clusters = np.unique(clusters, return_inverse=True)
    # Sorted before, each chunk's own sorting costs next to nothing: millions of frames, a
    # thousand draws.
    order = np.argsort(-probabilities, kind="stable")
    labels, probabilities, clusters = labels[order], probabilities[order], clusters[order]
    whole = measure(labels, probabilities, np.ones((1, len(labels))), thresholds=thresholds)
    parts: dict[str, list[Floats]] = {name: [] for name in whole}
    if num and clusters.max() > 0:
        for weights in draws(clusters, labels, num=num, seed=seed):
            drawn = measure(labels, probabilities, weights, thresholds=thresholds)
            for name, values in drawn.items():
                parts[name].append(values)
    return {name: _estimate(float(whole[name][0]), parts[name]) for name in whole}


def paired_difference(
    labels: NDArray[np.int64],
    first: Floats,
    second: Floats,
    clusters: NDArray[np.int64],
    *,
    name: str,
    num: int,
    seed: int,
) -> tuple[Estimate, float | None]:
    """Measure `name` of `second` minus that of `first` on the same items, and its p-value.

    Both are measured on the same draws. The p-value is two-sided: twice the smaller share of draws
    on either side of 0, counting one more (Davison and Hinkley, "Bootstrap methods and their
    application", 1997), at most 1; None where there are fewer than two clusters, or `num` is 0.
    """
    _, clusters = np.unique(clusters, return_inverse=True)
    ones = np.ones((1, len(labels)))
    value = float((measure(labels, second, ones)[name] - measure(labels, first, ones)[name])[0])
    if clusters.max() == 0 or num == 0:
        return Estimate(value=value, low=None, high=None), None
    parts = [
        measure(labels, second, weights)[name] - measure(labels, first, weights)[name]
        for weights in draws(clusters, labels, num=num, seed=seed)
    ]
    drawn = np.concatenate(parts)
    smaller = min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
    estimate = _estimate(value, parts)
    assert estimate is not None
    return estimate, min(1.0, 2 * (smaller + 1) / (num + 1))


def _estimate(value: float, parts: list[Floats]) -> Estimate | None:
    if np.isnan(value):
        return None
    drawn = np.concatenate(parts) if parts else np.empty(0)
    drawn = drawn[~np.isnan(drawn)]  # of a draw in which every file is uncertain, say
    if not len(drawn):
        return Estimate(value=value, low=None, high=None)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Estimate(value=value, low=float(low), high=float(high))
