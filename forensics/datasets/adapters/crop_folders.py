"""Crops as Coccomini et al. lay them out (ICIAP 2022): one folder per video, cut already.

{training,validation,test}_set/<method>/<video>/<frame>_<face>.png

`Original` is real. A folder `DFDC` holds both labels: they come from metadata (*.json here or in
metadata/) and from dfdc_*_labels.csv (filename,label, 1 is fake).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import cast

from forensics.datasets.adapters import ffpp
from forensics.datasets.adapters.tree import (
    child,
    entries,
    folders,
    is_picture,
    plain,
    read_json,
    read_lines,
    split_named,
)
from forensics.datasets.manifest import Label, Note, Problem, Sample
from forensics.errors import ManifestError

_SETS = ("training_set", "validation_set", "test_set")
_REAL = frozenset(("original", "originals", "real", "pristine", "youtube"))
_LABELS: dict[str, Label] = {"real": "real", "fake": "fake", "0": "real", "1": "fake"}


def fits(root: Path) -> bool:
    return any(child(root, name) is not None for name in _SETS)


def read(root: Path) -> Iterator[Sample | Problem | Note]:
    labels: dict[str, Label] = {}
    yield from _read_labels(root, labels)
    for name in _SETS:
        home = child(root, name)
        for method in folders(home) if home is not None else []:
            for folder in folders(method):
                yield _sample(folder, method.name, name, labels)


def _sample(folder: Path, method: str, name: str, labels: dict[str, Label]) -> Sample | Problem:
    if not any(is_picture(path) for path in entries(folder)):
        detail = "no picture in it: no face was found, or the crops were not written"
        return Problem(kind="empty file", where=str(folder), detail=detail)
    mixed = plain(method) == "dfdc"
    label = labels.get(folder.name.casefold()) if mixed else None
    if mixed and label is None:
        detail = "put metadata.json of its part, or dfdc_*_labels.csv, into the top folder"
        return Problem(kind="unknown label", where=str(folder), detail=detail)
    label = label or ("real" if plain(method) in _REAL else "fake")
    match = None if mixed else ffpp.NAME.fullmatch(folder.name)
    prefix = "dfdc" if mixed else "ffpp" if match else "crops"
    names = [part for part in match.groups() if part] if match else [folder.name.casefold()]
    recordings = tuple(f"{prefix}:{part}".replace(";", ",") for part in names)
    return Sample(
        path=str(folder),
        label=label,
        kind="sequence",
        dataset="DFDC" if mixed else "FaceForensics++" if match else "crops",
        method="" if label == "real" else "unknown" if mixed else method,
        identities=recordings if match else (),
        sources=recordings,
        split=split_named(name),
    )


def _read_labels(root: Path, labels: dict[str, Label]) -> Iterator[Problem]:
    below = child(root, "metadata")
    files = entries(root) + (entries(below) if below is not None and below.is_dir() else [])
    for file in files:
        try:
            rows = list(_label_rows(file))
        except ManifestError as error:
            yield Problem(kind="unreadable list", where=str(file), detail=str(error))
            continue
        for name, text in rows:
            if label := _LABELS.get(text.strip().casefold()):
                labels[PurePosixPath(name).stem.casefold()] = label


def _label_rows(file: Path) -> Iterator[tuple[str, str]]:
    """(file name, label as written) from either kind of list; nothing from any other file."""
    if file.suffix.lower() == ".json":
        content = read_json(file)
        found = cast("dict[str, object]", content) if isinstance(content, dict) else {}
        for name, value in found.items():
            if isinstance(value, dict):
                yield name, str(cast("dict[str, object]", value).get("label", ""))
    elif plain(file.name).startswith("dfdc_") and plain(file.name).endswith("labels.csv"):
        for line in read_lines(file)[1:]:
            name, label, *_ = (*line.split(","), "")
            yield name, label
