"""A picture cut into tiles that change places: who is in it is lost, how it was made is not."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Value = TypeVar("Value", np.uint8, np.float32, np.int64)


def shuffled(image: NDArray[Value], grid: int, rng: np.random.Generator) -> NDArray[Value]:
    """The picture (S, S, ...) cut into `grid` x `grid` tiles, in another order, some mirrored.

    Pixels that fill no whole tile, at the right and the bottom, stay.
    """
    side = image.shape[0] // grid
    places = [(y * side, x * side) for y in range(grid) for x in range(grid)]
    result = np.array(image)
    order: list[int] = rng.permutation(len(places)).tolist()
    for (y, x), origin in zip(places, order, strict=True):
        top, left = places[origin]
        tile = image[top : top + side, left : left + side]
        result[y : y + side, x : x + side] = tile[:, ::-1] if rng.random() < 0.5 else tile
    return result


def in_tiles(image: NDArray[Value], grid: int) -> NDArray[Value]:
    """`shuffled`, the same way every time; one tile stays as it is."""
    return image if grid == 1 else shuffled(image, grid, np.random.default_rng(0))


def put_back(found: NDArray[np.float32], grid: int) -> NDArray[np.float32]:
    """A map (S, S) over a picture that went through `in_tiles`, laid over the picture before."""
    places: NDArray[np.int64] = np.arange(found.size, dtype=np.int64)
    moved = in_tiles(np.reshape(places, found.shape), grid)
    result = np.empty(found.size, dtype=np.float32)
    result[np.ravel(moved)] = np.ravel(found)
    return np.reshape(result, found.shape)
