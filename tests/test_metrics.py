"""forensics.metrics, checked against scikit-learn."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn import metrics as reference
from sklearn.calibration import calibration_curve

from forensics import metrics

TOLERANCE = 1e-9


def drawn(
    seed: int, count: int = 200, *, ties: bool
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    scores = 1 / (1 + np.exp(-(rng.normal(size=count) + labels)))
    return labels, np.round(scores, 1) if ties else scores


CASES = [(seed, ties) for seed in range(5) for ties in (False, True)]


def interpolated_eer(labels: NDArray[np.int64], scores: NDArray[np.float64]) -> float:
    alarms, hits, _ = reference.roc_curve(labels, scores, drop_intermediate=False)
    steps = np.linspace(0, 1, 400_001)
    along = np.linspace(0, 1, len(alarms))
    alarm, miss = np.interp(steps, along, alarms), 1 - np.interp(steps, along, hits)
    best = int(np.argmin(np.abs(alarm - miss)))
    return float((alarm[best] + miss[best]) / 2)


@pytest.mark.parametrize(("seed", "ties"), CASES)
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (metrics.roc_auc, reference.roc_auc_score),
        (metrics.average_precision, reference.average_precision_score),
        (metrics.log_loss, reference.log_loss),
        (metrics.brier, reference.brier_score_loss),
    ],
    ids=["roc_auc", "average_precision", "log_loss", "brier"],
)
def test_equals_scikit_learn(
    ours: Callable[..., float], theirs: Callable[..., float], seed: int, ties: bool
) -> None:
    labels, scores = drawn(seed, ties=ties)
    assert ours(labels, scores) == pytest.approx(theirs(labels, scores), abs=TOLERANCE)


@pytest.mark.parametrize(("seed", "ties"), CASES)
def test_equal_error_rate_lies_where_scikit_learns_roc_curve_crosses(seed: int, ties: bool) -> None:
    labels, scores = drawn(seed, ties=ties)
    expected = interpolated_eer(labels, scores)
    assert metrics.equal_error_rate(labels, scores) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(("seed", "ties"), CASES)
@pytest.mark.parametrize("num_bins", [1, 10, 15])
def test_calibration_error_equals_scikit_learns_curve(seed: int, ties: bool, num_bins: int) -> None:
    labels, p = drawn(seed, ties=ties)
    share, mean = calibration_curve(labels, p, n_bins=num_bins)
    counts = np.bincount(
        np.searchsorted(np.linspace(0, 1, num_bins + 1)[1:-1], p), minlength=num_bins
    )
    expected = float(np.sum(counts[counts > 0] * np.abs(share - mean)) / len(p))
    ours = metrics.expected_calibration_error(labels, p, num_bins=num_bins)
    assert ours == pytest.approx(expected, abs=TOLERANCE)


@pytest.mark.parametrize(
    ("labels", "scores", "auc", "eer"),
    [
        ([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9], 1.0, 0.0),
        ([1, 1, 0, 0], [0.1, 0.2, 0.8, 0.9], 0.0, 1.0),
        ([0, 1, 0, 1], [0.5, 0.5, 0.5, 0.5], 0.5, 0.5),
        ([0, 1], [0.0, 1.0], 1.0, 0.0),
        ([0, 0, 1, 1], [0.1, 0.6, 0.4, 0.9], 0.75, 0.5),
    ],
    ids=["perfect", "inverted", "all tied", "two items", "one swap"],
)
def test_known_answers(labels: list[int], scores: list[float], auc: float, eer: float) -> None:
    assert metrics.roc_auc(labels, scores) == pytest.approx(auc)
    assert metrics.equal_error_rate(labels, scores) == pytest.approx(eer)


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.tuples(st.integers(0, 1), st.integers(-5, 5)), min_size=2, max_size=30).filter(
        lambda rows: len({label for label, _ in rows}) == 2
    )
)
def test_small_and_tied_sets_equal_scikit_learn_too(rows: list[tuple[int, int]]) -> None:
    labels, scores = [label for label, _ in rows], [float(score) for _, score in rows]
    assert metrics.roc_auc(labels, scores) == pytest.approx(
        reference.roc_auc_score(labels, scores), abs=TOLERANCE
    )
    assert metrics.average_precision(labels, scores) == pytest.approx(
        reference.average_precision_score(labels, scores), abs=TOLERANCE
    )
    assert 0.0 <= metrics.equal_error_rate(labels, scores) <= 1.0


@pytest.mark.parametrize("only", [0, 1])
@pytest.mark.parametrize(
    "metric", [metrics.roc_auc, metrics.average_precision, metrics.equal_error_rate]
)
def test_one_class_is_no_question(metric: metrics.Metric, only: int) -> None:
    with pytest.raises(ValueError, match="compares both classes"):
        metric(np.full(3, only), np.array([0.1, 0.2, 0.3]))


ALL = [
    metrics.roc_auc,
    metrics.average_precision,
    metrics.equal_error_rate,
    metrics.log_loss,
    metrics.brier,
    metrics.expected_calibration_error,
]


@pytest.mark.parametrize("metric", ALL)
@pytest.mark.parametrize(
    ("labels", "scores", "words"),
    [
        ([], [], "N above 0"),
        ([0, 1], [0.5], "expected"),
        ([0, 2], [0.5, 0.5], "labels must be"),
        ([0, 1], [0.5, float("nan")], "not finite"),
        ([0, 1], [0.5, float("inf")], "not finite"),
    ],
    ids=["empty", "lengths", "labels", "nan", "inf"],
)
def test_unusable_input_is_refused(
    metric: Callable[..., float], labels: list[int], scores: list[float], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        metric(labels, scores)


@pytest.mark.parametrize("metric", ALL[3:])
def test_logits_are_not_taken_for_probabilities(metric: Callable[..., float]) -> None:
    with pytest.raises(ValueError, match="apply the calibration first"):
        metric([0, 1], [-2.0, 3.0])


def test_certain_and_wrong_costs_much_but_not_infinity() -> None:
    assert metrics.log_loss([1], [0.0]) == pytest.approx(-np.log(np.finfo(np.float64).eps))


def test_bootstrap_interval_holds_the_value_and_repeats_with_its_seed() -> None:
    labels, scores = drawn(0, ties=False)
    groups = [index // 2 for index in range(len(labels))]
    low, high = metrics.bootstrap_interval(metrics.roc_auc, labels, scores, groups, num=300, seed=3)
    again = metrics.bootstrap_interval(metrics.roc_auc, labels, scores, groups, num=300, seed=3)
    other = metrics.bootstrap_interval(metrics.roc_auc, labels, scores, groups, num=300, seed=4)
    assert low < metrics.roc_auc(labels, scores) < high
    assert (low, high) == again != other


def test_bootstrap_interval_of_a_mean_is_as_wide_as_theory_says() -> None:
    rng = np.random.default_rng(0)
    labels, p = np.zeros(400, dtype=np.int64), rng.uniform(size=400)

    def mean(_: NDArray[np.int64], values: NDArray[np.float64]) -> float:
        return float(values.mean())

    low, high = metrics.bootstrap_interval(mean, labels, p, range(400), num=4000, seed=0)
    assert high - low == pytest.approx(2 * 1.96 * p.std() / 20, rel=0.05)


def test_copies_of_an_item_in_one_group_do_not_narrow_the_interval() -> None:
    labels, scores = drawn(1, count=60, ties=False)
    single = metrics.bootstrap_interval(metrics.roc_auc, labels, scores, range(60), num=500, seed=0)
    copied = metrics.bootstrap_interval(
        metrics.roc_auc,
        np.repeat(labels, 5),
        np.repeat(scores, 5),
        [index // 5 for index in range(300)],
        num=500,
        seed=0,
    )
    assert copied == pytest.approx(single)


def test_bootstrap_draws_that_lose_a_class_are_drawn_again() -> None:
    low, high = metrics.bootstrap_interval(
        metrics.roc_auc, [0, 1], [0.2, 0.8], ["a", "b"], num=20, seed=0
    )
    assert low == high == 1.0


@pytest.mark.parametrize(
    ("groups", "level", "words"),
    [
        (["a", "b"], 0.95, "one group per item"),
        (["a"] * 4, 0.95, "two groups"),
        ("abcd", 1.0, "level"),
    ],
)
def test_bootstrap_refuses_what_it_cannot_do(groups: list[str], level: float, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        metrics.bootstrap_interval(
            metrics.roc_auc, [0, 1, 0, 1], [0.1, 0.2, 0.3, 0.4], groups, seed=0, level=level
        )


def test_an_item_of_weight_two_counts_twice_in_the_calibration_error() -> None:
    labels, p = np.array([0, 1, 1]), np.array([0.2, 0.25, 0.9])
    twice = metrics.expected_calibration_error([0, 0, 1, 1], [0.2, 0.2, 0.25, 0.9], num_bins=4)
    weighed = metrics.expected_calibration_error(labels, p, num_bins=4, weights=[2, 1, 1])
    assert weighed == pytest.approx(twice)
    with pytest.raises(ValueError, match="one per item"):
        metrics.expected_calibration_error(labels, p, weights=[1, 1])
