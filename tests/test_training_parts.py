"""The parts of a training step: loss, schedule, groups of weights, SAM, and what a batch shows."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from forensics.checkpoint import load_checkpoint, save_checkpoint
from forensics.config import load_config
from forensics.datasets.manifest import Sample
from forensics.datasets.shard_index import Crop, Outcome, write_columns, write_unit
from forensics.datasets.shards import CropStore
from forensics.errors import ConfigError, ManifestError
from forensics.models import build
from forensics.training.config import (
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrainConfig,
)
from forensics.training.ema import decay_at, update_average
from forensics.training.learner import Learner
from forensics.training.losses import NO_PAIR, detection_loss
from forensics.training.network import build_network
from forensics.training.optimizer import build_optimizer, freeze, layer_depths, parameter_groups
from forensics.training.originals import NONE, find_originals
from forensics.training.process import start_fabric
from forensics.training.sam import climb, descend
from forensics.training.sampler import Batches, Draw, Sampler, divided
from forensics.training.samples import Batch
from forensics.training.schedule import rate

VIT = {"image_size": 16, "patch_size": 8, "width": 8, "depth": 3, "heads": 2}


def test_the_loss_is_cross_entropy_with_the_targets_moved_inwards() -> None:
    logits, labels = torch.tensor([0.3, -1.0, 2.0]), torch.tensor([1, 0, 1])
    targets = torch.tensor([0.9, 0.1, 0.9])
    loss = detection_loss(logits, labels, torch.full((3,), NO_PAIR), label_smoothing=0.1, rank=5.0)
    assert float(loss) == pytest.approx(
        float(F.binary_cross_entropy_with_logits(logits, targets)), rel=1e-6
    )


def test_the_ranking_term_compares_the_halves_of_each_pair_and_ignores_their_offset() -> None:
    labels, pairs = torch.tensor([1, 0, 1, 0, 1]), torch.tensor([NO_PAIR, 0, 0, 1, 1])

    def term(logits: torch.Tensor) -> float:
        with_rank = detection_loss(logits, labels, pairs, label_smoothing=0.0, rank=1.0)
        return float(with_rank - detection_loss(logits, labels, pairs, label_smoothing=0, rank=0))

    logits = torch.tensor([9.0, -1.0, 2.0, 0.5, 0.0])
    expected = (math.log1p(math.exp(-3.0)) + math.log1p(math.exp(0.5))) / 2
    assert term(logits) == pytest.approx(expected, abs=1e-5)
    moved = logits + torch.tensor([0.0, 4.0, 4.0, -2.0, -2.0])
    assert term(moved) == pytest.approx(expected, abs=1e-5)


def test_the_rate_warms_up_and_falls_to_its_floor() -> None:
    config = ScheduleConfig(warmup=0.1, floor=0.01)
    rates = [rate(step, 100, config) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * n for n in range(1, 11)])
    assert max(rates) == 1.0
    assert all(a >= b for a, b in pairwise(rates[9:]))
    assert rates[-1] == pytest.approx(0.01)
    assert rate(0, 1, config) == 1.0  # a run of one step learns


def test_the_average_starts_near_the_model_and_moves_by_the_decay() -> None:
    assert decay_at(0, 0.99) == pytest.approx(0.1)
    assert decay_at(10_000, 0.99) == 0.99
    model, average = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    model.running_var.fill_(3.0)
    model.num_batches_tracked.fill_(7)
    update_average(average, model, 0.75)
    assert average.running_var.tolist() == [1.5, 1.5]
    assert average.num_batches_tracked.item() == 7


def test_layers_are_counted_from_the_input_and_positions_belong_to_the_first_block() -> None:
    depths = layer_depths(build("vit-tiny", VIT))
    assert depths["patch_embed.proj.weight"] == 0
    assert depths["cls_token"] == depths["pos_embed"] == depths["blocks.0.attn.qkv.weight"] == 1
    assert depths["blocks.2.norm2.bias"] == 3
    assert (depths["norm.weight"], depths["head.weight"]) == (4, 5)
    hybrid = layer_depths(build("efficient-vit", {"image_size": 32, "width": 8, "heads": 2}))
    assert hybrid["extractor._blocks.1._bn2.bias"] < hybrid["extractor._blocks.2._bn2.bias"]
    assert hybrid["embed.weight"] < hybrid["position"] == hybrid["blocks.0.norm1.weight"]


def test_early_layers_learn_slower_and_only_matrices_decay() -> None:
    model = build("vit-tiny", VIT)
    config = OptimizerConfig(lr=1.0, layer_decay=0.5, weight_decay=0.3)
    names = {id(p): name for name, p in model.named_parameters()}
    seen: dict[str, tuple[float, float]] = {}
    for group in parameter_groups(model, config):
        for parameter in group["params"]:
            seen[names[id(parameter)]] = group["lr"], group["weight_decay"]
    assert seen.keys() == dict(model.named_parameters()).keys()
    assert seen["head.weight"] == (1.0, 0.3)
    assert seen["head.bias"] == (1.0, 0.0)
    assert seen["blocks.1.attn.qkv.weight"] == (0.5**3, 0.3)
    assert seen["pos_embed"] == (0.5**4, 0.0)
    assert len(parameter_groups(model, OptimizerConfig())) == 2


def test_frozen_parts_are_named_and_do_not_learn() -> None:
    model = build("vit-tiny", VIT)
    frozen = freeze(model, ["patch_embed", "blocks.0"])
    assert model.blocks[0] in frozen
    trained = {id(p) for g in parameter_groups(model, OptimizerConfig()) for p in g["params"]}
    assert id(model.blocks[0].norm1.weight) not in trained
    assert id(model.blocks[1].norm1.weight) in trained
    with pytest.raises(ConfigError, match=r"no part 'block.0'; did you mean blocks.0\?"):
        freeze(model, ["block.0"])
    with pytest.raises(ConfigError, match="nothing that could learn"):
        freeze(nn.Sequential(nn.Linear(1, 1)), ["0"])


def test_sam_descends_with_the_gradient_of_the_highest_point_nearby() -> None:
    weight = nn.Parameter(torch.tensor([3.0, 4.0]))
    weight.square().sum().backward()
    before = weight.detach().clone()
    origin = climb([weight], 0.5)
    assert weight.tolist() == pytest.approx([3.3, 4.4])  # rho 0.5 along (6, 8) / 10
    weight.grad = None
    weight.square().sum().backward()
    descend(origin)
    assert torch.equal(weight, before)
    assert weight.grad is not None
    assert weight.grad.tolist() == pytest.approx([6.6, 8.8])
    optimizer = build_optimizer(
        nn.Linear(1, 1), load_config(OptimizerConfig, {"name": "sam"}, "test")
    )
    assert isinstance(optimizer, torch.optim.SGD)


# 60 crops: reals of one data set, fakes by two methods, one of which has a single short video.
LABELS = ["real"] * 20 + ["fake"] * 40
METHODS = [""] * 20 + ["swap"] * 38 + ["reenact"] * 2
VIDEOS = [f"r{n // 10}" for n in range(20)] + [f"s{n // 19}" for n in range(38)] + ["x"] * 2


def codes(names: list[str]) -> NDArray[np.int32]:
    return np.array([sorted(set(names)).index(name) for name in names], dtype=np.int32)


def sampler(batch: int = 8, blended: int = 0, **changes: object) -> Sampler:
    words: dict[str, object] = {
        "columns": {"class": codes(LABELS), "method": codes(METHODS)},
        "videos": codes(VIDEOS),
        "seed": 5,
    }
    rows = np.arange(100, 160)
    labels = np.array([label == "fake" for label in LABELS], np.int8)
    return Sampler(rows, labels, batch=batch, blended=blended, **(words | changes))  # type: ignore


def test_batches_are_balanced_by_class_and_method() -> None:
    drawn = [draw for n in range(200) for draw in sampler().draws(0, n)]
    labels = Counter(LABELS[draw.row - 100] for draw in drawn)
    assert labels == {"real": 800, "fake": 800}
    methods = Counter(METHODS[draw.row - 100] for draw in drawn if draw.row >= 120)
    assert methods["swap"] == pytest.approx(400, abs=50)
    for n in range(5):  # not only over the epoch
        assert sum(LABELS[d.row - 100] == "real" for d in sampler().draws(0, n)) == 4
    assert len({draw.place for draw in drawn}) == len(drawn)


@pytest.mark.parametrize(("power", "share"), [(0.0, 1 / 2), (0.5, 1.4142 / 2.4142), (1.0, 2 / 3)])
def test_methods_count_by_their_videos_to_the_power(power: float, share: float) -> None:
    """Two videos of one method, one of the other; within a method all videos alike."""
    drawn = [d for n in range(500) for d in sampler(power=power).draws(0, n) if d.row >= 120]
    methods = Counter(METHODS[draw.row - 100] for draw in drawn)
    assert methods["swap"] / len(drawn) == pytest.approx(share, abs=0.04)
    videos = Counter(VIDEOS[draw.row - 100] for draw in drawn)
    assert videos["s0"] / methods["swap"] == pytest.approx(0.5, abs=0.04)


def test_pairs_start_from_reals_and_fill_their_share() -> None:
    draws = sampler(batch=8, blended=2).draws(3, 1)
    assert [draw.kind for draw in draws] == ["blended"] * 2 + ["single"] * 4
    assert all(draw.row < 120 for draw in draws if draw.kind == "blended")


def test_without_columns_every_crop_comes_once_an_epoch() -> None:
    plain = sampler(batch=10, columns={})
    epochs = [[d.row for n in range(plain.steps) for d in plain.draws(e, n)] for e in (0, 1)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(100, 160))
    assert epochs[0] != epochs[1]


def test_a_batch_follows_from_seed_epoch_and_number_alone() -> None:
    whole = list(Batches(sampler(), start=0, end=20, rank=0, world=1))
    later = list(Batches(sampler(), start=13, end=20, rank=0, world=1))
    assert later == whole[13:]
    assert whole[0] != whole[7]  # 7 batches an epoch: the first of the next
    assert {draw.epoch for batch in whole[7:14] for draw in batch} == {1}
    assert list(Batches(sampler(seed=6), start=0, end=1, rank=0, world=1)) != whole[:1]


def test_two_processes_share_the_batch_of_one() -> None:
    def parts(world: int) -> list[list[list[Draw]]]:
        return [
            list(Batches(sampler(blended=2), start=4, end=6, rank=rank, world=world))
            for rank in range(world)
        ]

    (whole,), halves = parts(1), parts(2)
    for batch in range(2):
        assert {len(half[batch]) for half in halves} == {3}
        assert sorted(halves[0][batch] + halves[1][batch]) == sorted(whole[batch])


def test_a_batch_that_cannot_be_shared_out_is_refused() -> None:
    assert divided(32, 0.25, 0.0, 2) == (4, 0)
    assert divided(36, 0.33, 0.33, 3) == (6, 6)
    assert divided(6, 0.5, 0.5, 1) == (2, 1)  # both rounded up would be more than there are
    with pytest.raises(ConfigError, match="4 pairs and 24 single images, which 3 processes"):
        divided(32, 0.25, 0.0, 3)


def test_a_class_without_crops_is_named() -> None:
    rows = np.arange(4)

    def make(label: str, blended: int, blendable: bool = True) -> Sampler:
        labels = np.full(4, label == "fake", np.int8)
        known = np.full(4, blendable)
        columns = {"class": labels}
        return Sampler(
            rows, labels, columns, rows, batch=4, blended=blended, seed=0, blendable=known
        )

    with pytest.raises(ManifestError, match="holds no fakes; add some, or train on self-blended"):
        make("real", 1)
    with pytest.raises(ManifestError, match="holds no reals"):
        make("fake", 0)
    with pytest.raises(ManifestError, match="no real of the training split has landmarks"):
        make("real", 2, blendable=False)
    assert len(make("real", 2).draws(0, 0)) == 2


def test_statistics_follow_the_weights_within_a_short_run() -> None:
    """efficientnet-pytorch's momentum of 0.01 left a run of 100 steps at chance."""
    config = TrainConfig(
        model=ModelConfig(options={"width": 16, "depth": 1, "heads": 2}), data=DataConfig(size=32)
    )
    network, preprocessing, _ = build_network(config.model, config.data, seed=1)
    momenta = {m.momentum for m in network.modules() if isinstance(m, nn.BatchNorm2d)}
    assert momenta == {0.1}
    assert preprocessing.size == network.image_size == 32


