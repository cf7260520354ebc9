"""What a report for people needs and a verdict does not: heat maps, credentials, the card."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from forensics.checkpoint import Checkpoint
from forensics.credentials import not_examined, read_credentials
from forensics.findings import Evidence, HeatMap
from forensics.preprocess import look, normalise, unlook
from forensics.report.moments import extremes
from forensics.saliency import heat_maps, method_of
from forensics.structures import Track, Verdict
from forensics.video import Cancellation

# People and faces of each with heat maps: what a reader can take in, and about a second of time.
_EXPLAINED_PEOPLE, _EXPLAINED_FACES = 6, 3
_AT_ONCE = 2  # faces: whoever cancels waits for no more


def gather(
    path: Path,
    verdict: Verdict,
    checkpoint: Checkpoint,
    device: torch.device,
    *,
    readable: bool,
    on_progress: Callable[[int, int], None],
    cancellation: Cancellation,
) -> Evidence:
    """The evidence for a verdict on the file at `path`; `readable` says whether there is one.

    The checkpoint's network is on `device`. `on_progress(done, total)` counts faces with heat maps.
    Whatever cannot be had is named inside, not raised; only what `on_progress` raises ends the
    work, and `cancellation`, with ScanCancelled.
    """
    heat, method = _heat_maps(verdict, checkpoint, device, on_progress)
    return Evidence(
        heat_maps=tuple(heat),
        heat_method=method,
        credentials=read_credentials(path, cancellation)
        if readable
        else not_examined("No file to look into."),
        card=asdict(checkpoint.card),
    )


def _heat_maps(
    verdict: Verdict,
    checkpoint: Checkpoint,
    device: torch.device,
    on_progress: Callable[[int, int], None],
) -> tuple[list[HeatMap], str]:
    """Heat over the crops of the most and least suspicious faces, and how it was made."""
    method = method_of(checkpoint.model)
    if method is None:
        return [], "This detector gives no gradients, so there are no heat maps."
    scores = [person.score for person in verdict.people[:_EXPLAINED_PEOPLE]]
    explained = [
        sorted(most + least)
        for most, least in (extremes(score, _EXPLAINED_FACES) for score in scores)
    ]
    heat: list[HeatMap] = []
    for score, places in zip(scores, explained, strict=True):
        for first in range(0, len(places), _AT_ONCE):
            on_progress(len(heat), sum(map(len, explained)))
            few = places[first : first + _AT_ONCE]
            try:
                maps = _heat(score.track, few, checkpoint, device)
            except RuntimeError as error:  # memory, mostly: gradients need several times a scan's
                reason = " ".join(str(error).split())[:200]
                return heat, f"Not all heat maps could be made: {reason}"
            heat += [
                HeatMap(person=score.track.id, place=place, heat=part)
                for place, part in zip(few, maps, strict=True)
            ]
    return heat, method


def _heat(
    track: Track, few: Sequence[int], checkpoint: Checkpoint, device: torch.device
) -> NDArray[np.float32]:
    """(len(few), C, C) over the crops of those faces: the heat of the views they were seen in."""
    preprocessing = checkpoint.card.preprocessing
    turns = [view.turns(len(track.times_s)) for view in preprocessing.looks]
    # A face that was no view's turn has its score from its neighbours in all of them.
    skipped = [not any(place in turn for turn in turns) for place in few]
    found: list[NDArray[np.float32]] = []
    for view, turn in zip(preprocessing.looks, turns, strict=True):
        seen = [n for n, place in enumerate(few) if place in turn or skipped[n]]
        maps = np.zeros((len(few), preprocessing.size, preprocessing.size), dtype=np.float32)
        if seen:
            pictures = look(track.crops[[few[n] for n in seen]], view, preprocessing)
            shown = normalise(pictures, preprocessing).to(device)
            maps[seen] = heat_maps(checkpoint.model, shown).numpy()
        found.append(maps)
    return unlook(found, preprocessing)
