"""Crops as the network is shown them: read, blended, augmented, cut to size, put into batches.

What an image looks like follows from (seed, epoch, place in the epoch) alone, in whichever loader
process it is made. Nothing is kept: memory does not grow with the data set.

Legend: B images, S side of the network's input in pixels.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from forensics.crops import cut, square_box
from forensics.datasets.augment import pipeline, recoded
from forensics.datasets.self_blend import self_blend
from forensics.datasets.shards import CropFacts, CropStore
from forensics.errors import ForensicsError
from forensics.training.config import DataConfig
from forensics.training.losses import NO_PAIR
from forensics.training.sampler import Draw

Image = NDArray[np.uint8]
Failure = tuple[int, str]  # row of the store, why it cannot be read

_TRIES = 10  # crops drawn in place of one that cannot be read
# Around the margin and the place that scanning uses: faces are not found to the pixel.
_MARGINS, _SHIFT = (0.85, 1.19), 0.06
_UNREADABLE = (ForensicsError, OSError, ValueError, cv2.error)


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
        self, store: CropStore, rows: NDArray[np.int64], config: DataConfig, *, seed: int
    ) -> None:
        self._store, self._rows, self._config, self._seed = store, rows, config, seed
        self._pipeline: Any = None  # made in the process that uses it: it does not pickle well

    def __getitem__(self, draw: Draw) -> Shown:
        rng = np.random.default_rng((self._seed, draw.epoch, draw.place, 1))
        failures: list[Failure] = []
        row = draw.row
        for _ in range(_TRIES):
            try:
                crop, facts = self._store.read(row)
                images, labels = self._show(crop, facts, draw.pair, rng)
                return Shown(draw.place, np.stack(images), labels, tuple(failures))
            except _UNREADABLE as error:
                failures.append((row, _one_line(error)))
                row = self._another(draw.row, rng)
        return Shown(draw.place, np.empty(0, np.uint8), (), tuple(failures))

    def _another(self, row: int, rng: np.random.Generator) -> int:
        """A row of the same class. Found by trying: a list of each class would be one more copy."""
        labels = self._store.rows.label
        while True:
            other = int(self._rows[int(rng.integers(len(self._rows)))])
            if labels[other] == labels[row]:
                return other

    def _show(
        self, crop: Image, facts: CropFacts, pair: bool, rng: np.random.Generator
    ) -> tuple[list[Image], tuple[int, ...]]:
        if pair:
            images, labels = list(self_blend(crop, facts.landmarks, rng)), (0, 1)
        else:
            images, labels = [crop], (facts.label,)
        config = self._config
        if not config.augment:
            return [face(i, facts.box_xyxy, config.margin, config.size) for i in images], labels
        side = float(np.max(facts.box_xyxy[2:] - facts.box_xyxy[:2]))
        shift = np.tile(rng.uniform(-_SHIFT, _SHIFT, 2) * side, 2).astype(np.float32)
        margin = config.margin * rng.uniform(*_MARGINS)
        images = [face(i, facts.box_xyxy + shift, margin, config.size) for i in images]
        first, second = recoded((images[0], images[-1]), rng)
        if self._pipeline is None:
            self._pipeline = pipeline(0)
        self._pipeline.set_random_seed(int(rng.integers(2**31)))
        if not pair:
            return [self._pipeline(image=first)["image"]], labels
        made = self._pipeline(image=first, other=second)
        return [made["image"], made["other"]], labels


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
        config = self._config
        try:
            crop, facts = self._store.read(row)
            images, labels = [crop], (facts.label,)
            if self._blended:
                rng = np.random.default_rng((0, row))
                images, labels = list(self_blend(crop, facts.landmarks, rng)), (0, 1)
            shown = [face(i, facts.box_xyxy, config.margin, config.size) for i in images]
            return Shown(place, np.stack(shown), labels, ())
        except _UNREADABLE as error:
            return Shown(place, np.empty(0, np.uint8), (), ((row, _one_line(error)),))


def face(crop: Image, box: NDArray[np.float32], margin: float, size: int) -> Image:
    """The square around a face of a wide crop, as `crops` cuts it from a frame: (S, S, 3)."""
    height, width = crop.shape[:2]
    return cut(crop, square_box(box, margin, (0, 0, width, height)), size)


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
    """Of a loader process: one thread, as there are as many processes as cores are wanted; and
    Ctrl-C, which reaches them too, is for the trainer to answer."""
    cv2.setNumThreads(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
