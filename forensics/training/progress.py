"""What a run tells while it goes on, and at its end."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """After a step (counted from 1) of `total`: images per second over all processes, and the share
    of the time in which the loader had nothing ready, since the last row of metrics.csv."""

    step: int
    total: int
    epoch: int
    loss: float
    images_per_s: float
    waiting: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Validated:
    """After a validation of `videos` videos; `best` says that this is the checkpoint to keep."""

    step: int
    auc: float
    loss: float
    videos: int
    best: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a run ended: at `step` of `total`, its best AUC (of step `best_step`; 0: none yet) in
    `checkpoint`, and how many crops could not be read."""

    step: int
    total: int
    best_auc: float
    best_step: int
    checkpoint: Path
    unreadable: int


OnAutoencoders = Callable[[int, int], None]  # steps done, of how many
OnStep = Callable[[Progress], None]
OnValidation = Callable[[Validated], None]


class Pace:
    """Images per second and the share of time spent waiting for them, since `start`."""

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        self._began, self._images, self._waited = time.perf_counter(), 0, 0.0

    def add(self, images: int, waited: float) -> None:
        self._images += images
        self._waited += waited

    def images_per_s(self) -> float:
        return self._images / (time.perf_counter() - self._began)

    def waiting(self) -> float:
        return self._waited / (time.perf_counter() - self._began)
