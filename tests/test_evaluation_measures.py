"""Measures with weights against scikit-learn, and the bootstrap against forensics.metrics."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics as reference
from numpy.typing import NDArray

from forensics import metrics
from forensics.evaluation.bootstrap import draws, estimates, paired_difference
from forensics.evaluation.measures import curve, measure
from forensics.structures import Thresholds

TOLERANCE = 1e-9
OWN = Thresholds(real=0.3, fake=0.8)


def drawn(
    seed: int, *, count: int = 90, ties: bool = True
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    labels = (rng.uniform(size=count) < 0.6).astype(np.int64)
    labels[:2] = 0, 1
    p = np.clip(rng.normal(0.4 + 0.2 * labels, 0.25), 0, 1)
    return labels, np.round(p, 1) if ties else p


@pytest.mark.parametrize("ties", [True, False])
@pytest.mark.parametrize("seed", range(6))
def test_every_weighted_measure_equals_scikit_learns(seed: int, ties: bool) -> None:
    labels, p = drawn(seed, ties=ties)
    w = np.random.default_rng(seed).integers(0, 4, len(labels)).astype(float)
    w[:2] = 1
    got = {k: v[1] for k, v in measure(labels, p, np.stack([w * 0 + 1, w]), thresholds=OWN).items()}
    alarms, hits, _ = reference.roc_curve(labels, p, sample_weight=w, drop_intermediate=False)
    half, high, low = p >= 0.5, p >= OWN.fake, p <= OWN.real
    expected = {
        "auc": reference.roc_auc_score(labels, p, sample_weight=w),
        "ap": reference.average_precision_score(labels, p, sample_weight=w),
        "tpr_at_fpr_1": hits[alarms <= 0.01].max(),
        "tpr_at_fpr_5": hits[alarms <= 0.05].max(),
        "log_loss": reference.log_loss(labels, np.clip(p, 1e-15, 1 - 1e-15), sample_weight=w),
        "brier": reference.brier_score_loss(labels, p, sample_weight=w),
        "accuracy_at_half": reference.accuracy_score(labels, half, sample_weight=w),
        "balanced_accuracy_at_half": reference.balanced_accuracy_score(
            labels, half, sample_weight=w
        ),
        "f1_at_half": reference.f1_score(labels, half, sample_weight=w),
        "accuracy_at_fake_threshold": reference.accuracy_score(labels, high, sample_weight=w),
        "balanced_accuracy_at_fake_threshold": reference.balanced_accuracy_score(
            labels, high, sample_weight=w
        ),
        "f1_at_fake_threshold": reference.f1_score(labels, high, sample_weight=w),
        "fpr_at_fake_threshold": np.average(high[labels == 0], weights=w[labels == 0]),
        "fnr_at_fake_threshold": np.average(~high[labels == 1], weights=w[labels == 1]),
        "fnr_at_real_threshold": np.average(low[labels == 1], weights=w[labels == 1]),
        "uncertain": np.average(~high & ~low, weights=w),
        "accuracy_where_certain": reference.accuracy_score(
            labels[high | low], high[high | low], sample_weight=w[high | low]
        ),
    }
    assert expected.keys() | {"eer", "ece"} == got.keys()
    for name, value in expected.items():
        assert got[name] == pytest.approx(value, abs=TOLERANCE), name


@pytest.mark.parametrize("seed", range(6))
def test_whole_number_weights_are_repetitions(seed: int) -> None:
    """The rest against forensics.metrics, which is held to scikit-learn on its own."""
    labels, p = drawn(seed)
    w = np.random.default_rng(seed).integers(1, 4, len(labels))
    got = measure(labels, p, w[None].astype(float))
    y, x = np.repeat(labels, w), np.repeat(p, w)
    for name, of in (
        ("eer", metrics.equal_error_rate),
        ("ece", metrics.expected_calibration_error),
        ("auc", metrics.roc_auc),
    ):
        assert got[name][0] == pytest.approx(of(y, x), abs=TOLERANCE), name


def test_the_share_of_false_alarms_itself_is_allowed() -> None:
    labels = np.array([0] * 20 + [1] * 2)
    p = np.array([0.9] + [0.1] * 19 + [0.95, 0.5])
    got = measure(labels, p, np.ones((1, 22)))
    assert got["tpr_at_fpr_5"][0] == 1.0
    assert got["tpr_at_fpr_1"][0] == 0.5


@pytest.mark.parametrize("only", [0, 1])
def test_one_class_has_no_ranking_but_has_a_loss(only: int) -> None:
    labels = np.full(3, only)
    got = measure(labels, np.array([0.2, 0.4, 0.9]), np.ones((1, 3)), thresholds=OWN)
    for name in ("auc", "ap", "eer", "tpr_at_fpr_5", "balanced_accuracy_at_half"):
        assert np.isnan(got[name][0]), name
    assert np.isfinite(got["log_loss"][0])
    assert np.isfinite(got["accuracy_at_half"][0])
    assert np.isnan(got["fpr_at_fake_threshold"][0]) == (only == 1)


def test_a_certain_mistake_costs_what_kaggle_charges() -> None:
    got = measure(np.array([1]), np.array([0.0]), np.ones((1, 1)))
    assert got["log_loss"][0] == pytest.approx(-np.log(1e-15))


@pytest.mark.parametrize(
    ("labels", "p", "weights", "words"),
    [
        ([], [], np.ones((1, 0)), "expected"),
        ([0, 2], [0.1, 0.2], np.ones((1, 2)), "labels must be"),
        ([0, 1], [0.1, 1.2], np.ones((1, 2)), "0..1"),
        ([0, 1], [0.1, np.nan], np.ones((1, 2)), "0..1"),
        ([0, 1], [0.1, 0.2], np.ones(2), "weights"),
        ([0, 1], [0.1, 0.2], -np.ones((1, 2)), "weights"),
    ],
)
def test_unusable_input_is_refused(
    labels: list[int], p: list[float], weights: NDArray[np.float64], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        measure(np.array(labels, dtype=np.int64), np.array(p, dtype=np.float64), weights)


def test_intervals_equal_those_of_drawing_the_items_themselves() -> None:
    labels, p = drawn(3, ties=False)
    clusters = np.arange(len(labels)) // 3
    got = estimates(labels, p, clusters, thresholds=OWN, num=200, seed=5)
    for name, of in (
        ("auc", metrics.roc_auc),
        ("brier", metrics.brier),
        ("eer", metrics.equal_error_rate),
    ):
        low, high = metrics.bootstrap_interval(of, labels, p, clusters.tolist(), num=200, seed=5)
        estimate = got[name]
        assert estimate is not None
        assert (estimate.low, estimate.high) == (
            pytest.approx(low, abs=TOLERANCE),
            pytest.approx(high, abs=TOLERANCE),
        )


def test_draws_come_in_chunks_and_none_loses_a_class(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forensics.evaluation.bootstrap._CHUNK_CELLS", 100)
    labels, clusters = np.array([0, 1, 1, 1]), np.arange(4)
    chunks = list(draws(clusters, labels, num=60, seed=0))
    assert [len(chunk) for chunk in chunks] == [25, 25, 10]
    weights = np.concatenate(chunks)
    assert (weights.sum(axis=1) == 4).all()
    assert (weights[:, 0] > 0).all()
    assert (weights[:, 1:].sum(axis=1) > 0).all()


def test_one_cluster_and_no_draws_give_no_interval_and_one_class_no_auc() -> None:
    labels, p = drawn(0)
    for clusters, num in ((np.zeros(len(labels), int), 50), (np.arange(len(labels)), 0)):
        auc = estimates(labels, p, clusters, thresholds=None, num=num, seed=0)["auc"]
        assert auc is not None
        assert auc.low is None
    reals = estimates(labels * 0, p, np.arange(len(labels)), thresholds=None, num=50, seed=0)
    assert reals["auc"] is None
    assert reals["brier"] is not None
    assert reals["brier"].low is not None


def test_equal_detectors_do_not_differ_and_a_better_one_does() -> None:
    labels, p = drawn(1, ties=False)
    clusters = np.arange(len(labels))
    same, p_same = paired_difference(labels, p, p, clusters, name="auc", num=200, seed=0)
    assert (same.value, same.low, same.high, p_same) == (0.0, 0.0, 0.0, 1.0)
    better = np.clip(p + 0.3 * (labels - 0.5), 0, 1)
    gain, p_gain = paired_difference(labels, p, better, clusters, name="auc", num=200, seed=0)
    assert gain.low is not None
    assert gain.low > 0
    assert p_gain == pytest.approx(2 / 201)
    loss, p_loss = paired_difference(labels, better, p, clusters, name="auc", num=200, seed=0)
    assert loss.value == pytest.approx(-gain.value)
    assert p_loss == p_gain
    nothing = paired_difference(labels, p, better, clusters * 0, name="auc", num=200, seed=0)
    assert nothing[1] is None


def test_the_p_value_of_no_difference_is_spread_evenly() -> None:
    """Two detectors of equal worth: a p-value below 0.1 in about a tenth of the cases."""
    small = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        labels = np.arange(120) % 2
        first, second = (np.clip(rng.normal(0.4 + 0.2 * labels, 0.3), 0, 1) for _ in range(2))
        _, p = paired_difference(
            labels, first, second, np.arange(120), name="auc", num=200, seed=seed
        )
        assert p is not None
        small += p < 0.1
    assert 1 <= small <= 14


def test_the_curve_starts_at_nothing_and_ends_with_everything() -> None:
    labels, p = drawn(2)
    of = curve(labels, p, np.ones((1, len(labels))))
    assert of.reals[0, 0] == of.fakes[0, 0] == 0
    assert of.reals[0, -1] + of.fakes[0, -1] == len(labels)
    assert (np.diff(of.thresholds) < 0).all()
