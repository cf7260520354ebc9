"""What a report for people needs and a verdict does not: heat maps, credentials, the card."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch

from forensics.checkpoint import Checkpoint
from forensics.credentials import not_examined, read_credentials
from forensics.findings import Evidence, HeatMap
from forensics.preprocess import look, normalise, unlook
from forensics.report.moments import extremes
from forensics.saliency import heat_maps, method_of
from forensics.structures import Verdict
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
    model, preprocessing = checkpoint.model, checkpoint.card.preprocessing
    method = method_of(model)
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
                shown = (
                    look(score.track.crops[few], view, preprocessing)
                    for view in preprocessing.looks
                )
                found = [
                    heat_maps(model, normalise(pictures, preprocessing).to(device)).numpy()
                    for pictures in shown
                ]
            except RuntimeError as error:  # memory, mostly: gradients need several times a scan's
                reason = " ".join(str(error).split())[:200]
                return heat, f"Not all heat maps could be made: {reason}"
            heat += [
                HeatMap(person=score.track.id, place=place, heat=part)
                for place, part in zip(few, unlook(found, preprocessing), strict=True)
            ]
    return heat, method
