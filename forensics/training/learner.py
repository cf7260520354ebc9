"""What learns: a network, its average and its optimizer, and the step that moves them together."""

from __future__ import annotations

import copy
import math
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from forensics.errors import TrainingError
from forensics.preprocess import normalise_tensor
from forensics.training.config import TrainConfig
from forensics.training.ema import decay_at, update_average
from forensics.training.losses import detection_loss
from forensics.training.network import build_network
from forensics.training.optimizer import build_optimizer, freeze
from forensics.training.process import require_device, seed_step
from forensics.training.sam import climb, descend
from forensics.training.samples import Batch
from forensics.training.schedule import rate
from forensics.training.state import Standing, restore_state, save_state

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def rehearse(config: TrainConfig) -> None:
    """Build the network once: what cannot be is told before hours of cutting.

    Raises ConfigError and CheckpointError.
    """
    require_device(config)
    freeze(build_network(config.model, config.data, seed=config.seed).network, config.model.freeze)


class Learner:
    """The moving parts of a run. `network` learns, `judged` is what is validated and kept."""

    def __init__(self, config: TrainConfig, fabric: Fabric, *, total: int) -> None:
        """`total` steps in all. Raises ConfigError and CheckpointError."""
        self._config, self._fabric, self._total = config, fabric, total
        start = build_network(config.model, config.data, seed=config.seed)
        self.network, self.preprocessing = start.network, start.preprocessing
        self.images_before = start.images_seen
        self._frozen = freeze(self.network, config.model.freeze)
        if config.model.keep_statistics:
            modules = self.network.modules()
            self._frozen += [m for m in modules if isinstance(m, nn.BatchNorm2d)]
        # Kernels in the memory order of their input: the faster one for convolutions.
        self.network.to(fabric.device, memory_format=torch.channels_last)  # pyright: ignore
        self._average = copy.deepcopy(self.network).eval() if config.ema else None
        self._optimizer = build_optimizer(self.network, config.optimizer)
        self._rates = [float(group["lr"]) for group in self._optimizer.param_groups]
        # Whether network, average and optimizer stand at the same step.
        self.whole = True
        wrapped = cast("tuple[Any, Any]", fabric.setup(self.network, self._optimizer))
        self._model, self._stepper = wrapped

    @property
    def judged(self) -> nn.Module:
        return self.network if self._average is None else self._average

    @property
    def rate(self) -> float:
        """The learning rate of the last layer, as it is now."""
        return max(float(group["lr"]) for group in self._optimizer.param_groups)

    def step(self, step: int, batches: list[Batch]) -> float:
        """Move everything by step `step` (from 0); returns the loss of this process's batches.

        Raises TrainingError where the loss is not a number.
        """
        self.whole = False
        config = self._config
        share = rate(step, self._total, config.schedule)
        for group, full in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = full * share
        self.network.train()
        for part in self._frozen:
            part.eval()
        seed_step(config.seed, step, self._fabric.global_rank)
        loss = self._gradients(step, batches)
        if config.optimizer.name == "sam":
            origin = climb(self.network.parameters(), config.optimizer.rho)
            self._gradients(step, batches)
            descend(origin)
        if config.clip:
            # In fp16 the first gradients overflow: the scaler then skips the step.
            self._fabric.clip_gradients(
                self._model, self._stepper, max_norm=config.clip, error_if_nonfinite=False
            )
        self._stepper.step()
        if self._average is not None:
            update_average(self._average, self.network, decay_at(step, config.ema))
        self.whole = True
        return loss

    def _gradients(self, step: int, batches: list[Batch]) -> float:
        """Add up the gradients of all batches, from zero; returns their mean loss."""
        self._optimizer.zero_grad(set_to_none=True)
        device, total = self._fabric.device, 0.0
        for number, batch in enumerate(batches, start=1):
            # Processes exchange gradients once, with the last batch.
            apart = self._fabric.world_size > 1 and number < len(batches)
            with self._apart() if apart else nullcontext():
                loss = detection_loss(
                    self.logits(self._model, batch),
                    batch.labels.to(device),
                    batch.pairs.to(device),
                    label_smoothing=self._config.loss.label_smoothing,
                    rank=self._config.loss.rank,
                )
                self._fabric.backward(loss / len(batches))
            total += float(loss.detach()) / len(batches)
        if not math.isfinite(total):
            raise TrainingError(
                f"the loss of step {step + 1} is {total}: lower optimizer.lr, in a new run"
            )
        return total

    def _apart(self) -> AbstractContextManager[None]:
        return self._fabric.no_backward_sync(self._model)  # pyright: ignore

    def logits(self, network: nn.Module, batch: Batch) -> Tensor:
        """(B,) on the device."""
        images = batch.images.to(self._fabric.device, non_blocking=True)
        return network(normalise_tensor(images, self.preprocessing))

    def judge(self, batch: Batch) -> Tensor:
        """(B,) logits of `judged`, in the precision of the run."""
        with self._fabric.autocast():  # pyright: ignore[reportUnknownMemberType]
            return self.logits(self.judged, batch)

    def scaler(self) -> dict[str, float | int]:
        """The state of fp16's scaler; empty in other precisions."""
        return cast("dict[str, float | int]", self._fabric.strategy.precision.state_dict())

    def save(self, path: Path, standing: Standing) -> None:
        """Write everything with `standing`. Raises TrainingError."""
        save_state(path, standing, self.network, self._average, self._optimizer)

    def restore(self, path: Path, standing: Standing) -> None:
        """Take everything back from `path`. Raises TrainingError."""
        restore_state(path, self.network, self._average, self._optimizer)
        if standing.scaler:
            self._fabric.strategy.precision.load_state_dict(dict(standing.scaler))
