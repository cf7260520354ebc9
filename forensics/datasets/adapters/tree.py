"""Finding one's way in a data set's folders: no case, no spelling, no hidden files, no surprise."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import cast

from forensics.datasets.manifest import Split
from forensics.errors import ManifestError

# fmt: off
VIDEO_SUFFIXES = frozenset((
    ".3gp", ".asf", ".avi", ".flv", ".gif", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg",
    ".mpg", ".mts", ".mxf", ".ogv", ".ts", ".vob", ".webm", ".wmv",
))
# fmt: on
PICTURE_SUFFIXES = frozenset((".bmp", ".jpeg", ".jpg", ".png", ".webp"))
_SPLITS: dict[str, Split] = {
    **dict.fromkeys(("train", "training", "training_set", "train_set"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validation_set", "val_set", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "test_set"), "test"),
}


def plain(name: str) -> str:
    """A name as it is compared: `Youtube-real`, `YouTube-real` and `youtube real` are the same."""
    return re.sub(r"[\s-]", "_", name.casefold())


def split_named(name: str) -> Split:
    """train, val or test for every usual spelling; empty for any other name."""
    return _SPLITS.get(plain(name), "")


def entries(folder: Path) -> list[Path]:
    """What is in a folder, sorted; without hidden names (`._x.mp4` are macOS leftovers)."""
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise ManifestError(f"{folder}: the folder cannot be read: {error.strerror}") from error


def folders(folder: Path) -> list[Path]:
    return [path for path in entries(folder) if path.is_dir()]


def child(folder: Path, *names: str) -> Path | None:
    """`folder/names[0]/names[1]...` in whatever spelling it has; None where there is none."""
    for name in names:
        if not folder.is_dir():
            return None
        matches = [path for path in entries(folder) if plain(path.name) == plain(name)]
        if not matches:
            return None
        folder = matches[0]
    return folder


def is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES


def is_picture(path: Path) -> bool:
    return path.suffix.lower() in PICTURE_SUFFIXES


def videos(folder: Path) -> list[Path]:
    """Videos in `folder` or in its `videos/`, which benchmarks insert."""
    below = child(folder, "videos")
    found = entries(folder) + (entries(below) if below is not None else [])
    return [path for path in found if is_video(path) and path.is_file()]


def media_below(folder: Path) -> Iterator[Path]:
    """Every video and picture down to the bottom, sorted, each folder once even through links."""
    seen: set[str] = set()
    for where, below, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(where)
        below[:] = sorted(name for name in below if not name.startswith("."))
        if real in seen:
            below.clear()
            continue
        seen.add(real)
        for name in sorted(names):
            path = Path(where) / name
            if not name.startswith(".") and (is_video(path) or is_picture(path)):
                yield path


def read_json(path: Path) -> object:
    """The content of a JSON file. Raises ManifestError with its name when it is none."""
    try:
        return cast(object, json.loads(path.read_text(encoding="utf-8-sig")))
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"{path}: not valid JSON: {error}") from error


def read_lines(path: Path) -> list[str]:
    """The lines of a text file that are not blank, stripped. Raises ManifestError."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path}: not a text file in UTF-8") from error
    return [line.strip() for line in text.splitlines() if line.strip()]