def crop_of(time_s: float, frame_xyxy: list[float]) -> Crop:
    return Crop(
        encoded=b"-",
        suffix="png",
        track=0,
        time_s=time_s,
        box_xyxy=np.zeros(4, np.float32),
        frame_xyxy=np.array(frame_xyxy, np.float32),
        landmarks=np.zeros((5, 2), np.float32),
    )


def test_a_fake_finds_its_original_by_recording_place_and_moment(tmp_path: Path) -> None:
    here, there = [100.0, 100, 200, 220], [300.0, 100, 400, 220]

    def row(path: str, box: list[float], times: list[float], **facts: object) -> Outcome:
        words: dict[str, Any] = {"label": "real", "kind": "video", "dataset": "d", **facts}
        sample = Sample(path=path, **words)
        crops = tuple(crop_of(t, [x + 2 * t for x in box]) for t in times)
        return Outcome(row=number.pop(0), sample=sample, crops=crops)

    number = list(range(10))
    rows = [
        row("target.mp4", here, [0.0, 1.0, 2.0], sources=("a",), compression="c23"),
        row("target_c40.mp4", here, [0.0, 1.0, 2.0], sources=("a",), compression="c40"),
        row("source.mp4", there, [0.0, 1.0, 2.0], sources=("b",), compression="c23"),
        row("stranger.mp4", here, [0.0, 1.0, 2.0], sources=("c",), compression="c23"),
        row(
            "swap.mp4", here, [1.05, 2.0, 0.5], label="fake", sources=("a", "b"), compression="c23"
        ),
        row("swap_c40.mp4", here, [0.0], label="fake", sources=("a", "b"), compression="c40"),
        row("elsewhere.mp4", [0, 0, 50, 50], [0.0, 1.0], label="fake", sources=("a", "b")),
        row("late.mp4", here, [7.0, 8.0], label="fake", sources=("a",)),
        row("other.mp4", here, [0.0], label="fake"),
        row("grouped.mp4", there, [1.0], label="fake", group="g", sources=("b",)),
    ]
    (tmp_path / "shards").mkdir()
    (tmp_path / "index").mkdir()
    write_unit(tmp_path, 0, rows, margin=1.8)
    write_columns(tmp_path, 1)
    store = CropStore.open(tmp_path)
    found = find_originals(store, np.arange(len(store)))

    def told(i: int) -> str:
        video = store.names["video"][int(store.rows.video[i])]
        return f"{video} {float(store.rows.time_s[i]):g}"

    assert {told(i): told(f) for i, f in enumerate(found.tolist()) if f != NONE} == {
        "swap.mp4 1.05": "target.mp4 1",
        "swap.mp4 2": "target.mp4 2",
        "swap_c40.mp4 0": "target_c40.mp4 0",
        "grouped.mp4 1": "source.mp4 1",
    }


