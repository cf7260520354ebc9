"""Crops as the network is shown them: read, blended, augmented, cut to size, put into batches.

What an image looks like follows from (seed, epoch, place in the epoch) alone, in whichever loader
process it is made. Nothing is kept: memory does not grow with the data set.

Legend: B images, S side of the network's input in pixels.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from forensics.datasets.augment import Augmentation, Image, face_cut
from forensics.datasets.reconstruction import Autoencoders, read_autoencoders, reconstruct
from forensics.datasets.self_blend import self_blend
from forensics.datasets.shards import CropStore
from forensics.errors import ForensicsError
from forensics.tiles import shuffled
from forensics.training.config import DataConfig
from forensics.training.losses import NO_PAIR
from forensics.training.sampler import Draw, Kind

Failure = tuple[int, str]  # row of the store, why it cannot be read

_TILES = (3, 7)  # a side of a shuffled picture: 3 to 6
TRIES = 10  # crops drawn in place of one that cannot be read
UNREADABLE = (ForensicsError, OSError, ValueError, cv2.error)


class Shown(NamedTuple):
    """One draw: one image, or a real and its fake; (K, S, S, 3) uint8 RGB, (K,) labels."""

    place: int
    images: Image
    labels: tuple[int, ...]
    failures: tuple[Failure, ...]


class Batch(NamedTuple):
    """`images` (B, S, S, 3) uint8 RGB, `labels` (B,) int64, `places` (B,) int64 of the draws they
    come from, `pairs` (B,) int64: the pair an image belongs to or NO_PAIR; `failures`: crops that
    could not be read."""

    images: Tensor
    labels: Tensor
    places: Tensor
    pairs: Tensor
    failures: tuple[Failure, ...]


class TrainingCrops(Dataset[Shown]):
    """Draw -> what is shown for it. A crop that cannot be read is replaced by another of its class,
    and told; when ten in a row fail, `images` is empty and the trainer stops."""

    def __init__(
        self,
        store: CropStore,
        rows: NDArray[np.int64],
        originals: NDArray[np.int64],
        config: DataConfig,
        *,
        seed: int,
        autoencoders: Path | None = None,
        bf16: bool = False,
    ) -> None:
        """`originals` (N,) are those of `rows` (N,), in whose order they must be rising;
        `autoencoders` the folder they are read from when the first fake is to be drawn again, in
        bfloat16 arithmetic or not."""
        self._store, self._rows, self._config, self._seed = store, rows, config, seed
        self._originals = originals
        self._folder, self._bf16 = autoencoders, bf16
        self._autoencoders: Autoencoders | None = None  # read in the process that uses them
        self._augment = Augmentation(
            config.size,
            margin=config.margin,
            factors=config.margins,
            apart=config.apart,
            degraded=config.degraded,
            tilt=config.tilt,
        )

    def __getitem__(self, draw: Draw) -> Shown:
        rng = np.random.default_rng((self._seed, draw.epoch, draw.place, 1))
        failures: list[Failure] = []
        row = draw.row
        for _ in range(TRIES):
            try:
                images, labels = self._show(row, draw.kind, rng)
                return Shown(draw.place, np.stack(images), labels, tuple(failures))
            except UNREADABLE as error:
                failures.append((row, _one_line(error)))
                row = self._another(draw, rng)
        return Shown(draw.place, np.empty(0, np.uint8), (), tuple(failures))

    def _another(self, draw: Draw, rng: np.random.Generator) -> int:
        """A row of the same class, for a matched pair one with an original. Found by trying: a list
        of each class would be one more copy."""
        labels = self._store.rows.label
        while True:
            place = int(rng.integers(len(self._rows)))
            other = int(self._rows[place])
            if labels[other] == labels[draw.row] and (
                draw.kind != "matched" or self._originals[place] >= 0
            ):
                return other

    def _show(
        self, row: int, kind: Kind, rng: np.random.Generator
    ) -> tuple[list[Image], tuple[int, ...]]:
        crop, facts = self._store.read(row)
        images, boxes, labels = [crop], [facts.box_xyxy], (facts.label,)
        original = int(self._originals[np.searchsorted(self._rows, row)])
        if kind == "blended":
            images, boxes, labels = self._pair(crop, facts.landmarks, rng), boxes * 2, (0, 1)
        elif kind == "matched":
            real, known = self._store.read(original)
            images, boxes, labels = [real, crop], [known.box_xyxy, *boxes], (0, 1)
        if not self._config.augment:
            shown = zip(images, boxes, strict=True)
            return [_plain(image, box, self._config) for image, box in shown], labels
        shown = self._augment(images, boxes, rng)
        share = self._config.shuffled
        alone = facts.label == 1 and original < 0 and share > 0
        if kind == "single" and (alone or (facts.label == 0 and rng.random() < share)):
            grid = int(rng.integers(*_TILES))
            shown = [shuffled(image, grid, rng) for image in shown]
        return shown, labels

    def _pair(
        self, crop: Image, landmarks: NDArray[np.float32], rng: np.random.Generator
    ) -> list[Image]:
        """A real and a fake made of it."""
        share = self._config.reconstructed
        if not share or rng.random() >= share:
            return list(self_blend(crop, landmarks, rng))
        if self._autoencoders is None:
            if self._folder is None:
                raise ValueError("data.reconstructed needs autoencoders")
            self._autoencoders = read_autoencoders(self._folder, bf16=self._bf16)
        return list(reconstruct(crop, landmarks, self._autoencoders, rng))


class ValidationCrops(Dataset[Shown]):
    """Place in `rows` -> the crop as a scan would cut it; without images where it is unreadable.

    With `blended` each real comes with a self-blended fake, the same one every time.
    """

    def __init__(
        self, store: CropStore, rows: NDArray[np.int64], config: DataConfig, *, blended: bool
    ) -> None:
        self._store, self._rows, self._config, self._blended = store, rows, config, blended

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, place: int) -> Shown:
        row = int(self._rows[place])
        try:
            crop, facts = self._store.read(row)
            images, labels = [crop], (facts.label,)
            if self._blended:
                rng = np.random.default_rng((0, row))
                images, labels = list(self_blend(crop, facts.landmarks, rng)), (0, 1)
            shown = [_plain(image, facts.box_xyxy, self._config) for image in images]
            return Shown(place, np.stack(shown), labels, ())
        except UNREADABLE as error:
            return Shown(place, np.empty(0, np.uint8), (), ((row, _one_line(error)),))


def _plain(crop: Image, box_xyxy: NDArray[np.float32], config: DataConfig) -> Image:
    return face_cut(crop, box_xyxy, config.margin, config.size)


def collate(shown: Sequence[Shown]) -> Batch:
    """Draws -> one batch, in their order. Draws without images leave only their failures."""
    labels = [label for one in shown for label in one.labels]
    pairs = [
        number if len(one.labels) > 1 else NO_PAIR
        for number, one in enumerate(shown)
        for _ in one.labels
    ]
    images = [one.images for one in shown if one.labels]
    return Batch(
        images=torch.from_numpy(  # pyright: ignore[reportUnknownMemberType]
            np.concatenate(images) if images else np.empty((0, 1, 1, 3), np.uint8)
        ),
        labels=torch.tensor(labels, dtype=torch.int64),
        places=torch.tensor([o.place for o in shown for _ in o.labels], dtype=torch.int64),
        pairs=torch.tensor(pairs, dtype=torch.int64),
        failures=tuple(failure for one in shown for failure in one.failures),
    )


def start_worker(_worker: int) -> None:
    """Of a loader process: one thread, as there are as many processes as cores are wanted. What
    asks a whole group of processes to end is for the trainer to answer: it ends its loaders."""
    cv2.setNumThreads(0)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
