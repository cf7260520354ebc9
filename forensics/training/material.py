"""What a run is shown: the crops to learn from and to be judged by, as batches of one process."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Subset

from forensics.datasets.shards import CropStore
from forensics.datasets.store_leaks import check_store_no_leak
from forensics.errors import ManifestError, TrainingError
from forensics.training.card import crops_sha256
from forensics.training.config import TrainConfig
from forensics.training.originals import NONE, find_originals
from forensics.training.rows import rows_of
from forensics.training.sampler import Batches, Codes, Sampler, divided
from forensics.training.samples import (
    TRIES,
    UNREADABLE,
    Batch,
    TrainingCrops,
    ValidationCrops,
    collate,
    start_worker,
)
from forensics.training.validation import validation_rows

_AHEAD = 4  # batches each loader process prepares


class Material:
    """The crops of a store as a run uses them; `rank` of `world` processes. `autoencoders`: the
    folder with what fakes are drawn again by, where they are to be.

    Raises ManifestError for a split or class without crops and for splits that share a person or a
    recording, ConfigError for a batch that the processes cannot share and for a data set to be left
    out that is not there.
    """

    def __init__(
        self,
        store: CropStore,
        config: TrainConfig,
        *,
        rank: int,
        world: int,
        autoencoders: Path | None = None,
    ) -> None:
        self.store, self._config, self._rank, self._world = store, config, rank, world
        # Whoever is known from training is found in validation by the face, not by the forgery.
        check_store_no_leak(store)
        table = store.rows
        # Bystanders in a fake are real, and nothing says which of them are.
        rows = rows_of(store, "train", config.data.leave_out)
        rows = rows[table.main[rows]]
        if not len(rows):
            raise ManifestError(
                "no crop is in the split `train`; divide the manifest into splits and extract again"
            )
        data = config.data
        blended_pairs, matched_pairs = divided(data.batch, data.self_blended, data.matched, world)
        originals = np.full(len(rows), NONE)
        if matched_pairs or data.shuffled:
            originals = find_originals(store, rows)
        columns: dict[str, Codes] = {
            key: getattr(table, "label" if key == "class" else key)[rows] for key in data.balance
        }
        self._sampler = Sampler(
            rows,
            table.label[rows],
            columns,
            table.video[rows],
            batch=data.batch,
            seed=config.seed,
            power=data.balance_power,
            blended=blended_pairs,
            matched=matched_pairs,
            # A landmark that is not known is NaN, and then all of them are.
            blendable=~np.isnan(table.landmarks[rows, 0, 0]) if blended_pairs else None,
            matchable=originals != NONE if matched_pairs else None,
            single=may_stand_alone(store, rows, data.one_sided),
        )
        self._crops = TrainingCrops(
            store,
            rows,
            originals,
            data,
            seed=config.seed,
            autoencoders=autoencoders,
            bf16=config.precision == "bf16",
        )
        self.batch_images = data.batch // world
        self.epoch_steps = max(1, self._sampler.steps // config.accumulate)
        self.total_steps = config.steps or config.epochs * self.epoch_steps
        judged = rows_of(store, "val", data.leave_out)
        blended = data.self_blended == 1 and not (table.label[judged] == 1).any()
        chosen = validation_rows(store, judged, config.validation.frames, blended=blended)
        self._validation = ValidationCrops(store, chosen, data, blended=blended)
        self.validation_videos = np.unique(table.video[chosen], return_inverse=True)[1]
        self.sha256 = crops_sha256(store)

    def batches(self, step: int) -> Generator[Batch]:
        """This process's part of every batch from `step` to the end of the run; close it early."""
        accumulate = self._config.accumulate
        return self._loaded(
            self._crops,
            batch_sampler=Batches(
                self._sampler,
                start=step * accumulate,
                end=self.total_steps * accumulate,
                rank=self._rank,
                world=self._world,
            ),
        )

    def read_real(self, rng: np.random.Generator) -> NDArray[np.uint8]:
        """A crop (H, W, 3) that a self-blended fake could be made of, drawn as those are. Raises
        TrainingError where ten in a row cannot be read."""
        reason = ""
        for _ in range(TRIES):
            row = self._sampler.real(rng)
            try:
                return self.store.read(row)[0]
            except UNREADABLE as error:
                reason = f"{self.place_of(row)}: {error}"
        raise TrainingError(
            f"ten crops in a row cannot be read, the last: {reason}; make them readable, then go "
            "on with --resume"
        )

    def validation(self) -> Generator[Batch]:
        """This process's part of the validation crops; `Batch.places` count through all of them."""
        mine = Subset(self._validation, range(self._rank, len(self._validation), self._world))
        return self._loaded(mine, batch_size=self._config.validation.batch)

    def _loaded(self, crops: Any, **batching: Any) -> Generator[Batch]:
        workers = self._config.data.workers
        loader: DataLoader[Any] = DataLoader(
            crops,
            collate_fn=collate,
            num_workers=workers,
            prefetch_factor=_AHEAD if workers else None,
            worker_init_fn=start_worker,
            pin_memory=torch.cuda.is_available() and self._config.device != "cpu",
            **batching,
        )
        stream: Any = iter(loader)
        try:
            yield from stream
        finally:
            if workers:
                # Which a busy machine may keep from ending within the five seconds it gives them;
                # the signal it then asks with is one that `start_worker` lets them ignore, and
                # Python would wait for them at its exit, for ever.
                stream._shutdown_workers()
                for process in stream._workers:
                    process.kill()

    def place_of(self, row: int) -> str:
        """A crop in words: its number, its video and the time in it."""
        table = self.store.rows
        video = self.store.names["video"][int(table.video[row])]
        return f"crop {row} of {video} at {float(table.time_s[row]):.2f} s"


def may_stand_alone(store: CropStore, rows: Codes, one_sided: str) -> NDArray[np.bool_] | None:
    """(N,) which of `rows` may be single images; None: all."""
    if one_sided == "all":
        return None
    datasets, fake = store.rows.dataset[rows], store.rows.label[rows] == 1
    alone = np.isin(datasets, np.intersect1d(datasets[fake], datasets[~fake]))
    if one_sided == "videos":
        names = store.names["kind"]
        alone |= np.array([name == "video" for name in names])[store.rows.kind[rows]]
    return alone
