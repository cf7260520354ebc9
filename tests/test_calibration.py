"""forensics.calibration: Platt scaling against scikit-learn, thresholds by counting."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from forensics.calibration import (
    Isotonic,
    Platt,
    apply,
    choose_thresholds,
    class_weights,
    fit_isotonic,
    fit_platt,
    fit_temperature,
)

Fit = Callable[..., "Isotonic | Platt"]


def drawn(seed: int, count: int = 300) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    return 3.0 * rng.normal(size=count) + 4.0 * labels - 7.0, labels


def reference(
    scores: NDArray[np.float64], labels: NDArray[np.int64], weights: NDArray[np.float64]
) -> tuple[float, float]:
    """Logistic regression on Platt's soft targets: each item once as fake, once as real."""
    fakes, reals = weights[labels == 1].sum(), weights[labels == 0].sum()
    target = np.where(labels == 1, (fakes + 1) / (fakes + 2), 1 / (reals + 2))
    model = LogisticRegression(C=1e12, solver="newton-cholesky", tol=1e-12, max_iter=1000)
    model.fit(
        np.concatenate((scores, scores))[:, None],
        np.repeat([1, 0], len(scores)),
        sample_weight=np.concatenate((weights * target, weights * (1 - target))),
    )
    return float(model.coef_[0, 0]), float(model.intercept_[0])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("weighted", [False, True])
def test_fit_equals_logistic_regression_on_platts_targets(seed: int, weighted: bool) -> None:
    scores, labels = drawn(seed)
    weights = np.random.default_rng(9).uniform(0.1, 3, len(scores)) if weighted else None
    platt = fit_platt(scores, labels, weights)
    scale, offset = reference(scores, labels, np.ones(len(scores)) if weights is None else weights)
    assert platt.scale == pytest.approx(scale, rel=1e-5)
    assert platt.offset == pytest.approx(offset, rel=1e-5, abs=1e-5)


def test_a_known_calibration_is_recovered() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, 50_000)
    labels = (rng.uniform(size=50_000) < expit(0.5 * logits - 1.0)).astype(int)
    platt = fit_platt(logits, labels)
    assert platt.scale == pytest.approx(0.5, abs=0.02)
    assert platt.offset == pytest.approx(-1.0, abs=0.05)


def test_a_separable_set_does_not_end_in_certainty() -> None:
    platt = fit_platt([-3.0, -2.0, 2.0, 3.0], [0, 0, 1, 1])
    p = apply(platt, [-3.0, 3.0])
    # Platt's targets for two of each class are 1/4 and 3/4.
    assert p == pytest.approx([0.25, 0.75], abs=0.1)


@settings(deadline=None, max_examples=50)
@given(st.floats(-1e4, 1e4), st.floats(1e-3, 1e3), st.integers(0, 5))
def test_moving_and_stretching_scores_changes_no_probability(
    move: float, stretch: float, seed: int
) -> None:
    scores, labels = drawn(seed, 60)
    moved = scores * stretch + move
    expected = apply(fit_platt(scores, labels), scores)
    assert apply(fit_platt(moved, labels), moved) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("scores", "labels", "words"),
    [
        ([0.0, 1.0], [1, 1], "both must occur"),
        ([0.0, 1.0], [0, 2], "both must occur"),
        ([1.0, 1.0], [0, 1], "all scores are equal"),
        ([2.0, 1.0], [0, 1], "do not score above"),
        ([0.0, float("nan")], [0, 1], "not finite"),
        ([0.0], [0, 1], "expected"),
    ],
)
def test_unusable_scores_are_refused(scores: list[float], labels: list[int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        fit_platt(scores, labels)


@pytest.mark.parametrize("weights", [[1.0], [1.0, 0.0], [1.0, float("nan")], [1.0, -1.0]])
def test_unusable_weights_are_refused(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="weights"):
        fit_platt([0.0, 1.0], [0, 1], weights)


@pytest.mark.parametrize(
    ("scale", "offset"), [(0, 0), (-1, 0), (float("inf"), 0), (1, float("nan"))]
)
def test_a_calibration_that_turns_suspicion_round_cannot_exist(scale: float, offset: float) -> None:
    with pytest.raises(ValueError, match="scale above 0"):
        Platt(scale=scale, offset=offset)


def test_apply_equals_scipys_sigmoid_and_never_overflows() -> None:
    logits = np.array([[-1e308, -800.0, -1.0], [0.0, 1.0, 1e308]])
    p = apply(Platt(scale=1.0, offset=0.0), logits)
    np.testing.assert_allclose(p, expit(logits), rtol=1e-12, atol=1e-300)
    assert p.dtype == np.float64
    assert apply(Platt(scale=2.0, offset=-1.0), 0.5) == pytest.approx(0.5)


def test_thresholds_keep_errors_within_the_limits_and_no_lower_one_would() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 400)
    p = expit(rng.normal(size=400) + 1.5 * (labels - 0.5))
    chosen = choose_thresholds(p, labels, max_false_alarm=0.05, max_missed=0.1)
    reals, fakes = p[labels == 0], p[labels == 1]
    assert np.mean(reals >= chosen.fake) <= 0.05
    assert np.mean(fakes <= chosen.real) <= 0.1
    lower = p[p < chosen.fake].max()
    higher = p[p > chosen.real].min()
    assert lower in reals
    assert np.mean(reals >= lower) > 0.05
    assert higher in fakes
    assert np.mean(fakes <= higher) > 0.1


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.tuples(st.floats(0.001, 0.999), st.integers(0, 1)), min_size=2, max_size=40).filter(
        lambda rows: len({label for _, label in rows}) == 2
    ),
    st.floats(0.0, 0.5),
)
def test_thresholds_hold_on_any_set(rows: list[tuple[float, int]], share: float) -> None:
    p, labels = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    chosen = choose_thresholds(p, labels, max_false_alarm=share, max_missed=share)
    assert 0 < chosen.real <= 0.5 <= chosen.fake < 1
    assert np.sum(p[labels == 0] >= chosen.fake) <= share * np.sum(labels == 0) + 1e-6
    assert np.sum(p[labels == 1] <= chosen.real) <= share * np.sum(labels == 1) + 1e-6


