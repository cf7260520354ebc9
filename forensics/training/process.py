"""How a run is spread over devices and processes: Lightning Fabric, as `torchrun` started it."""

from __future__ import annotations

import atexit
import logging
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor

from forensics.errors import ConfigError
from forensics.runtime import choose_device, seed_everything
from forensics.training.config import TrainConfig
from forensics.training.curves import library, require_libraries

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_PRECISIONS: dict[int | str, Any] = {32: "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


def require_device(config: TrainConfig) -> torch.device:
    """Raises ConfigError where the device is not there or cannot compute in the wanted precision,
    and where lightning-fabric is missing."""
    require_libraries()
    device = choose_device(config.device)
    if config.precision == "fp16" and device.type != "cuda":
        raise ConfigError("precision fp16 needs a CUDA device; use precision bf16 or 32")
    return device


def start_fabric(config: TrainConfig) -> Fabric:
    """One process on one device, or its place among those of `torchrun`. Raises ConfigError as
    `require_device` does."""
    device = require_device(config)
    local, world = (int(os.environ.get(name, "1")) for name in ("LOCAL_WORLD_SIZE", "WORLD_SIZE"))
    lightning = library("lightning_fabric")
    # It tells on stderr which precision it was asked for; its import sets the level.
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    fabric: Fabric = lightning.Fabric(
        accelerator=device.type,
        devices=local,
        num_nodes=max(1, world // local),
        strategy="ddp" if world > 1 else "auto",
        precision=_PRECISIONS[config.precision],
    )
    fabric.launch()
    if world > 1:
        atexit.register(_leave)
    return fabric


def _leave() -> None:
    """Gloo's threads, left to the end of the interpreter, abort it now and then."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def facts_of(fabric: Fabric) -> dict[str, Any]:
    """On what a run computes, in words and numbers."""
    device = fabric.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    threads = torch.get_num_threads()
    return {"device": name, "processes": fabric.world_size, "threads": threads}


def add_up(fabric: Fabric, tensor: Tensor) -> Tensor:
    """The sum of every process's `tensor`, in each of them."""
    if fabric.world_size == 1:
        return tensor
    everywhere = cast("Callable[..., Tensor]", fabric.all_reduce)  # pyright: ignore
    return everywhere(tensor.to(fabric.device), reduce_op="sum").to(tensor.device)


def any_of(fabric: Fabric, flag: bool) -> bool:
    """Whether `flag` is set in any process: they must stop together or wait for each other."""
    return bool(add_up(fabric, torch.tensor(float(flag))) > 0)


def gathered(fabric: Fabric, facts: dict[str, str]) -> list[dict[str, str]]:
    """Every process's `facts`, in each of them."""
    if fabric.world_size == 1:
        return [facts]
    found: list[Any] = [None] * fabric.world_size
    torch.distributed.all_gather_object(found, facts)  # pyright: ignore[reportUnknownMemberType]
    return found


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seed every generator for one step, so that their state follows from where the run stands."""
    seed_everything(int(np.random.SeedSequence((seed, step, rank)).generate_state(1)[0]))
