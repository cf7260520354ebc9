"""Which files a command line means: files, folders, globs."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

# Looked for in folders only; a file named directly is always tried, whatever it is called.
# fmt: off
MEDIA_SUFFIXES = frozenset((
    ".3gp", ".asf", ".avi", ".flv", ".gif", ".jpeg", ".jpg", ".m2ts", ".m4v", ".mkv", ".mov",
    ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".ogv", ".png", ".ts", ".vob", ".webm",
    ".webp", ".wmv",
))
# fmt: on


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """`files` to scan, each once; `problems`, one sentence per argument that led nowhere."""

    files: tuple[Path, ...]
    problems: tuple[str, ...]


def expand(arguments: Sequence[str]) -> Inputs:
    """Turn arguments into files: in the order given, sorted inside each folder and glob.

    Folders are searched to their bottom, without following links and without hidden entries. A file
    reached twice, through a link too, is scanned once.
    """
    files: dict[str, Path] = {}
    problems: list[str] = []
    for argument in arguments:
        for found in _one(argument, problems):
            files.setdefault(os.path.realpath(found), found)
    return Inputs(files=tuple(files.values()), problems=tuple(problems))


def _one(argument: str, problems: list[str]) -> Iterator[Path]:
    path = Path(argument)
    if path.is_dir():
        yield from _folder(path, problems)
    elif os.path.lexists(path):
        yield path
    elif glob.has_magic(argument):
        yield from _glob(argument, problems)
    elif "://" in argument:
        problems.append(f"{argument}: addresses are not fetched; download the file and name it")
    else:
        problems.append(f"{argument}: no such file or folder; check the path")


def _glob(pattern: str, problems: list[str]) -> Iterator[Path]:
    matches = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207  Path.glob takes no absolute
    if not matches:
        problems.append(f"{pattern}: no file matches this pattern; check it, and quote it")
    folders = [Path(match) for match in matches if Path(match).is_dir()]
    files = [Path(match) for match in matches if not Path(match).is_dir()]
    yield from files
    # `clips/*` means the folders below as well, but a folder without media among them is no error.
    for folder in folders:
        yield from _media_below(folder, problems)


def _folder(path: Path, problems: list[str]) -> Iterator[Path]:
    known = len(problems)
    found = list(_media_below(path, problems))
    if not found and len(problems) == known:
        problems.append(
            f"{path}: no media files in this folder (looked for names ending in .mp4, .mov, .mkv,"
            " .jpg and the like); name a file directly to try it whatever it is called"
        )
    yield from found


def _media_below(folder: Path, problems: list[str]) -> Iterator[Path]:
    def unreadable(error: OSError) -> None:
        problems.append(f"{error.filename}: this folder cannot be read: {error.strerror}")

    for where, folders, names in os.walk(folder, onerror=unreadable):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and Path(name).suffix.lower() in MEDIA_SUFFIXES:
                yield Path(where) / name
