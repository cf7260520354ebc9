"""Crops in shards, read in any order: one seek and one read each.

A folder of crops, as `deepfake extract` leaves it:

extraction.json     what was asked: frames, margin, size, format, and the manifest's hash
shards/*.tar        WebDataset: KEY.jpg (or .png) and KEY.json per crop
index/*.jsonl       one line per row of the manifest: its crops and their places, or why none
columns/            the same as columns of numbers, mapped into memory and not loaded: `CropStore`
skipped.csv         the rows without crops and the reason

Legend: N crops.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from forensics.errors import ManifestError

COLUMNS_FOLDER, NAMES_FILE, SETTINGS_FILE = "columns", "names.json", "extraction.json"
# What is stored as a number and looked up in `CropStore.names`.
# fmt: off
NAMED = (
    "video", "kind", "dataset", "method", "identity", "source", "group", "split", "compression",
    "shard",
)
# fmt: on
_MENDING = "the same `deepfake extract` as before makes it anew from the shards"
_OPEN_SHARDS = 128  # file descriptors kept per process; systems give 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class CropRows:
    """One value per crop, (N, ...) each, mapped from disk; text is a code into `CropStore.names`.

    `identity` and `source` are one code per distinct combination (`a;b`), as the manifest has them.
    """

    label: NDArray[np.int8]  # 1 is fake
    video: NDArray[np.int32]  # the file, with the folder in it where it is an archive
    kind: NDArray[np.int32]
    dataset: NDArray[np.int32]
    method: NDArray[np.int32]
    identity: NDArray[np.int32]
    source: NDArray[np.int32]
    group: NDArray[np.int32]
    split: NDArray[np.int32]
    compression: NDArray[np.int32]
    row: NDArray[np.int32]  # of the manifest, from 0
    track: NDArray[np.int32]  # the person within the video, from 0
    # Of the person seen most in the video: others may be bystanders, or no faces at all, and in a
    # fake nothing says that they were changed.
    main: NDArray[np.bool_]
    time_s: NDArray[np.float64]
    shard: NDArray[np.int32]
    offset: NDArray[np.int64]  # of the picture's first byte in its shard
    size: NDArray[np.int32]  # of the encoded picture in bytes
    box_xyxy: NDArray[np.float32]  # (N, 4) the face in pixels of the crop
    frame_xyxy: NDArray[np.float32]  # (N, 4) the face in pixels of the full frame
    landmarks: NDArray[np.float32]  # (N, 5, 2) in pixels of the crop; NaN where none are known


# Column -> dtype and shape behind N: how `columns/NAME.npy` is laid out.
LAYOUT: dict[str, tuple[str, tuple[int, ...]]] = {
    "label": ("|i1", ()),
    "main": ("|b1", ()),
    **dict.fromkeys((*NAMED, "row", "track", "size"), ("<i4", ())),
    "time_s": ("<f8", ()),
    "offset": ("<i8", ()),
    "box_xyxy": ("<f4", (4,)),
    "frame_xyxy": ("<f4", (4,)),
    "landmarks": ("<f4", (5, 2)),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CropFacts:
    """What is known of one crop; `landmarks` (5, 2) float32 are NaN where none are known.

    `box_xyxy` (4,) float32 and the landmarks are in pixels of the crop.
    """

    label: int  # 1 is fake
    video: str
    track: int
    time_s: float
    box_xyxy: NDArray[np.float32]
    landmarks: NDArray[np.float32]


class CropStore:
    """All crops of an extraction, by number. Cheap to open, to pickle and to share by fork."""

    def __init__(self, folder: Path, rows: CropRows, names: Mapping[str, tuple[str, ...]]) -> None:
        self._folder, self.rows, self.names = folder, rows, names
        self._descriptors: dict[int, int] = {}

    @classmethod
    def open(cls, folder: str | Path) -> CropStore:
        """Raises ManifestError where the folder holds no finished extraction, or a damaged one."""
        folder = Path(folder)
        try:
            text = (folder / COLUMNS_FOLDER / NAMES_FILE).read_text(encoding="utf-8")
            tables = cast("dict[str, list[str]]", json.loads(text))
            names = {name: tuple(tables[name]) for name in NAMED}
            columns: dict[str, Any] = {
                field.name: np.load(folder / COLUMNS_FOLDER / f"{field.name}.npy", mmap_mode="r")
                for field in fields(CropRows)
            }
        except FileNotFoundError as error:
            raise ManifestError(
                f"{folder}: no finished extraction here; run `deepfake extract` for it, again with"
                " the same arguments where it was interrupted"
            ) from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            # Its first sentence: numpy goes on with advice to load pickles.
            reason = str(error).partition(". ")[0]
            raise ManifestError(
                f"{folder / COLUMNS_FOLDER}: damaged, or of another version ({reason}); {_MENDING}"
            ) from error
        _check(columns, names, folder)
        return cls(folder, CropRows(**columns), names)

    def __len__(self) -> int:
        return len(self.rows.label)

    @property
    def manifest_sha256(self) -> str | None:
        """Of the rows of the manifest the crops were cut from, where the extraction tells."""
        try:
            settings = json.loads((self._folder / SETTINGS_FILE).read_text(encoding="utf-8"))
            return str(settings["manifest_sha256"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def __reduce__(self) -> tuple[Any, ...]:
        # Columns would be copied into the pickle otherwise; a worker maps them again.
        return CropStore.open, (self._folder,)

    def where(self, **wanted: str) -> NDArray[np.int64]:
        """The numbers of the crops with these names: `where(split="train", method="")`."""
        chosen = np.ones(len(self), dtype=np.bool_)
        for column, name in wanted.items():
            names = self.names[column]
            code = names.index(name) if name in names else -1
            chosen &= getattr(self.rows, column) == code
        return np.flatnonzero(chosen)

    def encoded(self, i: int) -> bytes:
        """The picture of crop `i` as it was stored. Raises ManifestError where it is not there."""
        shard = int(self.rows.shard[i])
        size, offset = int(self.rows.size[i]), int(self.rows.offset[i])
        try:
            # pread: no position that processes after a fork, or threads, would move for each other.
            data = os.pread(self._descriptor(shard), size, offset)
        except OSError as error:
            raise ManifestError(
                f"{self._shard(shard)}: cannot be read: {error.strerror}; {self._anew(shard)}"
            ) from error
        if len(data) != size:
            raise ManifestError(f"{self._shard(shard)}: ends before crop {i}; {self._anew(shard)}")
        return data

    def read(self, i: int) -> tuple[NDArray[np.uint8], CropFacts]:
        """Crop `i` as (H, W, 3) uint8 RGB, and what is known of it. Raises ManifestError."""
        pixels = decode(self.encoded(i))
        if pixels is None:
            shard = int(self.rows.shard[i])
            raise ManifestError(f"{self._shard(shard)}: crop {i} is damaged; {self._anew(shard)}")
        rows = self.rows
        facts = CropFacts(
            label=int(rows.label[i]),
            video=self.names["video"][int(rows.video[i])],
            track=int(rows.track[i]),
            time_s=float(rows.time_s[i]),
            box_xyxy=np.array(rows.box_xyxy[i]),
            landmarks=np.array(rows.landmarks[i]),
        )
        return pixels, facts

    def _anew(self, shard: int) -> str:
        unit = self.names["shard"][shard].partition("-")[0]
        return f"remove index/{unit}.jsonl and give the same `deepfake extract` again"

    def _shard(self, code: int) -> Path:
        return self._folder / "shards" / self.names["shard"][code]

    def _descriptor(self, shard: int) -> int:
        found = self._descriptors.get(shard)
        if found is None:
            if len(self._descriptors) >= _OPEN_SHARDS:
                os.close(self._descriptors.pop(next(iter(self._descriptors))))
            found = os.open(self._shard(shard), os.O_RDONLY | os.O_CLOEXEC)
            self._descriptors[shard] = found
        return found

    def close(self) -> None:
        """Give the file descriptors back; the store opens them again when it is read."""
        while self._descriptors:
            os.close(self._descriptors.popitem()[1])

    def __del__(self) -> None:
        self.close()


def decode(encoded: bytes) -> NDArray[np.uint8] | None:
    """JPEG or PNG bytes to (H, W, 3) uint8 RGB; None where they are no picture."""
    try:
        bgr = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:  # no bytes at all, or a header that claims too many pixels
        return None
    if bgr is None:  # pyright: ignore[reportUnnecessaryComparison] (its stub forgets it)
        return None
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def _check(columns: Mapping[str, Any], names: Mapping[str, tuple[str, ...]], folder: Path) -> None:
    count = len(columns["label"])
    for name, (dtype, shape) in LAYOUT.items():
        column = columns[name]
        whole = column.shape == (count, *shape) and column.dtype == np.dtype(dtype)
        if whole and count and name in names:
            whole = int(column.min()) >= 0 and int(column.max()) < len(names[name])
        if not whole:
            raise ManifestError(
                f"{folder / COLUMNS_FOLDER / name}.npy: does not fit the other columns; {_MENDING}"
            )
