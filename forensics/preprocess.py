"""The only place that normalises pixels. Every constant comes from a checkpoint's card."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """How crops become network input. `mean` and `std` apply to values in 0..`scale`^-1 x 255,
    that is after multiplication with `scale`; `margin` is the crop's side over the face's."""

    size: int
    margin: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    colour_order: Literal["rgb", "bgr"] = "rgb"
    scale: float = 1 / 255

    def __post_init__(self) -> None:
        if self.size < 1 or self.margin <= 0 or min(self.std) <= 0 or self.scale <= 0:
            raise ValueError("size, margin, std and scale of a preprocessing are above 0")


def normalise(crops: NDArray[np.uint8], preprocessing: Preprocessing) -> Tensor:
    """(B, S, S, 3) uint8 RGB crops -> (B, 3, S, S) float32, channels-last in memory.

    Raises ValueError when the crops are not of the card's size.
    """
    size = preprocessing.size
    if crops.ndim != 4 or crops.shape[1:] != (size, size, 3) or crops.dtype != np.uint8:
        raise ValueError(f"crops must be (B, {size}, {size}, 3) uint8, not {crops.shape}")
    tensor = torch.from_numpy(crops)  # pyright: ignore[reportUnknownMemberType]
    return normalise_tensor(tensor, preprocessing)


def normalise_tensor(crops: Tensor, preprocessing: Preprocessing) -> Tensor:
    """The same for a uint8 tensor (B, S, S, 3), on its own device."""
    if preprocessing.colour_order == "bgr":
        crops = crops.flip(3)
    x = crops.permute(0, 3, 1, 2).float()  # (B, 3, S, S)
    mean = torch.tensor(preprocessing.mean, device=x.device).view(1, 3, 1, 1)
    std = torch.tensor(preprocessing.std, device=x.device).view(1, 3, 1, 1)
    return (x * preprocessing.scale - mean) / std
