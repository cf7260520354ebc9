"""Where and how numbers are computed: device, threads, seeds, autocast dtype. Commands call it."""

from __future__ import annotations

import random
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch

from forensics.errors import ConfigError

Item = TypeVar("Item")
Result = TypeVar("Result")


def choose_device(name: str = "auto") -> torch.device:
    """`auto` (CUDA, else MPS, else CPU), `cpu`, `cuda`, `cuda:N` or `mps` -> a device.

    Raises ConfigError for a device that is unknown or absent: an explicit wish never falls back
    to a slower device in silence.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    if name == "cpu":
        return torch.device("cpu")
    if name == "mps":
        if not torch.backends.mps.is_available():
            raise ConfigError("device mps is not available on this machine; use auto or cpu")
        return torch.device("mps")
    match = re.fullmatch(r"cuda(?::(\d{1,3}))?", name)
    if match is None:
        raise ConfigError(f"device {name!r} is unknown; known: auto, cpu, cuda, cuda:N, mps")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(match[1] or 0) >= count:
        raise ConfigError(
            f"device {name} is not available: PyTorch sees {count} CUDA devices; use auto or cpu"
        )
    return torch.device(name)


def autocast_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the hardware multiplies it natively, else float32 (meaning: no autocast).

    Emulated bfloat16 is slower than float32, hence the instruction sets. Measured on 4 cores of
    an AMD EPYC (Zen 4, avx512_bf16), Efficient ViT, 32 crops of 224 px, channels-last:
    0.34 s in bfloat16, 0.72 s in float32.
    """
    if device.type == "cpu" and _cpu_multiplies_bfloat16():
        return torch.bfloat16
    # Compute capability 8.0 (Ampere) is the first with bfloat16 tensor cores.
    if device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0):
        return torch.bfloat16
    return torch.float32


def _cpu_multiplies_bfloat16() -> bool:
    # In PyTorch from 2.11 on; without it float32 is the safe answer.
    capabilities = getattr(torch.cpu, "get_capabilities", dict[str, bool])()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


class Workers:
    """Threads that compute with one core each: many small passes at once instead of one large one
    on all cores, whose threads wait for each other after every operation.

    Measured on 4 cores of an AMD EPYC, CPU seconds in all: faces of 32 frames 2.4 on four OpenMP
    threads, 1.3 on four workers; 32 crops of 224 px in bfloat16 1.0 and 0.6. Beside other busy
    processes the waiting is worst: 21 s and 3 s for those 32 frames.
    """

    def __init__(self, num_threads: int) -> None:
        """`num_threads`: 1 or more. Other threads keep their number of PyTorch threads."""
        before = torch.get_num_threads()
        all_there = threading.Barrier(num_threads + 1)
        self._pool = ThreadPoolExecutor(num_threads, thread_name_prefix="forensics-compute")
        for _ in range(num_threads):
            self._pool.submit(_compute_alone, all_there)
        all_there.wait()
        # PyTorch's setting is each thread's own, but later threads start with the last one set.
        torch.set_num_threads(before)

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """The results in the order of the items, each as soon as it and those before are there."""
        return self._pool.map(function, items)

    def close(self) -> None:
        """Finish what has begun, forget the rest. May be called twice."""
        self._pool.shutdown(cancel_futures=True)


def compute_workers(device: torch.device) -> Workers | None:
    """As many workers as PyTorch has threads here. None where they would not help: on a GPU, which
    takes large batches, and where one thread was asked for, which may be the caller's own."""
    num_threads = torch.get_num_threads()
    return Workers(num_threads) if device.type == "cpu" and num_threads > 1 else None


def _compute_alone(all_there: threading.Barrier) -> None:
    torch.get_num_threads()  # a thread's first question undoes what was set before it
    torch.set_num_threads(1)
    all_there.wait()


def device_name(device: torch.device) -> str:
    """What a device calls itself: the model of a GPU, else its kind."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def num_threads() -> int:
    """Threads of PyTorch's CPU kernels: another number sums in another order."""
    return torch.get_num_threads()


def set_threads(num_threads: int) -> None:
    """Let PyTorch's CPU kernels use `num_threads`. Raises ConfigError below 1."""
    if num_threads < 1:
        raise ConfigError(f"threads must be at least 1, not {num_threads}")
    torch.set_num_threads(num_threads)


def seed_everything(seed: int) -> np.random.Generator:
    """Seed the global generators that libraries draw from; return one for our own draws.

    Raises ConfigError outside 0..2**32 - 1, the range that all of them accept.
    """
    if not 0 <= seed < 2**32:
        raise ConfigError(f"seed must lie in 0..{2**32 - 1}, not {seed}")
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - for libraries that still draw from the global state
    torch.manual_seed(seed)  # pyright: ignore[reportUnknownMemberType]
    return np.random.default_rng(seed)
