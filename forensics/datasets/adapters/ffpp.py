"""FaceForensics++ (Roessler et al., ICCV 2019) with FaceShifter, and DFD where it lies beside it.

original_sequences/youtube/<compression>/videos/NNN.mp4
manipulated_sequences/<method>/<compression>/videos/<target>_<source>.mp4    masks/ is ignored
splits/{train,val,test}.json                                                 also in the top folder

The set names no people: each of its 1000 recordings counts as one person. A fake belongs to the
target's recording and to that of the other face, so both are its identities and sources.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import cast

from forensics.datasets.adapters import dfd
from forensics.datasets.adapters.tree import child, folders, plain, read_json, videos
from forensics.datasets.manifest import Note, Problem, Sample, Split
from forensics.errors import ManifestError

METHODS = ("Deepfakes", "Face2Face", "FaceSwap", "NeuralTextures", "FaceShifter")
COMPRESSIONS = {"raw": "raw", "c0": "raw", "c23": "c23", "c40": "c40"}  # c0: an old name of raw
NAME = re.compile(r"(\d{3})(?:_(\d{3}))?")

Pair = tuple[str, str]


def fits(root: Path) -> bool:
    return child(root, "original_sequences", "youtube") is not None or any(
        child(root, "manipulated_sequences", method) is not None for method in METHODS
    )


def read(root: Path) -> Iterator[Sample | Problem | Note]:
    pairs: dict[Pair, Split] = {}
    yield from _read_splits(root, pairs)
    split_of: dict[str, Split] = {}
    for pair, split in pairs.items():
        for name in pair:
            if split_of.setdefault(name, split) != split:
                detail = f"recording {name} is in {split_of[name]} and in {split}"
                yield Problem(kind="split conflict", where="splits", detail=detail)
    named = {"real": set(split_of), "fake": {f"{a}_{b}" for a, b in pairs}}
    named["fake"] |= {f"{b}_{a}" for a, b in pairs}
    for method in ("", *METHODS):
        home = ("manipulated_sequences", method) if method else ("original_sequences", "youtube")
        where = child(root, *home)
        for folder in folders(where) if where is not None else []:
            if plain(folder.name) in COMPRESSIONS:
                yield from _read_folder(folder, method, split_of, named)
    if dfd.fits(root):
        yield from dfd.read(root)


def _read_folder(
    folder: Path, method: str, split_of: dict[str, Split], named: dict[str, set[str]]
) -> Iterator[Sample | Problem]:
    present: set[str] = set()
    for path in videos(folder):
        match = NAME.fullmatch(path.stem)
        if match is None or bool(match[2]) != bool(method):
            expected = "<target>_<source>, three digits each" if method else "three digits"
            yield Problem(kind="unexpected name", where=str(path), detail=f"expected {expected}")
            continue
        present.add(path.stem)
        recordings = [name for name in match.groups() if name]
        splits: set[Split] = {split_of.get(name, "") for name in recordings}
        if len(splits) > 1:
            detail = f"its recordings are in {sorted(splits)}; the row gets no split"
            yield Problem(kind="split conflict", where=str(path), detail=detail)
        elif split_of and "" in splits:
            detail = "no official split names it"
            yield Problem(kind="unnamed file", where=str(path), detail=detail)
        names = tuple(f"ffpp:{name}" for name in recordings)
        yield Sample(
            path=str(path),
            label="fake" if method else "real",
            kind="video",
            dataset="FaceForensics++",
            method=method,
            identities=names,
            sources=names,
            split=splits.pop() if len(splits) == 1 else "",
            compression=COMPRESSIONS[plain(folder.name)],
        )
    for name in sorted(named["fake" if method else "real"] - present):
        detail = "the official split names it"
        yield Problem(kind="missing file", where=str(folder / "videos" / name), detail=detail)


def _read_splits(root: Path, pairs: dict[Pair, Split]) -> Iterator[Problem | Note]:
    """Fill `pairs` (target, source) -> split from the official files."""
    names: tuple[Split, ...] = ("train", "val", "test")
    for split in names:
        file = child(root, "splits", f"{split}.json") or child(root, f"{split}.json")
        if file is None:
            continue
        try:
            content = read_json(file)
            if not isinstance(content, list):
                raise ManifestError(f"{file}: expected a list of pairs of recordings")
            for item in cast("list[object]", content):
                match item:
                    case [str(target), str(source)]:
                        pairs[target, source] = split
                    case _:
                        raise ManifestError(f"{file}: {item!r} is not a pair of recordings")
        except ManifestError as error:
            yield Problem(kind="unreadable list", where=str(file), detail=str(error))
    if not pairs:
        yield Note(
            "FaceForensics++: no splits/{train,val,test}.json here, so no file has a split; copy"
            " the official ones from the set's repository"
        )
