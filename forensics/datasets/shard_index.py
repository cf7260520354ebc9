"""What lies where in the shards: one JSON line per row of the manifest, then columns of numbers.

A unit is a run of rows that one worker cuts. Its shards become visible first, its index file last:
a unit is done when `index/NNNNNN.jsonl` is there, and then all of it is.
"""

from __future__ import annotations

import csv
import importlib
import io
import json
import os
import shutil
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from forensics.datasets.manifest import SEPARATOR, Sample
from forensics.datasets.shards import COLUMNS_FOLDER, LAYOUT, NAMED, NAMES_FILE
from forensics.errors import ManifestError

SHARD_BYTES = 128 * 2**20  # a unit with crowds in it goes on in a further shard


_PLAIN = ("kind", "dataset", "method", "group", "split", "compression")  # columns as they are


@dataclass(frozen=True, slots=True, kw_only=True)
class Crop:
    """One crop to be stored; pixels of the crop but for `frame_xyxy`. NaN landmarks: unknown."""

    encoded: bytes
    suffix: str  # jpg or png
    track: int
    time_s: float
    box_xyxy: NDArray[np.float32]
    frame_xyxy: NDArray[np.float32]
    landmarks: NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one row (from 0): crops, or the reason why there are none."""

    row: int
    sample: Sample
    crops: tuple[Crop, ...] = ()
    reason: str = ""  # empty where there are crops
    detail: str = ""
    coverage: float = 1.0  # part of the material that could be decoded, 0..1


def unit_done(folder: Path, unit: int) -> bool:
    return _index_file(folder, unit).exists()


def write_unit(folder: Path, unit: int, outcomes: Iterable[Outcome], *, margin: float) -> None:
    """Write the shards and then the index of one unit; nothing of it counts before the end.

    `outcomes` is consumed one by one: no more than one row's crops are held. Raises OSError.
    """
    shards = folder / "shards"
    for leftover in shards.glob(f"{unit:06d}-*"):
        leftover.unlink()
    parts = _Parts(shards, unit)
    try:
        lines = [_write_row(parts, outcome, margin) for outcome in outcomes]
        parts.close()
    except BaseException:
        parts.discard()  # on a full disk the room is needed
        raise
    places = parts.publish()
    for line in lines:
        for crop in line["crops"]:
            crop["shard"], crop["offset"], crop["size"] = places[crop.pop("member")]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    write_durably(_index_file(folder, unit), text.encode())


class _Parts:
    """The shards of one unit, under temporary names until `publish`."""

    def __init__(self, folder: Path, unit: int) -> None:
        self._folder, self._unit = folder, unit
        self._files: list[io.BufferedWriter] = []
        self._writer: Any = None

    def write(self, sample: dict[str, Any]) -> None:
        if self._writer is None or self._files[-1].tell() > SHARD_BYTES:
            self.close()
            path = self._folder / f"{self._unit:06d}-{len(self._files):02d}.tar.part"
            self._files.append(path.open("xb"))
            # No time and no names of people: the same crops make the same bytes.
            webdataset: Any = importlib.import_module("webdataset.writer")  # it has no types
            self._writer = webdataset.TarWriter(
                self._files[-1], user="", group="", mtime=0.0, encoder=False
            )
        self._writer.write(sample)

    def close(self) -> None:
        """End the shard that is being written; a further sample begins another."""
        if self._writer is not None:
            self._writer.close()
            self._files[-1].flush()
            os.fsync(self._files[-1].fileno())
            self._files[-1].close()
            self._writer = None

    def discard(self) -> None:
        """Remove what was written; what fails on the way has failed before."""
        if self._writer is not None:
            with suppress(OSError, ValueError):  # as tarfile ends a stream it cannot write
                self._writer.close()
        for file in self._files:
            with suppress(OSError):
                file.close()
            Path(file.name).unlink(missing_ok=True)

    def publish(self) -> dict[str, tuple[str, int, int]]:
        """Give the shards their names. Member -> shard, offset of its content, size in bytes."""
        places: dict[str, tuple[str, int, int]] = {}
        for file in self._files:
            path = Path(file.name)
            final = path.with_suffix("")
            with tarfile.open(path, "r:") as archive:
                for member in archive:
                    places[member.name] = final.name, member.offset_data, member.size
            path.replace(final)
        _sync_folder(self._folder)
        return places


def _write_row(parts: _Parts, outcome: Outcome, margin: float) -> dict[str, Any]:
    facts = asdict(outcome.sample)
    crops: list[dict[str, Any]] = []
    for number, crop in enumerate(outcome.crops):
        key = f"{outcome.row:07d}-{number:04d}"
        numbers = {
            "track": crop.track,
            "time_s": round(crop.time_s, 6),
            "box_xyxy": _rounded(crop.box_xyxy),
            "frame_xyxy": _rounded(crop.frame_xyxy),
            "landmarks": None if np.isnan(crop.landmarks).any() else _rounded(crop.landmarks),
        }
        # Rows of pictures were cut by somebody else.
        cut_at = margin if outcome.sample.kind == "video" else None
        told = {**facts, **numbers, "row": outcome.row, "margin": cut_at}
        parts.write({"__key__": key, crop.suffix: crop.encoded, "json": json.dumps(told).encode()})
        crops.append({"key": key, "member": f"{key}.{crop.suffix}", **numbers})
    return {
        "row": outcome.row,
        **facts,
        "reason": outcome.reason,
        "detail": outcome.detail,
        "coverage": round(outcome.coverage, 4),
        "crops": crops,
    }


def _rounded(values: NDArray[np.float32]) -> list[Any]:
    return np.round(values.astype(np.float64), 2).tolist()


def read_lines(folder: Path, units: int) -> Iterator[dict[str, Any]]:
    """One dictionary per row of the manifest, in its order. Raises ManifestError where damaged."""
    for unit in range(units):
        file = _index_file(folder, unit)
        try:
            with file.open(encoding="utf-8") as lines:
                for line in lines:
                    yield cast("dict[str, Any]", json.loads(line))
        except (OSError, ValueError) as error:
            raise ManifestError(f"{file}: damaged ({error}); delete it and resume") from error


def write_columns(folder: Path, units: int) -> int:
    """Write `columns/` and `skipped.csv` from the whole index; returns the number of crops."""
    files = (_index_file(folder, unit) for unit in range(units))
    # A quote inside JSON text is escaped: this string is a key and nothing else.
    count = sum(file.read_bytes().count(b'"key":') for file in files)
    partial = folder / f"{COLUMNS_FOLDER}.part"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    columns = {
        name: _column(partial / f"{name}.npy", dtype, (count, *shape))
        for name, (dtype, shape) in LAYOUT.items()
    }
    tables: dict[str, dict[str, int]] = {name: {} for name in NAMED}
    skipped = io.StringIO(newline="")
    writer = csv.writer(skipped, lineterminator="\n")
    writer.writerow(("row", "path", "reason", "detail"))
    place = 0
    for line in read_lines(folder, units):
        video = f"{line['path']}/{line['member']}" if line["member"] else line["path"]
        if line["reason"]:
            writer.writerow((line["row"] + 1, video, line["reason"], line["detail"]))
        texts = {
            "video": video,
            "identity": SEPARATOR.join(line["identities"]),
            "source": SEPARATOR.join(line["sources"]),
            **{name: line[name] for name in _PLAIN},
        }
        span = slice(place, place + len(line["crops"]))
        if not line["crops"]:
            continue
        for name, text in texts.items():
            columns[name][span] = tables[name].setdefault(text, len(tables[name]))
        columns["label"][span] = line["label"] == "fake"
        columns["row"][span] = line["row"]
        main = _main_track(line["crops"])
        for i, crop in enumerate(line["crops"], place):
            columns["main"][i] = crop["track"] == main
            shard = tables["shard"]
            columns["shard"][i] = shard.setdefault(crop["shard"], len(shard))
            for name in ("offset", "size", "track", "time_s", "box_xyxy", "frame_xyxy"):
                columns[name][i] = crop[name]
            columns["landmarks"][i] = np.nan if crop["landmarks"] is None else crop["landmarks"]
        place = span.stop
    for column in columns.values():
        if isinstance(column, np.memmap):
            column.flush()
    names = {name: list(table) for name, table in tables.items()}
    write_durably(partial / NAMES_FILE, json.dumps(names).encode())
    write_durably(folder / "skipped.csv", skipped.getvalue().encode("utf-8", "surrogateescape"))
    final = folder / COLUMNS_FOLDER
    shutil.rmtree(final, ignore_errors=True)
    partial.replace(final)
    _sync_folder(folder)
    return count


def _column(path: Path, dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """A new .npy file, to be filled in place. Raises OSError where the disk has no room for it."""
    if not shape[0]:  # nothing cannot be mapped
        np.save(path, np.empty(shape, np.dtype(dtype)))
        return np.empty(shape, np.dtype(dtype))
    column = np.lib.format.open_memmap(path, mode="w+", dtype=np.dtype(dtype), shape=shape)
    reserve = getattr(os, "posix_fallocate", None)
    if reserve is not None:
        # A hole in a file that meets a full disk when it is written kills the process (SIGBUS).
        with path.open("r+b") as file:
            reserve(file.fileno(), 0, path.stat().st_size)
    return column


def _main_track(crops: list[dict[str, Any]]) -> int:
    """The track with the most crops; of equals the one with the larger faces."""
    counts, sides = Counter[int](), Counter[int]()
    for crop in crops:
        counts[crop["track"]] += 1
        x0, y0, x1, y1 = crop["frame_xyxy"]
        sides[crop["track"]] += max(x1 - x0, y1 - y0)
    return max(counts, key=lambda track: (counts[track], sides[track], -track))


def _index_file(folder: Path, unit: int) -> Path:
    return folder / "index" / f"{unit:06d}.jsonl"


def write_durably(path: Path, data: bytes) -> None:
    """Write whole or not at all, and to the disk itself: a power cut does not undo it."""
    partial = path.with_name(f"{path.name}.part")
    with partial.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make renames in it survive a power cut: a name is kept by its folder, not by its file."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
