"""How good scores are, in numpy only. Label 1 is fake, a higher score is more suspicious.

Legend: N scored items, labels (N,) 0 or 1, scores (N,) finite, probabilities (N,) in 0..1.
Every function raises ValueError for empty, differing or not finite input and labels beside 0 and 1.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Metric = Callable[[NDArray[np.int64], Floats], float]


def roc_auc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Chance that a fake scores above a real, ties counting half: the area under the ROC curve.

    Raises ValueError with one class only.
    """
    y, x = _both_classes(labels, scores)
    _, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]  # from 1, ties share their mean
    fakes = int(y.sum())
    above = ranks[y == 1].sum() - fakes * (fakes + 1) / 2
    return float(above / (fakes * (len(y) - fakes)))


def average_precision(labels: ArrayLike, scores: ArrayLike) -> float:
    """Sum over thresholds of (recall gained) x precision, without interpolation.

    Raises ValueError with one class only.
    """
    false_alarms, hits = _counts_above(*_both_classes(labels, scores))
    gained = np.diff(hits) / hits[-1]
    return float(np.sum(gained * hits[1:] / (hits[1:] + false_alarms[1:])))


def equal_error_rate(labels: ArrayLike, scores: ArrayLike) -> float:
    """Where the ROC curve, drawn with straight lines, has as many false alarms as misses.

    Raises ValueError with one class only.
    """
    false_alarms, hits = _counts_above(*_both_classes(labels, scores))
    alarm_rate, miss_rate = false_alarms / false_alarms[-1], 1 - hits / hits[-1]
    gap = alarm_rate - miss_rate  # rises from -1 to 1
    right = int(np.argmax(gap >= 0))
    left = right - 1
    part = -gap[left] / (gap[right] - gap[left])
    return float(alarm_rate[left] + part * (alarm_rate[right] - alarm_rate[left]))


def log_loss(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """Mean of -log(probability given to the truth), natural logarithm.

    Probabilities are kept one float64 epsilon away from 0 and 1, as scikit-learn does.
    """
    y, p = _probabilities(labels, probabilities)
    p = np.minimum(np.maximum(p, sys.float_info.epsilon), 1 - sys.float_info.epsilon)
    truth: Floats = np.where(y == 1, np.log(p), np.log1p(-p))
    return -float(truth.mean())


def brier(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """Mean squared distance between probability and label (Brier, 1950)."""
    y, p = _probabilities(labels, probabilities)
    return float(np.mean((p - y) ** 2))


def expected_calibration_error(
    labels: ArrayLike,
    probabilities: ArrayLike,
    *,
    num_bins: int = 15,
    weights: ArrayLike | None = None,
) -> float:
    """Mean over items of |share of fakes - mean probability| of the item's bin.

    `weights` (N,), above 0, let items count more or less: those a calibration was fitted with.

    Equal-width bins over 0..1, each open below and closed above (the first holds 0 too); 15 as in
    Guo et al., "On calibration of modern neural networks", 2017.
    """
    if num_bins < 1:
        raise ValueError("num_bins must be at least 1")
    y, p = _probabilities(labels, probabilities)
    edges = np.linspace(0.0, 1.0, num_bins + 1)
    bins = np.searchsorted(edges[1:-1], p)
    w = np.ones_like(p) if weights is None else np.asarray(weights, dtype=np.float64)
    if w.shape != p.shape or not np.all(np.isfinite(w) & (w > 0)):
        raise ValueError("weights must be finite, above 0 and one per item")
    gaps = np.bincount(bins, weights=w * (y - p), minlength=num_bins)
    return float(np.abs(gaps).sum() / w.sum())


def bootstrap_interval(
    metric: Metric,
    labels: ArrayLike,
    scores: ArrayLike,
    groups: Sequence[Hashable],
    *,
    num: int = 2000,
    seed: int,
    level: float = 0.95,
) -> tuple[float, float]:
    """Percentile bootstrap interval of `metric(labels, scores)`, drawing whole groups.

    Items of one group (one identity, one source video) are not independent; drawn one by one they
    would make the interval too narrow. `groups` (N,) names each item's group. A draw that loses
    one of the classes is drawn again. Raises ValueError with fewer than two groups.

    Source: Efron and Tibshirani, "An introduction to the bootstrap", 1993; Field and Welsh,
    "Bootstrapping clustered data", 2007.
    """
    y, x = _checked(labels, scores)
    if len(groups) != len(y):
        raise ValueError(f"expected one group per item: {len(groups)} groups, {len(y)} items")
    if num < 1 or not 0 < level < 1:
        raise ValueError("num must be at least 1 and level lie between 0 and 1")
    members: dict[Hashable, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    if len(members) < 2:
        raise ValueError("an interval needs at least two groups")
    clusters: list[NDArray[np.int64]] = [np.array(rows) for rows in members.values()]
    classes = len(np.unique(y))
    rng = np.random.default_rng(seed)
    values: list[float] = []
    while len(values) < num:
        drawn = rng.integers(len(clusters), size=len(clusters))
        rows = np.concatenate([clusters[int(index)] for index in drawn])
        if len(np.unique(y[rows])) == classes:
            values.append(metric(y[rows], x[rows]))
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _counts_above(y: NDArray[np.int64], x: Floats) -> tuple[Floats, Floats]:
    """Reals and fakes at or above each distinct score, from the highest down, after a leading 0."""
    order = np.argsort(-x, kind="stable")
    last_of_tie = np.append(np.flatnonzero(np.diff(x[order])), len(x) - 1)
    hits = np.cumsum(y[order])[last_of_tie]
    false_alarms = last_of_tie + 1 - hits
    return np.append(0.0, false_alarms), np.append(0.0, hits)


def _checked(labels: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.int64], Floats]:
    y, x = np.asarray(labels), np.asarray(scores, dtype=np.float64)
    if y.ndim != 1 or y.shape != x.shape or len(y) == 0:
        raise ValueError(f"expected (N,) labels and scores, N above 0, not {y.shape}, {x.shape}")
    if not np.all((y == 0) | (y == 1)):
        raise ValueError("labels must be 0 (real) or 1 (fake)")
    if not np.all(np.isfinite(x)):
        raise ValueError("scores hold values that are not finite")
    return y.astype(np.int64), x


def _both_classes(labels: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.int64], Floats]:
    y, x = _checked(labels, scores)
    if y.min() == y.max():
        only = "fakes" if y[0] else "reals"
        raise ValueError(f"only {only} among the labels: this metric compares both classes")
    return y, x


def _probabilities(labels: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.int64], Floats]:
    y, p = _checked(labels, scores)
    if p.min() < 0 or p.max() > 1:
        raise ValueError("probabilities must lie in 0..1; apply the calibration first")
    return y, p
