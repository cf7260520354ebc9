"""A file's bytes wherever they are kept: on this machine, or behind an address fsspec knows."""

from __future__ import annotations

import importlib
import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, cast

from forensics.errors import ForensicsError


@contextmanager
def stored(location: str) -> Generator[Path]:
    """A path to read `location` from: the path itself, or a private copy while the block lasts.

    Addresses (`s3://`, `gs://`, `memory://`, `file://`) are opened by fsspec and whatever package
    it needs for them. Raises ForensicsError, one line, where that fails.
    """
    if "://" not in location:
        yield Path(location)
        return
    fsspec = _fsspec()
    # A folder of its own, closed to others (0700), so that the file keeps its name.
    with tempfile.TemporaryDirectory(prefix="deepfake-") as folder:
        copy = Path(folder) / (PurePosixPath(location).name or "file")
        try:
            with fsspec.open(location, "rb") as source, copy.open("wb") as target:
                shutil.copyfileobj(source, target, 2**20)
        except (OSError, ImportError, ValueError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ForensicsError(f"{location}: cannot be fetched: {reason}") from error
        yield copy


def _fsspec() -> Any:
    """fsspec has no complete types; `Any` says so once."""
    try:
        return cast(Any, importlib.import_module("fsspec"))
    except ImportError as error:
        raise ForensicsError(
            "addresses need fsspec: pip install 'deepfake[evaluate]', or copy the files here"
        ) from error
