"""From scores to probabilities (Platt scaling, temperature, isotonic regression) and from
probabilities to thresholds; pure.

Legend: N scored tracks or videos; label 1 is fake, 0 is real.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, cast

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Isotonic:
    """probability of fake = the straight line between knots (logit, probability), level beyond the
    first and the last. Logits ascend; probabilities never fall, and lie in 0..1 without the ends:
    no finite number of videos proves certainty."""

    logits: tuple[float, ...]
    probabilities: tuple[float, ...]

    def __post_init__(self) -> None:
        x, p = np.asarray(self.logits), np.asarray(self.probabilities)
        if not (len(x) == len(p) > 0 and np.isfinite(x).all() and (np.diff(x) > 0).all()):
            raise ValueError("knots need as many probabilities as finite, ascending logits")
        if not ((p > 0).all() and (p < 1).all() and (np.diff(p) >= 0).all()):
            raise ValueError("probabilities of knots lie between 0 and 1 and never fall")


Calibration = Platt | Isotonic


def apply(calibration: Calibration, logits: ArrayLike) -> NDArray[np.float64]:
    """Uncalibrated logits of any shape -> calibrated probabilities of fake, float64 in 0..1."""
    x = np.asarray(logits, dtype=np.float64)
    if isinstance(calibration, Isotonic):
        return np.interp(x, calibration.logits, calibration.probabilities)
    return _sigmoid(calibration.scale * x + calibration.offset)


def fit_temperature(
    scores: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None
) -> Platt:
    """Fit probability = sigmoid(score / temperature): the scale is 1 / temperature, the offset 0.

    Input, targets and errors are those of `fit_platt`. It leaves probability 0.5 where the network
    put it: one number to fit, for when there are few videos.

    Source: Guo et al., "On calibration of modern neural networks", 2017.
    """
    from scipy.optimize import brentq  # pyright: ignore  (here: a scan never needs it)

    x, y = _checked(scores, labels)
    w = _weights(x, weights)
    target = _targets(y, w)

    def slope(scale: float) -> float:  # of the cross-entropy, which is convex in the scale
        return float(np.sum(w * x * (_sigmoid(scale * x) - target)))

    if slope(0.0) >= 0:
        raise ValueError("fakes do not score above reals on these data: nothing to calibrate")
    high = 1.0 / max(1e-12, float(np.abs(x).max()))
    while slope(high) < 0:  # ends: the targets are soft
        high *= 2
    root = cast("float", brentq(slope, 0.0, high, xtol=1e-14))
    return Platt(scale=float(root), offset=0.0)


def fit_isotonic(
    scores: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None
) -> Isotonic:
    """Fit the map that never falls and lies nearest to the labels in the mean of squares.

    Input and errors are those of `fit_platt`. Each level of the map is kept within Platt's targets,
    away from 0 and 1. It bends to any shape, and to chance where videos are few.

    Source: Zadrozny and Elkan, "Transforming classifier scores into accurate multiclass probability
    estimates", 2002.
    """
    from scipy.optimize import isotonic_regression  # pyright: ignore

    x, y = _checked(scores, labels)
    w = _weights(x, weights)
    target = _targets(y, w)
    knots, inverse = np.unique(x, return_inverse=True)
    total = np.bincount(inverse, weights=w)
    mean = np.bincount(inverse, weights=w * y) / total
    fitted: NDArray[np.float64] = cast("Any", isotonic_regression(mean, weights=total)).x
    levels = np.minimum(np.maximum(fitted, target.min()), target.max())
    if levels[-1] <= levels[0]:
        raise ValueError("fakes do not score above reals on these data: nothing to calibrate")
    # The ends of each level carry it; what lies between is on the same line.
    bends = np.diff(levels) > 0
    kept = np.append(True, bends) | np.append(bends, True)
    return Isotonic(logits=tuple(knots[kept].tolist()), probabilities=tuple(levels[kept].tolist()))


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
    w = _weights(x, weights)
    target = _targets(y, w)
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


def _weights(x: NDArray[np.float64], weights: ArrayLike | None) -> NDArray[np.float64]:
    w = np.ones_like(x) if weights is None else np.asarray(weights, dtype=np.float64)
    if w.shape != x.shape or not np.all(np.isfinite(w) & (w > 0)):
        raise ValueError("weights must be finite, above 0 and one per score")
    return w


def _targets(y: NDArray[np.int64], w: NDArray[np.float64]) -> NDArray[np.float64]:
    """Platt's, instead of 0 and 1."""
    fakes, reals = float(w[y == 1].sum()), float(w[y == 0].sum())
    return np.where(y == 1, (fakes + 1) / (fakes + 2), 1 / (reals + 2))


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
