"""Crops in the order of their shards, for disks on which reading here and there is slow.

For balanced sampling, and for anything that asks for a certain crop, there is `CropStore`.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import IterableDataset, get_worker_info

from forensics.datasets.shards import CropStore, decode
from forensics.errors import ManifestError

Crop = tuple[NDArray[np.uint8], dict[str, Any]]


class CropStream(IterableDataset[Crop]):
    """(H, W, 3) uint8 RGB and what its JSON in the shard says, each crop once per epoch.

    Shards are shuffled and divided among ranks and loader workers, crops within a buffer of
    `buffer` encoded pictures (about 25 KB each), so memory does not grow with the data. The order
    follows from seed, epoch, rank, world and the number of workers alone. Ranks may get different
    numbers of crops. Raises ManifestError for a damaged shard.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        seed: int,
        split: str | None = None,
        buffer: int = 2048,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        store = CropStore.open(folder)
        self._shards = [Path(folder) / "shards" / name for name in store.names["shard"]]
        self._seed, self._split, self._buffer = seed, split, max(1, buffer)
        self._rank, self._world = rank, world
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Another order for each epoch; call it before the loader starts its workers."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[Crop]:
        worker = get_worker_info()
        number, count = (0, 1) if worker is None else (worker.id, worker.num_workers)
        order = np.random.default_rng((self._seed, self._epoch)).permutation(len(self._shards))
        # Ranks first: they must not differ by more than a shard, whatever their workers do.
        place = number * self._world + self._rank
        mine = [self._shards[int(i)] for i in order[place :: self._world * count]]
        rng = np.random.default_rng((self._seed, self._epoch, place))
        for shard, encoded, told in self._shuffled(mine, rng):
            pixels = decode(encoded)
            if pixels is None:
                raise ManifestError(f"{shard}: row {told['row']} is damaged; extract it again")
            yield pixels, told

    def _shuffled(
        self, shards: list[Path], rng: np.random.Generator
    ) -> Iterator[tuple[Path, bytes, dict[str, Any]]]:
        held: list[tuple[Path, bytes, dict[str, Any]]] = []
        for shard in shards:
            for encoded, told in _read_shard(shard):
                if self._split is not None and told["split"] != self._split:
                    continue
                held.append((shard, encoded, told))
                if len(held) >= self._buffer:
                    yield _taken(held, rng)
        while held:
            yield _taken(held, rng)


def _taken(held: list[Any], rng: np.random.Generator) -> Any:
    i = int(rng.integers(len(held)))
    held[i], held[-1] = held[-1], held[i]
    return held.pop()


def _read_shard(shard: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    iterators: Any = importlib.import_module("webdataset.tariterators")  # it has no types
    try:
        with shard.open("rb") as file:
            source = [{"url": str(shard), "stream": file}]
            for sample in iterators.group_by_keys(iterators.tar_file_expander(source)):
                told = cast("dict[str, Any]", json.loads(sample["json"]))
                yield sample["jpg"] if "jpg" in sample else sample["png"], told
    except (OSError, KeyError, ValueError, iterators.tarfile.TarError) as error:
        raise ManifestError(f"{shard}: damaged ({error}); extract it again") from error