def test_matched_pairs_are_drawn_from_fakes_that_have_an_original() -> None:
    known = np.array([METHODS[n] == "reenact" or VIDEOS[n] == "s1" for n in range(60)])
    drawn = [
        draw
        for n in range(50)
        for draw in sampler(batch=8, matched=2, matchable=known).draws(0, n)
        if draw.kind == "matched"
    ]
    assert len(drawn) == 100
    assert {VIDEOS[draw.row - 100] for draw in drawn} == {"s1", "x"}
    nobody = np.zeros(60, np.bool_)
    with pytest.raises(ManifestError, match=r"no fake .* has an original .* data.matched=0"):
        sampler(matched=1, matchable=nobody)


def test_what_may_not_stand_alone_is_in_pairs_only() -> None:
    alone = np.array([video != "r0" for video in VIDEOS])
    for columns in ({}, {"method": codes(METHODS)}, {"class": codes(LABELS)}):
        batches = sampler(batch=8, blended=2, single=alone, columns=columns)
        drawn = [draw for n in range(60) for draw in batches.draws(0, n)]
        singles = {VIDEOS[d.row - 100] for d in drawn if d.kind == "single"}
        assert singles == {"r1", "s0", "s1", "x"}
        assert {VIDEOS[d.row - 100] for d in drawn if d.kind == "blended"} == {"r0", "r1"}
    with pytest.raises(ManifestError, match="both classes"):
        sampler(single=np.zeros(60, np.bool_))


