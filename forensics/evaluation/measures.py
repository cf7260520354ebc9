"""All numbers of one table from one sorting, for many weightings of the same items at once.

A bootstrap asks the same questions a thousand times of the same items with other weights. Sorting
once and adding up weights answers them for a data set of the size of DFDC in seconds.

Legend: N items, labels (N,) 0 real or 1 fake, probabilities (N,) in 0..1, D weightings: weights
(D, N) of 0 or more. Each function returns (D,) float64; NaN where a weighting has too few classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from forensics.structures import Thresholds

Floats = NDArray[np.float64]

# Kaggle clips predictions so before the logarithm; the DFDC competition was scored like that.
KAGGLE_CLIP = 1e-15
NUM_BINS = 15  # of the calibration error, as in forensics.metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """Cumulated weights of `reals` and `fakes` (D, K + 1) at or above each distinct probability,
    from the highest down, after a leading 0: what ranking measures are made of.

    `thresholds` (K,): those distinct probabilities.
    """

    reals: Floats
    fakes: Floats
    thresholds: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sums:
    """Weights added up along the items from the most suspicious down, each (D, N + 1): of reals, of
    fakes, and of weight x probability. `rising` (N,) are the sorted probabilities negated."""

    reals: Floats
    fakes: Floats
    expected: Floats
    rising: Floats

    def down_to(self, probability: float) -> int:
        """How many items are at least as suspicious."""
        return int(np.searchsorted(self.rising, -probability, side="right"))

    def above(self, probability: float) -> int:
        """How many items are more suspicious."""
        return int(np.searchsorted(self.rising, -probability, side="left"))

    def curve(self) -> Curve:
        """Ties are one step."""
        last = len(self.rising) - 1
        ends = np.append(np.flatnonzero(np.diff(self.rising)), last)
        steps = np.append(0, ends + 1)
        return Curve(
            reals=self.reals[:, steps], fakes=self.fakes[:, steps], thresholds=-self.rising[ends]
        )


def curve(labels: NDArray[np.int64], probabilities: Floats, weights: Floats) -> Curve:
    """Sort, and add up."""
    return _sums(*_sorted(labels, probabilities, weights)).curve()


def _sorted(
    labels: NDArray[np.int64], probabilities: Floats, weights: Floats
) -> tuple[NDArray[np.int64], Floats, Floats]:
    """The items, most suspicious first. Sorted ones are returned as they are: the bootstrap sorts
    millions of frames once, not for each draw."""
    if np.all(probabilities[:-1] >= probabilities[1:]):
        return labels, probabilities, weights
    order = np.argsort(-probabilities, kind="stable")
    return labels[order], probabilities[order], weights[:, order]


def _sums(labels: NDArray[np.int64], probabilities: Floats, weights: Floats) -> _Sums:
    def cumulated(part: Floats) -> Floats:
        sums = np.zeros((len(part), part.shape[1] + 1))
        np.cumsum(part, axis=1, out=sums[:, 1:])
        return sums

    fakes = cumulated(weights * labels)
    return _Sums(
        reals=cumulated(weights) - fakes,
        fakes=fakes,
        expected=cumulated(weights * probabilities),
        rising=-probabilities,
    )


def roc_auc(of: Curve) -> Floats:
    """Area under the ROC curve drawn with straight lines: ties count half."""
    area = np.sum(np.diff(of.reals) * (of.fakes[:, 1:] + of.fakes[:, :-1]) / 2, axis=1)
    return _divided(area, of.reals[:, -1] * of.fakes[:, -1])


def average_precision(of: Curve) -> Floats:
    """Sum over thresholds of (recall gained) x precision, without interpolation."""
    hits = of.fakes[:, 1:]
    precision = _divided(hits, hits + of.reals[:, 1:], where_zero=0.0)
    gained = np.sum(np.diff(of.fakes) * precision, axis=1)
    return np.where(of.reals[:, -1] > 0, _divided(gained, of.fakes[:, -1]), np.nan)


def equal_error_rate(of: Curve) -> Floats:
    """Where the ROC curve, drawn with straight lines, has as many false alarms as misses."""
    alarms = _divided(of.reals, of.reals[:, -1:])
    gap = alarms - 1 + _divided(of.fakes, of.fakes[:, -1:])  # rises from -1 to 1
    right = np.argmax(gap >= 0, axis=1)
    rows, left = np.arange(len(right)), np.maximum(right - 1, 0)
    low, high = gap[rows, left], gap[rows, right]
    part = _divided(-low, high - low, where_zero=0.0)
    crossing = alarms[rows, left] + part * (alarms[rows, right] - alarms[rows, left])
    return np.where(of.reals[:, -1] * of.fakes[:, -1] > 0, crossing, np.nan)


def hit_rate_at(of: Curve, most_false_alarms: float) -> Floats:
    """The largest share of fakes found by a threshold with at most this share of false alarms."""
    # A grain against 0.05 x 20 = 1.0000000000000002: the share itself is still allowed.
    allowed = of.reals <= most_false_alarms * of.reals[:, -1:] * (1 + 1e-12)
    rates = _divided(of.fakes, of.fakes[:, -1:])
    best = np.max(np.where(allowed, rates, 0.0), axis=1)
    return np.where(of.reals[:, -1] * of.fakes[:, -1] > 0, best, np.nan)


def measure(
    labels: NDArray[np.int64],
    probabilities: Floats,
    weights: Floats,
    *,
    thresholds: Thresholds | None = None,
) -> dict[str, Floats]:
    """Every measure by name, (D,) each. Ranking measures need both classes, the others one item.

    `thresholds` are the detector's own; without them the measures at them are left out. Raises
    ValueError for shapes that do not fit, labels beside 0 and 1, probabilities outside 0..1.
    """
    _check(labels, probabilities, weights)
    labels, probabilities, weights = _sorted(labels, probabilities, weights)
    sums = _sums(labels, probabilities, weights)
    of, fakes, reals = sums.curve(), sums.fakes[:, -1], sums.reals[:, -1]
    measures = {
        "auc": roc_auc(of),
        "ap": average_precision(of),
        "eer": equal_error_rate(of),
        "tpr_at_fpr_1": hit_rate_at(of, 0.01),
        "tpr_at_fpr_5": hit_rate_at(of, 0.05),
        "log_loss": _divided(weights @ _surprise(labels, probabilities), fakes + reals),
        "brier": _divided(weights @ (probabilities - labels) ** 2, fakes + reals),
        "ece": _calibration_error(sums),
        **_decided(sums, 0.5, "at_half"),
    }
    if thresholds is not None:
        flagged, spared = sums.down_to(thresholds.fake), sums.above(thresholds.real)
        measures |= _decided(sums, thresholds.fake, "at_fake_threshold")
        measures["fpr_at_fake_threshold"] = _divided(sums.reals[:, flagged], reals)
        measures["fnr_at_fake_threshold"] = _divided(fakes - sums.fakes[:, flagged], fakes)
        # The worse miss: a fake that the detector calls likely real.
        measures["fnr_at_real_threshold"] = _divided(fakes - sums.fakes[:, spared], fakes)
        # Equal thresholds leave nothing between them, not less than that.
        between = slice(flagged, max(flagged, spared) + 1)
        held = (sums.reals + sums.fakes)[:, between]
        uncertain = held[:, -1] - held[:, 0]
        measures["uncertain"] = _divided(uncertain, fakes + reals)
        # Of what the detector commits itself to: beside accuracy at 0.5, what abstaining is worth.
        after = max(flagged, spared)
        right = sums.fakes[:, flagged] + reals - sums.reals[:, after]
        measures["accuracy_where_certain"] = _divided(right, fakes + reals - uncertain)
    return measures


def _decided(sums: _Sums, threshold: float, where: str) -> dict[str, Floats]:
    """Accuracy, balanced accuracy and F1 (of fakes) of calling fake what reaches `threshold`."""
    count = sums.down_to(threshold)
    hits, alarms = sums.fakes[:, count], sums.reals[:, count]
    fakes, reals = sums.fakes[:, -1], sums.reals[:, -1]
    correct = hits + reals - alarms
    balanced = (_divided(hits, fakes) + _divided(reals - alarms, reals)) / 2
    return {
        f"accuracy_{where}": _divided(correct, fakes + reals),
        f"balanced_accuracy_{where}": balanced,
        f"f1_{where}": _divided(2 * hits, hits + alarms + fakes, where_zero=0.0),
    }


def _surprise(labels: NDArray[np.int64], probabilities: Floats) -> Floats:
    """-log(probability given to the truth) of each item."""
    p = np.minimum(np.maximum(probabilities, KAGGLE_CLIP), 1 - KAGGLE_CLIP)
    return -np.where(labels == 1, np.log(p), np.log1p(-p))


def _calibration_error(sums: _Sums) -> Floats:
    """Bins as in forensics.metrics.expected_calibration_error: open below, closed above."""
    edges = np.linspace(0.0, 1.0, NUM_BINS + 1)[1:-1]
    inner = [sums.above(edge) for edge in edges.tolist()]
    places = [len(sums.rising), *inner, 0]
    gaps = np.diff((sums.fakes - sums.expected)[:, places], axis=1)
    return _divided(np.abs(gaps).sum(axis=1), sums.fakes[:, -1] + sums.reals[:, -1])


def _divided(above: Floats, below: Floats, *, where_zero: float = np.nan) -> Floats:
    quotient = np.full(np.broadcast_shapes(above.shape, below.shape), where_zero)
    return np.divide(above, below, out=quotient, where=below > 0)


def _check(labels: NDArray[np.int64], probabilities: Floats, weights: Floats) -> None:
    if labels.ndim != 1 or len(labels) == 0 or labels.shape != probabilities.shape:
        raise ValueError(f"expected (N,) items, not {labels.shape} and {probabilities.shape}")
    if weights.ndim != 2 or weights.shape[1] != len(labels) or not np.all(weights >= 0):
        raise ValueError(f"expected weights (D, {len(labels)}) of 0 or more, not {weights.shape}")
    if not np.all((labels == 0) | (labels == 1)):
        raise ValueError("labels must be 0 (real) or 1 (fake)")
    if not np.all((probabilities >= 0) & (probabilities <= 1)):
        raise ValueError("probabilities must lie in 0..1")
