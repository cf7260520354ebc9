"""WildDeepfake (Zi et al., ACM MM 2020): aligned faces of videos from the web, cut already.

{real,fake}_{train,test}/<N>.tar.gz, with `_`, `-` or a space, in the top folder or in
deepfake_in_the_wild/. Every folder of pictures in an archive is one sequence of one face; unpacked
archives (folders named <N>) are read alike. People are not named; an archive is one recording.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from forensics.datasets.adapters.archive import archive_stem, safe_members
from forensics.datasets.adapters.tree import child, entries, is_picture, media_below, plain
from forensics.datasets.manifest import Label, Note, Problem, Sample, Split
from forensics.errors import ManifestError

_FOLDERS: dict[str, tuple[Label, Split]] = {
    "real_train": ("real", "train"),
    "real_test": ("real", "test"),
    "fake_train": ("fake", "train"),
    "fake_test": ("fake", "test"),
}


def fits(root: Path) -> bool:
    return any(child(_home(root), name) is not None for name in _FOLDERS)


def read(root: Path) -> Iterator[Sample | Problem | Note]:
    for name in _FOLDERS:
        folder = child(_home(root), name)
        taken: set[str] = set()
        for path in entries(folder) if folder is not None else []:
            stem = path.name if path.is_dir() else archive_stem(path)
            if stem is None:
                detail = "neither a tar nor a folder"
                yield Problem(kind="unexpected name", where=str(path), detail=detail)
                continue
            if stem in taken:  # folders sort before the archives they came from
                detail = "also unpacked beside it; the folder is used"
                yield Problem(kind="duplicate", where=str(path), detail=detail)
                continue
            taken.add(stem)
            yield from _read_one(path, name, stem)
    yield Note("WildDeepfake names no people: its splits cannot be checked for shared identities")


def _home(root: Path) -> Path:
    return child(root, "deepfake_in_the_wild") or root


def _read_one(path: Path, name: str, stem: str) -> Iterator[Sample | Problem]:
    label, split = _FOLDERS[name]
    try:
        if path.is_dir():
            files = (PurePosixPath(f.relative_to(path).as_posix()) for f in media_below(path))
            sequences = _sequences(files)
        else:
            sequences = _sequences(safe_members(path))
    except ManifestError as error:
        yield Problem(kind="bad archive", where=str(path), detail=str(error))
        return
    if not sequences:
        yield Problem(kind="empty file", where=str(path), detail="no picture in it")
    for member in sequences:
        if {"real": "fake", "fake": "real"}[label] in {plain(part) for part in member.parts}:
            detail = f"{member} contradicts the folder {name}"
            yield Problem(kind="label conflict", where=str(path), detail=detail)
            continue
        yield Sample(
            path=str(path / member) if path.is_dir() else str(path),
            member="" if path.is_dir() else member.as_posix(),
            label=label,
            kind="sequence",
            dataset="WildDeepfake",
            method="unknown" if label == "fake" else "",
            sources=(f"wilddeepfake:{name}/{stem}",),
            split=split,
        )


def _sequences(files: Iterable[PurePosixPath]) -> list[PurePosixPath]:
    """The folders that hold pictures, each once, in order."""
    return list(dict.fromkeys(file.parent for file in files if is_picture(Path(file))))