def test_positions_are_interpolated_to_another_size(tmp_path: Path, tiny_checkpoint: Path) -> None:
    options = {"width": 16, "depth": 1, "heads": 2}
    small, *_ = build_network(ModelConfig(options=options), DataConfig(size=96), seed=1)
    with torch.no_grad():
        small.position[0, 1:, 0] = torch.arange(3.0).repeat(3)  # type: ignore[index]
        small.position[0, 0] = 7.0  # type: ignore[index]
    tiny = load_checkpoint(tiny_checkpoint).card
    card = replace(
        tiny,
        options={**options, "image_size": 96},
        preprocessing=replace(tiny.preprocessing, size=96),
    )
    path = tmp_path / "small.safetensors"
    save_checkpoint(path, small, card)
    large, *_ = build_network(
        ModelConfig(options=options, init=str(path)), DataConfig(size=160), seed=2
    )
    table = large.position.detach()  # type: ignore[union-attr]
    assert table.shape == (1, 26, 16)
    assert (table[0, 0] == 7).all()
    rows = table[0, 1:, 0].reshape(5, 5)
    assert (rows[:, 1:] > rows[:, :-1]).all()
    assert torch.allclose(rows, rows[0], atol=1e-5)
    assert rows[0, 2].item() == pytest.approx(1, abs=1e-5)


def test_statistics_that_are_kept_do_not_move() -> None:
    config = TrainConfig(
        model=ModelConfig(options={"width": 16, "depth": 1, "heads": 2}, keep_statistics=True),
        data=DataConfig(size=32),
        device="cpu",
    )
    learner = Learner(config, start_fabric(config), total=2)
    before = {k: v.clone() for k, v in learner.network.state_dict().items()}
    images = torch.randint(0, 255, (4, 32, 32, 3), dtype=torch.uint8)
    labels = torch.tensor([0, 1, 0, 1])
    batch = Batch(images, labels, torch.arange(4), torch.full((4,), NO_PAIR), ())
    learner.step(0, [batch])
    after = learner.network.state_dict()
    moved = {k for k in before if not torch.equal(before[k], after[k])}
    assert moved
    assert not {k for k in moved if "running" in k}
