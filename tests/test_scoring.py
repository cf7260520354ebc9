"""forensics.scoring: one pass for all people, the same answer for each as if alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from scipy.stats import t
from torch import Tensor, nn

from forensics import scoring
from forensics.calibration import Platt
from forensics.card import Card
from forensics.checkpoint import Checkpoint
from forensics.errors import CheckpointError
from forensics.models import build
from forensics.preprocess import Preprocessing, View, normalise
from forensics.runtime import Workers
from forensics.scoring import AGGREGATIONS, precision, score_tracks
from forensics.structures import Thresholds, Track, TrackScore
from forensics.verdict import EvidenceRules

CPU = torch.device("cpu")
SIZE = 64
OPTIONS = {"image_size": SIZE, "width": 32, "depth": 2, "heads": 4}


class Brightness(nn.Module):
    """A detector whose answer is known: the mean of its normalised input."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[tuple[int, ...]] = []
        self.inference: list[bool] = []

    def forward(self, x: Tensor) -> Tensor:
        self.batches.append(tuple(x.shape))
        self.inference.append(torch.is_inference_mode_enabled())
        return x.mean(dim=(1, 2, 3))


def checkpoint_of(model: nn.Module, **changes: object) -> Checkpoint:
    card = Card(
        name="test",
        version="1",
        model="efficient-vit",
        options=OPTIONS,
        preprocessing=Preprocessing(size=SIZE, margin=1.3, mean=(0.5,) * 3, std=(0.25,) * 3),
        calibration=Platt(scale=2.0, offset=-0.5),
        thresholds=Thresholds(real=0.2, fake=0.8),
        evidence=EvidenceRules(min_frames=4, min_face_px=40),
        training_data="none",
        manifest_sha256="",
        metrics={},
        licence="Apache-2.0",
    )
    return Checkpoint(
        card=replace(card, **changes), model=model.eval(), sha256="", path=Path("test")
    )  # type: ignore[arg-type]


def track_of(frames: int, seed: int, *, level: int | None = None) -> Track:
    rng = np.random.default_rng(seed)
    crops = rng.integers(0, 256, (frames, SIZE, SIZE, 3), dtype=np.uint8)
    if level is not None:
        crops[:] = level
    return Track(
        id=seed,
        crops=crops,
        times_s=np.arange(frames, dtype=np.float64),
        boxes=np.tile(np.array([0, 0, 80, 80], dtype=np.float32), (frames, 1)),
        frame_indices=np.arange(frames, dtype=np.int64),
    )


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def trained() -> Checkpoint:
    """Random weights with logits that spread as a detector's do over random crops."""
    torch.manual_seed(0)
    model = build("efficient-vit", OPTIONS)
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = 1.0
    checkpoint = checkpoint_of(model)
    x = normalise(track_of(32, 99).crops, checkpoint.card.preprocessing)
    with torch.no_grad():
        model.train()(x)
        logits = model.eval()(x)
        model.head.weight *= 2.0 / logits.std()
        model.head.bias.copy_(-(2.0 / logits.std()) * (logits.mean() - model.head.bias))
    return checkpoint


@pytest.fixture(scope="module")
def alone(trained: Checkpoint) -> list[TrackScore]:
    return [
        score(
            [
                track_of(frames, seed),
            ],
            trained,
        )[0]
        for seed, frames in enumerate((2, 3, 1))
    ]


def score(tracks: list[Track], checkpoint: Checkpoint, batch_size: int = 8) -> list[TrackScore]:
    return score_tracks(tracks, checkpoint, batch_size=batch_size, device=CPU)


def test_scores_by_hand() -> None:
    scored = score(
        [track_of(2, 1, level=255), track_of(1, 2, level=0)], checkpoint_of(Brightness())
    )
    # (1 - 0.5) / 0.25 = 2 and (0 - 0.5) / 0.25 = -2; calibrated: sigmoid(2 x logit - 0.5)
    np.testing.assert_allclose(scored[0].logits, [2.0, 2.0], rtol=1e-6)
    np.testing.assert_allclose(scored[0].frame_probabilities, expit([3.5, 3.5]), rtol=1e-6)
    assert scored[0].score == pytest.approx(2.0)
    assert scored[0].probability == pytest.approx(float(expit(3.5)))
    assert scored[1].probability == pytest.approx(float(expit(-4.5)))
    assert scored[0].logits.dtype == np.float64


