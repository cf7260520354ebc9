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


def curve(labels: NDArray[np.int64], probabilities: Floats, weights: Floats) -> Curve:
    """Sort once; ties are one step."""
    order = np.argsort(-probabilities, kind="stable")
    ranked, fake = probabilities[order], labels[order]
    ends = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
    sorted_weights = weights[:, order]

    def cumulated(part: Floats) -> Floats:
        sums = np.cumsum(part, axis=1)[:, ends]
        return np.concatenate([np.zeros((len(sums), 1)), sums], axis=1)

    return Curve(
        reals=cumulated(sorted_weights * (1 - fake)),
        fakes=cumulated(sorted_weights * fake),
        thresholds=ranked[ends],
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
    of, total = curve(labels, probabilities, weights), weights.sum(axis=1)
    measures = {
        "auc": roc_auc(of),
        "ap": average_precision(of),
        "eer": equal_error_rate(of),
        "tpr_at_fpr_1": hit_rate_at(of, 0.01),
        "tpr_at_fpr_5": hit_rate_at(of, 0.05),
        "log_loss": _log_loss(labels, probabilities, weights, total),
        "brier": _divided(weights @ (probabilities - labels) ** 2, total),
        "ece": _calibration_error(labels, probabilities, weights, total),
        **_decided(labels, probabilities >= 0.5, weights, "at_half"),
    }
    if thresholds is not None:
        flagged, cleared = probabilities >= thresholds.fake, probabilities <= thresholds.real
        fakes = weights @ labels
        measures |= _decided(labels, flagged, weights, "at_fake_threshold")
        measures["fpr_at_fake_threshold"] = _divided(
            weights @ (flagged & (labels == 0)), total - fakes
        )
        measures["fnr_at_fake_threshold"] = _divided(weights @ (~flagged & (labels == 1)), fakes)
        # The worse miss: a fake that the detector calls likely real.
        measures["fnr_at_real_threshold"] = _divided(weights @ (cleared & (labels == 1)), fakes)
        measures["uncertain"] = _divided(weights @ (~flagged & ~cleared), total)
    return measures


def _decided(
    labels: NDArray[np.int64], flagged: NDArray[np.bool_], weights: Floats, where: str
) -> dict[str, Floats]:
    """Accuracy, balanced accuracy and F1 (of fakes) of yes-or-no answers."""
    fake, real = weights * labels, weights * (1 - labels)
    hits, alarms = fake @ flagged, real @ flagged
    fakes, reals = fake.sum(axis=1), real.sum(axis=1)
    correct = hits + reals - alarms
    balanced = (_divided(hits, fakes) + _divided(reals - alarms, reals)) / 2
    return {
        f"accuracy_{where}": _divided(correct, fakes + reals),
        f"balanced_accuracy_{where}": balanced,
        f"f1_{where}": _divided(2 * hits, hits + alarms + fakes, where_zero=0.0),
    }


def _log_loss(
    labels: NDArray[np.int64], probabilities: Floats, weights: Floats, total: Floats
) -> Floats:
    p = np.minimum(np.maximum(probabilities, KAGGLE_CLIP), 1 - KAGGLE_CLIP)
    truth = np.where(labels == 1, np.log(p), np.log1p(-p))
    return _divided(-(weights @ truth), total)


def _calibration_error(
    labels: NDArray[np.int64], probabilities: Floats, weights: Floats, total: Floats
) -> Floats:
    """Bins as in forensics.metrics.expected_calibration_error."""
    edges = np.linspace(0.0, 1.0, NUM_BINS + 1)
    member = np.searchsorted(edges[1:-1], probabilities)[:, None] == np.arange(NUM_BINS)
    gaps = (weights * (labels - probabilities)) @ member.astype(np.float64)  # (D, bins)
    return _divided(np.abs(gaps).sum(axis=1), total)


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
