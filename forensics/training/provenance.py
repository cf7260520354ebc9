"""What a checkpoint was trained from, as a manifest beside it: evaluations look for leaks there."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from pathlib import Path
from typing import cast

import numpy as np

from forensics.datasets.manifest import ASIDE, SEPARATOR, Kind, Sample, Split
from forensics.datasets.manifest_file import write_manifest
from forensics.datasets.preparation import MANIFEST
from forensics.datasets.shards import CropStore

TRAINED_ON = "trained_on.csv"


def training_manifest(folder: Path, store: CropStore, unseen: Collection[str]) -> tuple[str, str]:
    """Name and sha256 of the manifest in `folder`: that of the preparation, where the crops were
    cut for this run, else one written from the rows that the crops remember. Those of the data
    sets `unseen` are `aside` in it. Raises OSError."""
    path = folder / MANIFEST
    if unseen or not path.exists():
        path = folder / TRAINED_ON
        write_manifest(_samples(store, unseen), path)
    return path.name, hashlib.sha256(path.read_bytes()).hexdigest()


def _samples(store: CropStore, unseen: Collection[str]) -> list[Sample]:
    """One per row of the manifest that has crops; paths are relative to where that manifest was."""
    rows = store.rows

    def name(column: str, i: int) -> str:
        return store.names[column][int(getattr(rows, column)[i])]

    def several(column: str, i: int) -> tuple[str, ...]:
        return tuple(part for part in name(column, i).split(SEPARATOR) if part)

    return [
        Sample(
            path=name("video", i),
            label="fake" if rows.label[i] else "real",
            kind=cast(Kind, name("kind", i)),
            dataset=name("dataset", i),
            method=name("method", i),
            identities=several("identity", i),
            sources=several("source", i),
            split=ASIDE if name("dataset", i) in unseen else cast(Split, name("split", i)),
            compression=name("compression", i),
            group=name("group", i),
        )
        for i in np.unique(np.asarray(rows.row), return_index=True)[1].tolist()
    ]
