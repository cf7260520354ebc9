"""Train one detector on pairs: a loop one can read, with a checkpoint it can resume from.

AdamW, warm-up and cosine, exponential moving average of all weights and buffers, bf16 autocast. The
loss is binary cross-entropy plus a ranking term between the halves of a pair, which no offset of
the source can satisfy.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file  # pyright: ignore[reportUnknownVariableType]
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from forensics.preprocess import Preprocessing, normalise
from forensics.training.depthwise import fast_depthwise
from forensics.training.ema import decay_at, update_average


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    steps: int
    seconds: (
        float  # wall-clock budget; the cosine runs over whichever of steps and seconds ends first
    )
    pairs_per_batch: int = 16
    workers: int = 1
    lr_extractor: float = 1.5e-4
    lr_transformer: float = 1e-4
    weight_decay: float = 0.02
    warmup: float = 0.04  # of the run
    ema: float = 0.998
    rank_weight: float = 0.5


def pair_loss(logits: Tensor, rank_weight: float) -> Tensor:
    """logits (2P,): P reals, then their P fakes. BCE with light smoothing plus softplus ranking."""
    real, fake = logits.float().chunk(2)
    targets = torch.cat([torch.full_like(real, 0.03), torch.full_like(fake, 0.97)])
    bce = F.binary_cross_entropy_with_logits(logits.float(), targets)
    return bce + rank_weight * F.softplus(real - fake).mean()


def train(
    model: nn.Module,
    extractor: nn.Module,
    pairs: Dataset[Tensor],
    preprocessing: Preprocessing,
    config: TrainConfig,
    *,
    out: Path,
    on_step: Callable[[int, float, float], None],
) -> nn.Module:
    """Returns the averaged model in eval mode. `on_step` hears step, loss and progress 0..1.

    `extractor` is the part of `model` that starts from pretrained weights and learns more slowly.
    The averaged weights are written to `out`/ema.safetensors every 200 steps.
    """
    slow = {id(p) for p in extractor.parameters()}
    groups = [
        {
            "params": [p for p in model.parameters() if id(p) in slow and p.requires_grad],
            "lr": config.lr_extractor,
        },
        {
            "params": [p for p in model.parameters() if id(p) not in slow],
            "lr": config.lr_transformer,
        },
    ]
    optimiser = torch.optim.AdamW(groups, weight_decay=config.weight_decay)
    rates = [float(group["lr"]) for group in optimiser.param_groups]
    average = copy.deepcopy(model).eval()
    loader = DataLoader(
        pairs, batch_size=config.pairs_per_batch, num_workers=config.workers, drop_last=True
    )
    out.mkdir(parents=True, exist_ok=True)
    model.train()
    # The extractor's batch statistics stay those of its initialisation: 32 faces of 16 sources are
    # too few to estimate them, and training and scanning then see the same network.
    for module in extractor.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    start = time.monotonic()
    with fast_depthwise(extractor):
        for step, batch in enumerate(loader):
            progress = max(step / config.steps, (time.monotonic() - start) / config.seconds)
            if progress >= 1:
                break
            ramp = min(1.0, progress / config.warmup) * (0.5 + 0.5 * math.cos(math.pi * progress))
            for group, rate in zip(optimiser.param_groups, rates, strict=True):
                group["lr"] = rate * ramp
            images = batch.transpose(0, 1).flatten(0, 1).numpy()  # (2P, S, S, 3): reals, then fakes
            inputs = normalise(images, preprocessing).to(memory_format=torch.channels_last)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                logits = model(inputs)
            loss = pair_loss(logits, config.rank_weight)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # pyright: ignore[reportUnknownMemberType]
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()  # pyright: ignore[reportUnknownMemberType]
            update_average(average, model, decay_at(step, config.ema))
            on_step(step, float(loss.detach()), progress)
            if step % 200 == 199:
                write(average, out / "ema.safetensors")
    write(average, out / "ema.safetensors")
    return average


def write(model: nn.Module, path: Path) -> None:
    partial = path.with_suffix(".part")
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, partial)
    partial.replace(path)
