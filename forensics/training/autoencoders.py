"""Autoencoders learned from a run's own reals, before it begins, to make fakes with.

From patches of 64 px at every size a face is drawn at; absolute difference, and where a critic
stands beside, that of the gradients and its opinion (Isola et al., CVPR 2017). Each autoencoder
follows from the run's seed alone, whichever process learns it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor

from forensics.checkpoint import write_whole
from forensics.datasets.reconstruction import SMALLEST, read_autoencoders
from forensics.models.autoencoder import PLANS, Autoencoder, Critic, Plan
from forensics.training.config import TrainConfig
from forensics.training.process import any_of
from forensics.training.progress import OnAutoencoders

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_PATCH, _BATCH = 64, 8
_POOL = 400  # crops that patches are taken from; every second step one gives way to the next
_RATE, _CRITIC_RATE, _BETAS = 1e-3, 5e-4, (0.5, 0.99)
_WARM_UP, _FLOOR = 100, 0.05  # steps; share of the rate at the end
_ALONE = 0.2  # of the steps before the critic is heard: it would tell apart anything at first
_GRADIENTS, _OPINION = 0.5, 0.02  # weights beside the absolute difference
_TOLD = 50  # steps between two words of progress

Image = NDArray[np.uint8]
ReadReal = Callable[[np.random.Generator], Image]  # a crop (H, W, 3) of a real, drawn by it
_N = TypeVar("_N", bound=torch.nn.Module)


def learn_autoencoders(
    folder: Path,
    read_real: ReadReal,
    config: TrainConfig,
    fabric: Fabric,
    *,
    on_steps: OnAutoencoders | None,
    should_stop: Callable[[], bool],
) -> bool:
    """Learn those that `folder` does not hold yet, each process some of them, and write each there
    once it is done. Returns whether all are there: not where `should_stop` said so.

    Raises CheckpointError where a file cannot be written, TrainingError where one is damaged, and
    whatever `read_real` does.
    """
    absent = [name for name in PLANS if not (folder / f"{name}.safetensors").exists()]
    fabric.barrier()  # before anybody adds to them
    mine = absent[fabric.global_rank :: fabric.world_size]
    steps = config.data.autoencoder_steps
    folder.mkdir(parents=True, exist_ok=True)
    for count, name in enumerate(mine):
        entropy = (config.seed, *name.encode())
        rng = np.random.default_rng(entropy)
        with torch.random.fork_rng():  # pyright: ignore[reportUnknownMemberType]
            seed = int(np.random.SeedSequence(entropy).generate_state(1)[0])
            torch.manual_seed(seed)  # pyright: ignore[reportUnknownMemberType]
            learner = _Learner(PLANS[name], steps, fabric.device, config.precision == "bf16")
            for step, patches in zip(range(steps), _patches(read_real, rng), strict=False):
                learner.step(step, patches)
                if on_steps and (step % _TOLD == 0 or step + 1 == steps):
                    on_steps(count * steps + step + 1, len(mine) * steps)
                if should_stop():
                    break
        if should_stop():
            break
        learned = learner.network.state_dict()
        tensors = {key: value.cpu().contiguous() for key, value in learned.items()}
        write_whole(folder / f"{name}.safetensors", save(tensors))
    if any_of(fabric, should_stop()):
        return False
    read_autoencoders(folder, bf16=False)  # a damaged one is told here and not as unreadable crops
    return True


def _patches(read_real: ReadReal, rng: np.random.Generator) -> Iterator[Tensor]:
    """Batches (8, 3, 64, 64) float32 in -1..1 of patches of crops at random sizes."""
    pool: list[Image] = []
    step = 0
    while True:
        while len(pool) < _POOL:
            pool.append(_smaller(read_real(rng), rng))
        patches: list[Image] = []
        for _ in range(_BATCH):
            image = pool[int(rng.integers(len(pool)))]
            y, x = (int(rng.integers(int(side) - _PATCH + 1)) for side in image.shape[:2])
            patch = image[y : y + _PATCH, x : x + _PATCH]
            patches.append(patch[:, ::-1] if rng.random() < 0.5 else patch)
        if step % 2 == 0:
            pool.pop(int(rng.integers(len(pool))))
        step += 1
        stacked: Image = np.stack(patches)
        pixels = torch.from_numpy(stacked)  # pyright: ignore[reportUnknownMemberType]
        pixels = pixels.permute(0, 3, 1, 2).float() / 127.5 - 1
        yield pixels.contiguous(memory_format=torch.channels_last)


def _smaller(image: Image, rng: np.random.Generator) -> Image:
    """At a random size, of which a patch can be taken."""
    short = min(image.shape[:2])
    scale = max(rng.uniform(SMALLEST, 1), _PATCH / short)
    height, width = (max(_PATCH, round(side * scale)) for side in image.shape[:2])
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


class _Learner:
    """An autoencoder and, where its plan has one, the critic it learns against."""

    def __init__(self, plan: Plan, steps: int, device: torch.device, bf16: bool) -> None:
        self._steps, self._device, self._bf16 = steps, device, bf16
        self.network = _placed(Autoencoder(plan), device)
        self._judge = _placed(Critic(), device) if plan.critic else None
        self._optimizer = torch.optim.Adam(self.network.parameters(), _RATE, _BETAS)
        if self._judge is not None:
            critics = torch.optim.Adam(self._judge.parameters(), _CRITIC_RATE, _BETAS)
            self._critics = critics

    def step(self, step: int, patches: Tensor) -> None:
        x = patches.to(self._device)
        share = min(1, (step + 1) / _WARM_UP) * max(_FLOOR, 1 - step / self._steps)
        judge = self._judge if step >= _ALONE * self._steps else None
        y = self._computed(self.network, x)
        loss = F.l1_loss(y, x)
        if self._judge is not None:
            loss = loss + _GRADIENTS * sum(
                F.l1_loss(y.diff(dim=axis), x.diff(dim=axis)) for axis in (2, 3)
            )
        if judge is not None:
            loss = loss - _OPINION * self._computed(judge, y).mean()
        _follow(self._optimizer, loss, _RATE * share)
        if judge is not None:
            real, drawn = self._computed(judge, x), self._computed(judge, y.detach())
            hinge = F.relu(1 - real).mean() + F.relu(1 + drawn).mean()
            _follow(self._critics, hinge, _CRITIC_RATE * share)

    def _computed(self, network: torch.nn.Module, x: Tensor) -> Tensor:
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._bf16):
            result: Tensor = network(x)
        return result.float()


def _placed(network: _N, device: torch.device) -> _N:
    return network.to(device).to(memory_format=torch.channels_last)  # pyright: ignore


def _follow(optimizer: torch.optim.Optimizer, loss: Tensor, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad()
    loss.backward()  # pyright: ignore[reportUnknownMemberType]
    optimizer.step()  # pyright: ignore[reportUnknownMemberType]
