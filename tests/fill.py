"""Weights and inputs that any machine makes alike, for comparing a network with its reference."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor


def fill(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A value for every entry, drawn from the checksum of its name; scaled by what it is."""
    filled: dict[str, Tensor] = {}
    for name, tensor in state.items():
        shape = tuple(tensor.shape)
        z = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
        last = name.rpartition(".")[2]
        if last == "num_batches_tracked":
            value = np.zeros(shape)
        elif last == "running_mean":
            value = 0.1 * z
        elif last == "running_var":
            value = 1 + 0.2 * np.abs(z)
        elif last == "bias":
            value = 0.05 * z
        elif last == "weight" and len(shape) == 1:
            value = 1 + 0.1 * z
        elif last == "weight":
            value = 1.4 * z / np.sqrt(np.prod(shape[1:]))
        else:
            value = 0.2 * z
        filled[name] = torch.from_numpy(np.asarray(value, np.float32)).to(tensor.dtype)
    return filled


def golden_input(size: int, batch: int = 2) -> Tensor:
    """(2, 3, size, size) float32, or its first `batch` images."""
    pixels = np.random.RandomState(0).standard_normal((2, 3, size, size))
    return torch.from_numpy(pixels.astype(np.float32))[:batch]
