"""Facts that make a report checkable later: hash, software versions, what took how long."""

from __future__ import annotations

import hashlib
import platform
import stat
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import TypeVar

from forensics.errors import ForensicsError, MediaError

Item = TypeVar("Item")

# Whatever can change a probability.
_SOFTWARE = (
    "deepfake",
    "torch",
    "av",
    "decord",
    "facenet-pytorch",
    "efficientnet-pytorch",
    "opencv-python-headless",
    "numpy",
    "scipy",
)


def software_versions() -> dict[str, str]:
    """Versions by distribution name, without importing any of them."""
    versions = {"python": platform.python_version(), "platform": platform.platform()}
    for name in _SOFTWARE:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # decord has wheels for Linux on x86-64 only
            versions[name] = "not installed"
    return versions


def require_stored(path: Path) -> None:
    """Raise MediaError (`unsupported`) for folders, pipes and devices: reading those blocks or
    never ends; ForensicsError where there is nothing at all."""
    try:
        regular = stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        reason = getattr(error, "strerror", None) or str(error)
        raise ForensicsError(f"{path}: cannot be examined: {reason}; check the path") from error
    if not regular:
        raise MediaError(
            f"{path}: not a regular file; only stored files are examined", label="unsupported"
        )


def file_sha256(path: Path, stopped: Callable[[], bool] = lambda: False) -> tuple[str, int]:
    """Hash of a file and how many bytes were hashed, streamed.

    Raises ForensicsError when it cannot be read, or once `stopped()`.
    """
    digest, num_bytes = hashlib.sha256(), 0
    try:
        with path.open("rb") as file:
            while block := file.read(2**20):
                if stopped():
                    raise ForensicsError(f"{path}: the scan was stopped before its end")
                digest.update(block)
                num_bytes += len(block)
    except OSError as error:
        raise ForensicsError(f"{path}: cannot be read: {error.strerror}") from error
    return digest.hexdigest(), num_bytes


class Clock:
    """Seconds per stage, summed over calls, and seconds since its birth."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self.stages: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Generator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.stages[name] = self.stages.get(name, 0.0) + time.perf_counter() - start

    def waits(self, name: str, items: Iterable[Item]) -> Iterator[Item]:
        """The same items; the wait for each counts for the stage `name`."""
        waiting = iter(items)
        while True:
            with self.stage(name):
                item = next(waiting, None)
            if item is None:
                return
            yield item

    def total(self) -> float:
        return time.perf_counter() - self._start
