"""From crops to network input: the views a detector takes of a face, and the only place that
normalises pixels. Every constant comes from a checkpoint's card.

Legend: B crops, C side of a crop, S side of what the network looks at, both in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from forensics.tiles import in_tiles, put_back

Pixel = TypeVar("Pixel", np.uint8, np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One look at a face: a square of `margin` times its longer side, and how much it counts.

    Upside down, or cut into `tiles` x `tiles` parts that change places, a network recognises
    nobody, only how the picture was made. With `every` above 1 only each such face of a track is
    looked at so, from number `start` (from 0) on, and those between get what their neighbours got:
    views that take turns cost no more than one of them. A still is looked at in every view.
    """

    margin: float
    weight: float
    upside_down: bool = False
    mirrored: bool = False
    tiles: int = 1
    every: int = 1
    start: int = 0

    def turns(self, faces: int) -> range:
        """Which of a track's `faces` (1 or more) it looks at: at least one."""
        return range(self.start % min(self.every, faces), faces, self.every)


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """How crops become network input. `mean` and `std` apply to values in 0..`scale`^-1 x 255,
    that is after multiplication with `scale`; `margin` is the crop's side over the face's.

    A face's logit is the weighted mean over its `views`; without any, the crop itself is the view.
    """

    size: int
    margin: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    colour_order: Literal["rgb", "bgr"] = "rgb"
    scale: float = 1 / 255
    views: tuple[View, ...] = ()

    def __post_init__(self) -> None:
        if self.size < 1 or self.margin <= 0 or min(self.std) <= 0 or self.scale <= 0:
            raise ValueError("size, margin, std and scale of a preprocessing are above 0")
        if not self.views:
            return
        if min(min(v.margin, v.weight, v.every, v.tiles) for v in self.views) <= 0:
            raise ValueError("margin, weight, every and tiles of a view are above 0")
        if any(not 0 <= view.start < view.every for view in self.views):
            raise ValueError("start of a view is from 0 to below its every")
        if max(view.tiles for view in self.views) > self.size:
            raise ValueError("tiles of a view are at least a pixel wide")
        if max(view.margin for view in self.views) != self.margin:
            raise ValueError("margin is that of the widest view")
        if abs(sum(view.weight for view in self.views) - 1) > 1e-6:
            raise ValueError("the weights of the views add up to 1")

    @property
    def looks(self) -> tuple[View, ...]:
        """The views, or the whole crop as the only one."""
        return self.views or (View(margin=self.margin, weight=1.0),)

    @property
    def crop_size(self) -> int:
        """Side C of the crops to keep: the tightest view is cut from them as it is."""
        tightest = min(view.margin for view in self.looks)
        return round(self.size * self.margin / tightest)


def look(crops: NDArray[np.uint8], view: View, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """(B, C, C, 3) uint8 -> what that view shows, (B, S, S, 3) uint8.

    Raises ValueError when the crops are not of the card's size.
    """
    side = preprocessing.crop_size
    if crops.ndim != 4 or crops.shape[1:] != (side, side, 3) or crops.dtype != np.uint8:
        raise ValueError(f"crops must be (B, {side}, {side}, 3) uint8, not {crops.shape}")
    if not preprocessing.views:
        return crops
    first, last = _span(view, preprocessing)
    stack = np.empty((len(crops), preprocessing.size, preprocessing.size, 3), dtype=np.uint8)
    for place, crop in zip(stack, crops, strict=True):
        shown = crop[first:last, first:last]
        if view.mirrored:
            shown = np.ascontiguousarray(shown[:, ::-1])
        place[:] = in_tiles(_resized(shown, preprocessing.size), view.tiles)
    return np.ascontiguousarray(stack[:, ::-1]) if view.upside_down else stack


def unlook(maps: list[NDArray[np.float32]], preprocessing: Preprocessing) -> NDArray[np.float32]:
    """What was found in each view (B, S, S), laid over the crops and added up: (B, C, C)."""
    side = preprocessing.crop_size
    if not preprocessing.views:
        return maps[0]
    total = np.zeros((len(maps[0]), side, side), dtype=np.float32)
    for view, found in zip(preprocessing.views, maps, strict=True):
        first, last = _span(view, preprocessing)
        upright = found[:, ::-1] if view.upside_down else found
        for place, part in zip(total, upright, strict=True):
            whole = _resized(put_back(part, view.tiles), last - first)
            if view.mirrored:
                whole = whole[:, ::-1]
            place[first:last, first:last] += view.weight * whole
    return total


def _span(view: View, preprocessing: Preprocessing) -> tuple[int, int]:
    """First and last but one pixel of a view, across and down, in the middle of a crop."""
    side = preprocessing.crop_size
    length = round(side * view.margin / preprocessing.margin)
    first = (side - length) // 2
    return first, first + length


def _resized(picture: NDArray[Pixel], size: int) -> NDArray[Pixel]:
    if picture.shape[0] == size:
        return picture
    method = cv2.INTER_AREA if picture.shape[0] > size else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(picture, (size, size), interpolation=method), dtype=picture.dtype)


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
