"""From scores to probabilities (Platt scaling) and from probabilities to thresholds; pure.

Legend: N scored tracks or videos; label 1 is fake, 0 is real.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from forensics.structures import Thresholds

_MAX_STEPS = 100  # Newton on two parameters of a convex loss: converges in about ten
_RIDGE = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class Platt:
    """probability of fake = sigmoid(scale x logit + offset). A more suspicious logit stays more
    suspicious: `scale` is above 0."""

    scale: float
    offset: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.scale) and math.isfinite(self.offset) and self.scale > 0):
            raise ValueError("a calibration needs a finite scale above 0 and a finite offset")


def apply(platt: Platt, logits: ArrayLike) -> NDArray[np.float64]:
    """Uncalibrated logits of any shape -> calibrated probabilities of fake, float64 in 0..1."""
    return _sigmoid(platt.scale * np.asarray(logits, dtype=np.float64) + platt.offset)


def fit_platt(scores: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None) -> Platt:
    """Fit probability = sigmoid(scale x score + offset) by regularised maximum likelihood.

    Scores (N,) are uncalibrated logits, labels (N,) 0 or 1, weights (N,) above 0 (default 1).
    The targets are Platt's: (P + 1) / (P + 2) for the P fakes and 1 / (R + 2) for the R reals
    instead of 1 and 0, so that a separable set does not end in infinite certainty.

    Raises ValueError with one class only, with equal scores, with values that are not finite, and
    where fakes score below reals: such a detector is wrong, not uncalibrated.

    Source: Platt, "Probabilistic outputs for support vector machines", 1999; solved by Newton's
    method as in Lin, Lin and Weng, "A note on Platt's probabilistic outputs", 2007.
    """
    x, y = _checked(scores, labels)
    w = np.ones_like(x) if weights is None else np.asarray(weights, dtype=np.float64)
    if w.shape != x.shape or not np.all(np.isfinite(w) & (w > 0)):
        raise ValueError("weights must be finite, above 0 and one per score")
    fakes, reals = float(w[y == 1].sum()), float(w[y == 0].sum())
    target = np.where(y == 1, (fakes + 1) / (fakes + 2), 1 / (reals + 2))
    # Scores in units of their spread: Newton is then as well conditioned as the data allow.
    centre, spread = float(x.mean()), float(x.std())
    if spread <= 1e-12 * max(1.0, abs(centre)):
        raise ValueError("all scores are equal: there is nothing to calibrate")
    slope, shift = _newton((x - centre) / spread, target, w)
    if slope <= 0:
        raise ValueError("fakes do not score above reals on these data: nothing to calibrate")
    return Platt(scale=slope / spread, offset=shift - slope * centre / spread)


def class_weights(labels: ArrayLike) -> NDArray[np.float64]:
    """(N,) weights that add up to N and under which both classes count the same.

    The share of fakes in a data set is nobody's base rate. `labels` (N,) are 0 and 1, both occur.
    """
    y = np.asarray(labels)
    counts = np.bincount(y, minlength=2).astype(np.float64)
    return (len(y) / 2 / counts)[y]


def choose_thresholds(
    probabilities: ArrayLike,
    labels: ArrayLike,
    *,
    max_false_alarm: float = 0.05,
    max_missed: float = 0.05,
) -> Thresholds:
    """The widest verdicts whose errors stay within both limits on these data.

    `fake` is the smallest threshold at which at most `max_false_alarm` of the reals lie at or above
    it; `real` the largest at which at most `max_missed` of the fakes lie at or below it. Each
    stands midway to the next observed probability. `fake` never falls below 0.5 nor does `real`
    rise above: a label must not contradict its probability (both limits hold all the more).

    Raises ValueError with one class only or probabilities outside 0..1, and where too many
    probabilities are exactly 0 or 1 for any threshold to hold.
    """
    p, y = _checked(probabilities, labels)
    if p.min() < 0 or p.max() > 1:
        raise ValueError("probabilities must lie in 0..1")
    fake = _smallest_above(p[y == 0], p, max_false_alarm, 1.0)
    real = -_smallest_above(-p[y == 1], -p, max_missed, 0.0)
    return Thresholds(real=min(real, 0.5), fake=max(fake, 0.5))


def _smallest_above(
    limited: NDArray[np.float64], observed: NDArray[np.float64], share: float, end: float
) -> float:
    """A threshold that at most `share` of `limited` reach, midway to the next value `observed`."""
    if not 0.0 <= share < 1.0:
        raise ValueError(f"a share of errors lies in 0..1, not {share}")
    # The highest value that must stay below: floor, with a grain against 0.05 x 20 = 1.0000000002.
    below = np.sort(limited)[::-1][math.floor(share * len(limited) + 1e-9)]
    if below >= end:
        raise ValueError("probabilities saturate: no threshold keeps the errors within the limit")
    higher = observed[observed > below]
    upper = float(higher.min()) if len(higher) else end
    return max(float(below + upper) / 2, float(np.nextafter(below, end)))


def _newton(
    z: NDArray[np.float64], target: NDArray[np.float64], w: NDArray[np.float64]
) -> tuple[float, float]:
    """Minimise the weighted cross-entropy of sigmoid(slope x z + shift) against soft targets."""

    def loss(slope: float, shift: float) -> float:
        f = slope * z + shift
        return float(np.sum(w * (np.logaddexp(0.0, f) - target * f)))

    slope, shift = 0.0, 0.0
    for _ in range(_MAX_STEPS):
        p = _sigmoid(slope * z + shift)
        error, curve = w * (p - target), w * p * (1 - p)
        g0, g1 = float((error * z).sum()), float(error.sum())
        # Second derivatives; the ridge keeps them invertible where every p is 0 or 1.
        h00, h01 = float((curve * z * z).sum()) + _RIDGE, float((curve * z).sum())
        h11 = float(curve.sum()) + _RIDGE
        determinant = h00 * h11 - h01 * h01
        step0 = (h11 * g0 - h01 * g1) / determinant
        step1 = (h00 * g1 - h01 * g0) / determinant
        if max(abs(step0), abs(step1)) < 1e-10:
            break
        size, before = 1.0, loss(slope, shift)
        # Halve the step until the loss falls: far from the minimum Newton overshoots.
        while size > 1e-10 and loss(slope - size * step0, shift - size * step1) > before:
            size /= 2
        slope, shift = slope - size * step0, shift - size * step1
    return slope, shift


def _sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.exp(-np.logaddexp(0.0, -x))  # overflows nowhere


def _checked(scores: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    x, y = np.asarray(scores, dtype=np.float64), np.asarray(labels)
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(f"expected (N,) scores and labels, not {x.shape} and {y.shape}")
    if not np.all(np.isfinite(x)):
        raise ValueError("scores hold values that are not finite")
    if not np.array_equal(np.unique(y), [0, 1]):
        raise ValueError("labels must be 0 and 1, and both must occur")
    return x, y.astype(np.int64)