def test_a_tracks_score_is_the_mean_of_its_logits_and_is_calibrated_once() -> None:
    dark, light = track_of(1, 1, level=0), track_of(1, 1, level=255)
    mixed = replace(track_of(2, 1), crops=np.concatenate((dark.crops, light.crops)))
    (scored,) = score([mixed], checkpoint_of(Brightness()))
    assert scored.score == pytest.approx(0.0, abs=1e-6)
    # Not the mean of the frames' probabilities.
    assert scored.probability == pytest.approx(float(expit(-0.5)), abs=1e-6)
    assert scored.probability != pytest.approx(scored.frame_probabilities.mean(), abs=1e-3)


def test_the_interval_is_students_over_the_frames_calibrated() -> None:
    track = track_of(6, seed=3)
    track = replace(track, crops=np.stack([crop // (n + 1) for n, crop in enumerate(track.crops)]))
    (scored,) = score([track], checkpoint_of(Brightness()))
    low, high = t.interval(
        0.95, df=5, loc=scored.logits.mean(), scale=scored.logits.std(ddof=1) / np.sqrt(6)
    )
    assert scored.interval == pytest.approx([expit(2 * low - 0.5), expit(2 * high - 0.5)])
    assert scored.interval is not None
    assert scored.interval[0] < scored.probability < scored.interval[1]
    (once,) = score([track_of(1, seed=3)], checkpoint_of(Brightness()))
    assert once.interval is None


def test_a_view_of_every_other_face_speaks_for_those_between() -> None:
    half = View(margin=1.3, weight=0.25), View(margin=1.3, weight=0.75, every=2)
    preprocessing = Preprocessing(
        size=SIZE, margin=1.3, mean=(0.5,) * 3, std=(0.25,) * 3, views=half
    )
    model = Brightness()
    checkpoint = checkpoint_of(model, preprocessing=preprocessing)
    grey = [0, 255, 51, 102]  # logits -2, 2, -1.2, -0.4
    long = replace(
        track_of(4, 1),
        crops=np.stack([np.full((SIZE, SIZE, 3), level, np.uint8) for level in grey]),
    )
    seen: list[tuple[int, int]] = []
    scored = score_tracks(
        [long, track_of(1, 2, level=255)],
        checkpoint,
        batch_size=4,
        device=CPU,
        on_progress=lambda done, total: seen.append((done, total)),
    )
    between = 0.75 * (-2 - 1.2) / 2  # of the first and the third; the last is as the third
    np.testing.assert_allclose(
        scored[0].logits, [-2.0, 0.5 + between, -1.2, 0.25 * -0.4 + 0.75 * -1.2], rtol=1e-5
    )
    np.testing.assert_allclose(scored[1].logits, [2.0], rtol=1e-6)
    assert [shape[0] for shape in model.batches] == [4, 1, 3]
    assert seen == [(4, 8), (5, 8), (8, 8)]


def test_views_that_take_turns_each_speak_for_the_faces_between_theirs() -> None:
    views = View(margin=1.3, weight=0.5, every=2), View(margin=1.3, weight=0.5, every=2, start=1)
    preprocessing = Preprocessing(
        size=SIZE, margin=1.3, mean=(0.5,) * 3, std=(0.25,) * 3, views=views
    )
    model = Brightness()
    grey = [0, 255, 51, 102]  # logits -2, 2, -1.2, -0.4
    long = replace(
        track_of(4, 1),
        crops=np.stack([np.full((SIZE, SIZE, 3), level, np.uint8) for level in grey]),
    )
    scored = score_tracks(
        [long, track_of(1, 2, level=255)],
        checkpoint_of(model, preprocessing=preprocessing),
        batch_size=8,
        device=CPU,
    )
    even, odd = [-2.0, -1.6, -1.2, -1.2], [2.0, 2.0, 0.8, -0.4]
    np.testing.assert_allclose(scored[0].logits, np.add(even, odd) / 2, rtol=1e-5)
    np.testing.assert_allclose(scored[1].logits, [2.0], rtol=1e-6)
    assert [shape[0] for shape in model.batches] == [3, 3]  # the still is in both


def test_tracks_share_batches() -> None:
    model = Brightness()
    score([track_of(1, seed) for seed in range(9)], checkpoint_of(model), batch_size=4)
    assert [shape[0] for shape in model.batches] == [4, 4, 1]


def test_workers_change_no_number(trained: Checkpoint) -> None:
    tracks = [track_of(frames, seed) for seed, frames in enumerate((5, 3))]
    seen: list[tuple[int, int]] = []
    workers = Workers(3)
    shared = score_tracks(
        tracks,
        trained,
        batch_size=3,
        device=CPU,
        workers=workers,
        on_progress=lambda done, total: seen.append((done, total)),
    )
    workers.close()
    for plain, item in zip(score(tracks, trained, batch_size=3), shared, strict=True):
        np.testing.assert_allclose(item.logits, plain.logits, atol=1e-5)
    assert seen == [(3, 8), (6, 8), (8, 8)]


def test_runs_without_gradients() -> None:
    model = Brightness()
    score([track_of(1, 1)], checkpoint_of(model))
    assert model.inference == [True]


def test_scores_keep_the_order_and_the_tracks_given() -> None:
    tracks = [track_of(frames, seed) for seed, frames in ((5, 3), (1, 1), (3, 4))]
    scored = score(tracks, checkpoint_of(Brightness()), batch_size=2)
    assert [item.track is track for item, track in zip(scored, tracks, strict=True)] == [True] * 3
    assert [len(item.logits) for item in scored] == [3, 1, 4]


def test_nobody_to_score_is_no_error() -> None:
    assert score([], checkpoint_of(Brightness())) == []


def test_progress_counts_faces_to_the_end() -> None:
    seen: list[tuple[int, int]] = []
    score_tracks(
        [track_of(3, 1), track_of(2, 2)],
        checkpoint_of(Brightness()),
        batch_size=2,
        device=CPU,
        on_progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(2, 5), (4, 5), (5, 5)]


@settings(max_examples=10, deadline=None)
@given(
    batch_size=st.integers(1, 12),
    order=st.permutations(range(3)),
    present=st.sets(st.integers(0, 2), min_size=1),
)
def test_a_persons_probability_depends_on_nobody_and_nothing_else(
    trained: Checkpoint,
    alone: list[TrackScore],
    batch_size: int,
    order: list[int],
    present: set[int],
) -> None:
    people = [item.track for item in alone]
    chosen = [index for index in order if index in present]
    together = score([people[index] for index in chosen], trained, batch_size)
    for index, item in zip(chosen, together, strict=True):
        assert item.probability == pytest.approx(alone[index].probability, abs=1e-4)


def test_bfloat16_is_for_detectors_that_were_seen_to_bear_it(
    trained: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    def able(_: torch.device) -> torch.dtype:
        return torch.bfloat16

    monkeypatch.setattr(scoring, "autocast_dtype", able)
    assert precision(trained.card, CPU) == torch.float32
    assert precision(replace(trained.card, bfloat16=True), CPU) == torch.bfloat16


def test_bfloat16_moves_the_probabilities_of_random_weights_by_little(trained: Checkpoint) -> None:
    # Random weights are the hard case: the rounding of 80 layers is up to 10% of how far their
    # logits spread. What a trained detector's bound is, its own weights must show.
    card = replace(trained.card, calibration=Platt(scale=1.0, offset=0.0))
    tracks, uncalibrated = [track_of(16, seed) for seed in range(2)], replace(trained, card=card)
    full = score(tracks, uncalibrated)
    half = score_tracks(tracks, uncalibrated, batch_size=8, device=CPU, dtype=torch.bfloat16)
    assert np.concatenate([item.frame_probabilities for item in full]).std() > 0.2
    for before, after in zip(full, half, strict=True):
        assert not np.array_equal(before.logits, after.logits)  # autocast was on
        assert abs(before.probability - after.probability) < 0.05
        assert np.corrcoef(before.logits, after.logits)[0, 1] > 0.98


def test_an_answer_that_is_no_number_is_an_error() -> None:
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean(dim=(1, 2, 3)) * float("nan")

    with pytest.raises(CheckpointError, match="test: the network gave a value that is not finite"):
        score([track_of(1, 1)], checkpoint_of(Broken()))


def test_crops_of_another_size_are_refused() -> None:
    small = replace(track_of(1, 1), crops=np.zeros((1, 32, 32, 3), dtype=np.uint8))
    with pytest.raises(ValueError, match="crops must be"):
        score([small], checkpoint_of(Brightness()))


def test_a_batch_holds_something() -> None:
    with pytest.raises(ValueError, match="batch_size"):
        score([track_of(1, 1)], checkpoint_of(Brightness()), batch_size=0)


def test_every_aggregation_a_card_may_name_exists() -> None:
    assert set(get_args(get_type_hints(Card)["aggregation"])) == set(AGGREGATIONS)
