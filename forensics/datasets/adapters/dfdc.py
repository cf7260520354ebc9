"""Deepfake Detection Challenge (Dolhansky et al., 2020): training parts, validation and test.

dfdc_train_part_<N>/*.mp4 with metadata.json  {"x.mp4": {"label": "FAKE", "original": "y.mp4"}}
validation/*.mp4, test/*.mp4 with labels.csv  filename,label    1 is fake

The folder given may also be one of these. The set names no people, and actors recur within a part:
the part is the group.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import cast

from forensics.datasets.adapters.tree import (
    child,
    folders,
    plain,
    read_json,
    read_lines,
    split_named,
    videos,
)
from forensics.datasets.manifest import Label, Note, Problem, Sample, Split
from forensics.errors import ManifestError

_LABELS: dict[str, Label] = {"real": "real", "fake": "fake", "0": "real", "1": "fake"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    name: str
    label: str
    split: Split
    original: str


def fits(root: Path) -> bool:
    return any(_is_part(folder) or _lists(folder) for folder in (root, *folders(root)))


def read(root: Path) -> Iterator[Sample | Problem | Note]:
    for folder in (root, *folders(root)):
        found = _lists(folder)
        if found:
            yield from _read_folder(folder, found[0])
        elif _is_part(folder) and videos(folder):
            detail = "its videos have no label without metadata.json"
            yield Problem(kind="missing file", where=str(folder / "metadata.json"), detail=detail)
    yield Note("DFDC names no people; each part is one group, because actors recur within a part")


def _is_part(folder: Path) -> bool:
    return plain(folder.resolve().name).startswith("dfdc_train_part")


def _lists(folder: Path) -> list[Path]:
    """metadata.json or labels.csv, where they look like this data set's."""
    metadata, labels = child(folder, "metadata.json"), child(folder, "labels.csv")
    found = [metadata] if metadata is not None else []
    if labels is not None:
        try:
            header = read_lines(labels)[:1]
        except ManifestError:
            header = []
        if header and plain(header[0]).replace('"', "").split(",")[:2] == ["filename", "label"]:
            found.append(labels)
    return found


def _read_folder(folder: Path, file: Path) -> Iterator[Sample | Problem]:
    try:
        listed = list(_metadata(file) if file.suffix.lower() == ".json" else _labels(file))
    except ManifestError as error:
        yield Problem(kind="unreadable list", where=str(file), detail=str(error))
        return
    present = {path.name.casefold(): path for path in videos(folder)}
    for entry in listed:
        path = present.pop(entry.name.casefold(), None)
        where = str(path or folder / entry.name)
        label = _LABELS.get(entry.label.strip().casefold())
        if path is None:
            detail = f"{file.name} names it"
            yield Problem(kind="missing file", where=where, detail=detail)
        elif label is None:
            detail = f"{file.name} says {entry.label!r}, expected REAL or FAKE"
            yield Problem(kind="unknown label", where=where, detail=detail)
        else:
            original = entry.original if label == "fake" else path.name
            stem = PurePosixPath(original.replace(";", ",")).stem.casefold()
            yield Sample(
                path=where,
                label=label,
                kind="video",
                dataset="DFDC",
                method="unknown" if label == "fake" else "",  # eight methods, none is told
                sources=(f"dfdc:{stem}",) if original else (),
                split=entry.split or split_named(folder.resolve().name),
                group=f"dfdc:{_group(folder)}",
            )
    for path in present.values():
        detail = f"{file.name} does not name it: its label is unknown"
        yield Problem(kind="unnamed file", where=str(path), detail=detail)


def _group(folder: Path) -> str:
    name = plain(folder.resolve().name)
    number = re.fullmatch(r"dfdc_train_part_?(\d+)", name)
    return f"part-{int(number[1])}" if number else name


def _metadata(file: Path) -> Iterator[_Entry]:
    content = read_json(file)
    if not isinstance(content, dict):
        raise ManifestError(f"{file}: expected one object with a key per video")
    for name, value in cast("dict[str, object]", content).items():
        fields = cast("dict[str, object]", value) if isinstance(value, dict) else {}
        original = fields.get("original")
        yield _Entry(
            name=name,
            label=str(fields.get("label", fields.get("is_fake", ""))),  # is_fake: the test set
            split=split_named(str(fields.get("split", ""))),
            original=original if isinstance(original, str) else "",
        )


def _labels(file: Path) -> Iterator[_Entry]:
    for row in csv.reader(read_lines(file)[1:]):
        name, label, *_ = (*row, "")
        yield _Entry(name=name, label=label, split="", original="")
