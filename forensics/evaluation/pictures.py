"""Faces that a data set delivers cut already: single crops, folders of them, folders in a tar."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
from numpy.typing import NDArray

from forensics.crops import cut, square_box
from forensics.datasets.adapters.archive import safe_members
from forensics.datasets.adapters.tree import is_picture
from forensics.datasets.manifest import Sample
from forensics.errors import MediaError
from forensics.structures import Track

_MOST_PIXELS = 8192 * 8192  # of one crop; refused before its pixels take memory


def face_track(path: Path, sample: Sample, *, frames: int, size: int) -> Track:
    """One person from at most `frames` pictures, evenly spaced, scaled to (size, size).

    Pictures are ordered by the numbers in their names and taken a second apart: their real times
    are not known. Raises MediaError where one cannot be read.
    """
    if sample.member:
        encoded = _from_archive(path, PurePosixPath(sample.member), frames)
    elif sample.kind == "sequence":
        names = [file for file in path.iterdir() if is_picture(file)] if path.is_dir() else []
        chosen = _evenly(sorted(names, key=lambda file: _order(file.name)), frames)
        encoded = [(file.name, file.read_bytes()) for file in chosen]
    else:
        encoded = [(path.name, path.read_bytes())]
    if not encoded:
        raise MediaError(f"{sample.place}: holds no picture", label="undecodable")
    pictures = [_decoded(data, name) for name, data in encoded]
    sides = [(picture.shape[1], picture.shape[0]) for picture in pictures]
    return Track(
        id=0,
        crops=np.stack([_square(picture, size) for picture in pictures]),
        times_s=np.arange(len(pictures), dtype=np.float64),
        boxes=np.array([(0, 0, *side) for side in sides], dtype=np.float32),
        frame_indices=np.arange(len(pictures), dtype=np.int64),
    )


def _evenly(values: Sequence[Path], count: int) -> list[Path]:
    places = np.linspace(0, len(values) - 1, min(count, len(values))).astype(int)
    return [values[place] for place in places.tolist()] if values else []


def _order(name: str) -> tuple[tuple[int, str], ...]:
    """Frame 10 behind frame 9, whatever the names are padded to."""
    parts = re.split(r"(\d+)", name)
    return tuple((int(part), "") if part.isdigit() else (-1, part) for part in parts)


def _from_archive(path: Path, member: PurePosixPath, frames: int) -> list[tuple[str, bytes]]:
    inside = [
        Path(name)
        for name in safe_members(path)
        if name.parent == member and is_picture(Path(name))
    ]
    chosen = _evenly(sorted(inside, key=lambda name: _order(name.name)), frames)
    wanted = {name.as_posix(): position for position, name in enumerate(chosen)}
    found: dict[int, tuple[str, bytes]] = {}
    # As a stream, front to back; nothing is written to the disk.
    with tarfile.open(path, "r|*") as archive:
        for entry in archive:
            position = wanted.get(PurePosixPath(entry.name).as_posix())
            file = archive.extractfile(entry) if position is not None else None
            if file is not None and position is not None:
                found[position] = entry.name, file.read()
    return [found[position] for position in sorted(found)]


def _decoded(data: bytes, name: str) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB."""
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    if picture is None or picture.shape[0] * picture.shape[1] > _MOST_PIXELS:
        raise MediaError(f"{name}: not a picture that can be read", label="undecodable")
    return np.ascontiguousarray(picture[:, :, ::-1], dtype=np.uint8)


def _square(picture: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """The middle square of a crop: crops of data sets are square or nearly so."""
    height, width = picture.shape[:2]
    side = min(height, width)
    box = np.array(
        [(width - side) / 2, (height - side) / 2, (width + side) / 2, (height + side) / 2],
        dtype=np.float32,
    )
    return cut(picture, square_box(box, 1.0, (0, 0, width, height)), size)
