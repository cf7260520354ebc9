"""Tracks -> scores: crops of all tracks in batches through the network, calibrated once, here.

Legend: B crops of one batch, C their side in pixels, S that of a view, T faces of a track, V views.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import accumulate

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import stdtrit
from torch import Tensor

from forensics import calibration
from forensics.card import Card
from forensics.checkpoint import Checkpoint
from forensics.errors import CheckpointError
from forensics.preprocess import View, look, normalise
from forensics.runtime import Workers, autocast_dtype
from forensics.structures import Track, TrackScore

# Faces per forward pass where nobody asks for a number: four of 224 px stay in a core's cache.
_CPU_FACES, _GPU_FACES = 4, 32


def _mean(logits: NDArray[np.float64]) -> float:
    return float(logits.mean())


# (T,) logits -> the track's score; the keys are those of a card's `aggregation`.
AGGREGATIONS: dict[str, Callable[[NDArray[np.float64]], float]] = {"mean": _mean}


def score_tracks(
    tracks: Sequence[Track],
    checkpoint: Checkpoint,
    *,
    batch_size: int | None,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    workers: Workers | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[TrackScore]:
    """Score every face of every track; one TrackScore per track, in the order given.

    Crops must have been cut as the checkpoint's card says (ValueError otherwise); its model must be
    on `device`. `batch_size` as for `faces_per_pass`. `dtype` other than float32 runs under
    autocast. `workers` take a batch each; the numbers are the same without. `on_progress` gets
    (looks taken, looks in all) after each batch: one for each face and view.
    Raises CheckpointError when the network answers with a value that is not finite.
    """
    together = faces_per_pass(batch_size, device)
    views = checkpoint.card.preprocessing.looks
    # Batches run across tracks: ten people seen twice cost one pass, not ten.
    places = [(track, t) for track in tracks for t in range(len(track.times_s))]
    ends = list(accumulate(len(track.times_s) for track in tracks))
    passes: list[tuple[int, list[int]]] = []  # number of the view, places of the faces
    for number, view in enumerate(views):
        seen = [
            start + t
            for start, track in zip([0, *ends], tracks, strict=False)
            for t in view.turns(len(track.times_s))
        ]
        starts = range(0, len(seen), together)
        passes += [(number, seen[start : start + together]) for start in starts]

    def forward(one: tuple[int, list[int]]) -> NDArray[np.float64]:
        number, faces = one
        crops = np.stack([places[i][0].crops[places[i][1]] for i in faces])
        return _forward(crops, views[number], checkpoint, device, dtype)

    answers = map(forward, passes) if workers is None else workers.map(forward, passes)
    logits = np.full((len(views), len(places)), np.nan)
    done, total = 0, sum(len(faces) for _, faces in passes)
    for (number, faces), answer in zip(passes, answers, strict=True):
        logits[number, faces] = answer
        done += len(faces)
        if not np.all(np.isfinite(answer)):
            raise CheckpointError(f"{checkpoint.path}: the network gave a value that is not finite")
        if on_progress is not None:
            on_progress(done, total)
    parts = np.split(logits, ends[:-1], axis=1) if len(tracks) else []
    return [
        _score(track, _together(part, views), checkpoint)
        for track, part in zip(tracks, parts, strict=True)
    ]


def precision(card: Card, device: torch.device) -> torch.dtype:
    """bfloat16 where the device is faster with it and the detector was seen to bear it."""
    return autocast_dtype(device) if card.bfloat16 else torch.float32


def faces_per_pass(batch_size: int | None, device: torch.device) -> int:
    """`batch_size`, or what suits the device where it is None. Raises ValueError below 1."""
    if batch_size is None:
        return _CPU_FACES if device.type == "cpu" else _GPU_FACES
    if batch_size < 1:
        raise ValueError("batch_size must be at least 1")
    return batch_size


def _forward(
    crops: NDArray[np.uint8],
    view: View,
    checkpoint: Checkpoint,
    device: torch.device,
    dtype: torch.dtype,
) -> NDArray[np.float64]:
    """(B, C, C, 3) uint8 -> (B,) float64 logits of what the view shows."""
    preprocessing = checkpoint.card.preprocessing
    x = normalise(look(crops, view, preprocessing), preprocessing).to(device)  # (B, 3, S, S)
    with (
        torch.inference_mode(),
        torch.autocast(device.type, dtype, enabled=dtype != torch.float32),
    ):
        logits: Tensor = checkpoint.model(x)  # (B,)
    return logits.to("cpu", torch.float64).numpy()


def _together(logits: NDArray[np.float64], views: Sequence[View]) -> NDArray[np.float64]:
    """(V, T) logits, NaN where a view was not taken -> (T,) weighted means over the views."""
    faces = np.arange(logits.shape[1], dtype=np.float64)
    total = np.zeros(logits.shape[1], dtype=np.float64)
    for number, view in enumerate(views):
        turns = view.turns(len(faces))
        total += view.weight * np.interp(faces, turns, logits[number, turns])
    return total


def _score(track: Track, logits: NDArray[np.float64], checkpoint: Checkpoint) -> TrackScore:
    card = checkpoint.card
    score = AGGREGATIONS[card.aggregation](logits)
    return TrackScore(
        track=track,
        logits=logits,
        frame_probabilities=calibration.apply(card.calibration, logits),
        score=score,
        probability=float(calibration.apply(card.calibration, score)),
        interval=_interval(logits, card.calibration),
    )


def _interval(
    logits: NDArray[np.float64], given: calibration.Calibration
) -> tuple[float, float] | None:
    """95% interval of a track's probability by Student's t over its frames' logits, calibrated.

    It says how much the answer hangs on which frames were looked at, and is too narrow where
    neighbouring frames resemble each other; how wrong the detector can be stands in its card.
    """
    t = len(logits)
    if t < 2:
        return None
    reach = float(stdtrit(t - 1, 0.975)) * float(logits.std(ddof=1)) / math.sqrt(t)
    centre = float(logits.mean())
    low, high = calibration.apply(given, [centre - reach, centre + reach]).tolist()
    return low, high