def test_a_detector_that_errs_nowhere_leaves_nothing_uncertain() -> None:
    chosen = choose_thresholds([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1])
    assert (chosen.real, chosen.fake) == (0.5, 0.5)


def test_a_detector_by_chance_leaves_nearly_everything_uncertain() -> None:
    rng = np.random.default_rng(0)
    p, labels = rng.uniform(size=1000), rng.integers(0, 2, 1000)
    chosen = choose_thresholds(p, labels)
    assert chosen.real < 0.1
    assert chosen.fake > 0.9


def test_saturated_probabilities_are_refused() -> None:
    with pytest.raises(ValueError, match="saturate"):
        choose_thresholds([1.0, 1.0, 0.5], [0, 0, 1])
    with pytest.raises(ValueError, match="saturate"):
        choose_thresholds([0.5, 0.0, 0.0], [0, 1, 1])


@pytest.mark.parametrize("p", [[-0.1, 0.5], [0.5, 1.1]])
def test_logits_are_not_taken_for_probabilities(p: list[float]) -> None:
    with pytest.raises(ValueError, match=r"0\.\.1"):
        choose_thresholds(p, [0, 1])


def test_a_share_of_errors_lies_below_one() -> None:
    with pytest.raises(ValueError, match="share of errors"):
        choose_thresholds([0.1, 0.9], [0, 1], max_false_alarm=1.0)


@pytest.mark.parametrize("seed", range(3))
def test_the_temperature_equals_logistic_regression_without_intercept(seed: int) -> None:
    scores, labels = drawn(seed)
    scores = scores + 3.0  # Guo et al. leave 0.5 where it is
    weights = np.random.default_rng(9).uniform(0.1, 3, len(scores))
    fakes, reals = weights[labels == 1].sum(), weights[labels == 0].sum()
    target = np.where(labels == 1, (fakes + 1) / (fakes + 2), 1 / (reals + 2))
    model = LogisticRegression(
        C=1e12, solver="newton-cholesky", tol=1e-12, max_iter=1000, fit_intercept=False
    )
    model.fit(
        np.concatenate((scores, scores))[:, None],
        np.repeat([1, 0], len(scores)),
        sample_weight=np.concatenate((weights * target, weights * (1 - target))),
    )
    found = fit_temperature(scores, labels, weights)
    assert found.scale == pytest.approx(float(model.coef_[0, 0]), rel=1e-5)
    assert found.offset == 0.0


@pytest.mark.parametrize("seed", range(3))
def test_the_isotonic_map_equals_scikit_learns_within_platts_targets(seed: int) -> None:
    scores, labels = drawn(seed)
    scores = np.round(scores)  # ties
    weights = class_weights(labels)
    found = fit_isotonic(scores, labels, weights)
    half = len(labels) / 2
    theirs = IsotonicRegression(
        y_min=1 / (half + 2), y_max=(half + 1) / (half + 2), out_of_bounds="clip"
    ).fit(scores, labels, sample_weight=weights)
    grid = np.linspace(-25, 15, 401)
    assert np.allclose(apply(found, grid), theirs.predict(grid))
    assert len(found.logits) < len(np.unique(scores)) + 1


@pytest.mark.parametrize("fit", [fit_temperature, fit_isotonic])
def test_other_calibrations_refuse_what_platt_refuses(fit: Fit) -> None:
    with pytest.raises(ValueError, match="both must occur"):
        fit([1.0, 2.0], [1, 1])
    with pytest.raises(ValueError, match="fakes do not score above reals"):
        fit([2.0, 1.0, -1.0, -2.0], [0, 0, 1, 1])
    with pytest.raises(ValueError, match="fakes do not score above reals"):
        fit([1.0, 1.0], [0, 1])
    with pytest.raises(ValueError, match="not finite"):
        fit([1.0, np.nan], [0, 1])


@pytest.mark.parametrize("fit", [fit_temperature, fit_isotonic])
def test_no_calibration_ends_in_certainty(fit: Fit) -> None:
    p = apply(fit([-3.0, -2.0, 2.0, 3.0], [0, 0, 1, 1]), [-3.0, 3.0, 3000.0])
    assert 0.2 < p[0] < 0.3
    assert 0.7 < p[1] < 0.8


def test_both_classes_weigh_the_same() -> None:
    labels = np.array([0, 1, 1, 1])
    weights = class_weights(labels)
    assert weights.sum() == pytest.approx(4)
    assert weights[labels == 1].sum() == pytest.approx(2)


@pytest.mark.parametrize(
    ("logits", "probabilities"),
    [((), ()), ((1.0,), ()), ((1.0, 1.0), (0.2, 0.3)), ((1.0, 2.0), (0.3, 0.2)),
     ((1.0, 2.0), (0.0, 0.5)), ((1.0, float("inf")), (0.1, 0.5))],
)  # fmt: skip
def test_knots_that_are_no_map_are_refused(
    logits: tuple[float, ...], probabilities: tuple[float, ...]
) -> None:
    with pytest.raises(ValueError, match="knots"):
        Isotonic(logits=logits, probabilities=probabilities)
