"""From frames and the faces found in them to cut faces: what scanning and extraction share; pure.

Frames are taken in batches of bounded memory; of each, the faces' crops are kept and the pixels
dropped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from forensics.crops import cut, picture_area, square_box
from forensics.structures import Face, Frame, Observation

# Full-resolution frames held at once: five of 4K, sixteen of 1080p.
_BATCH_BYTES = 128 * 2**20


def batches(frames: Iterator[Frame], most: int) -> Iterator[list[Frame]]:
    """At most `most` frames and about 128 MB at once: 16 frames of 4K would be 400 MB.

    A batch is emptied when the next one is asked for, so that never two are held.
    """
    batch: list[Frame] = []
    while True:
        frame = next(frames, None)
        if frame is not None:
            batch.append(frame)
        size = sum(member.pixels.nbytes for member in batch)
        full = len(batch) >= most or size + size // max(len(batch), 1) > _BATCH_BYTES
        if batch and (full or frame is None):
            yield batch
            batch.clear()
        if frame is None:
            return


def observe(
    batch: Sequence[Frame], faces: Sequence[Sequence[Face]], *, margin: float, size: int
) -> list[Observation]:
    """Every face of every frame cut out: a square of `margin` x its longer side, `size` px."""
    observations: list[Observation] = []
    for frame, found in zip(batch, faces, strict=True):
        area = picture_area(frame.pixels) if found else (0, 0, 0, 0)
        for face in found:
            crop = cut(frame.pixels, square_box(face.xyxy, margin, area), size)
            observations.append(
                Observation(frame_index=frame.index, time_s=frame.time_s, face=face, crop=crop)
            )
    return observations
