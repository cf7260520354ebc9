"""What the server keeps on disk: one private folder, random names, nothing after its end."""

from __future__ import annotations

import asyncio
import fcntl
import os
import secrets
import shutil
import tempfile
import time
import weakref
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from forensics.errors import ForensicsError
from forensics.findings import Report
from forensics.report import write
from forensics.video.sniff import HEAD_BYTES, sniff

PREFIX = "deepfake-serve-"
FORMATS = (".json", ".html")  # of reports
_LOCK = "lock"
_BUFFER = 2**20
# Who sends slower than this after the first minute keeps a place from others: at this pace a
# gigabyte takes four and a half hours.
_GRACE_S = 60.0
_LEAST_BYTES_PER_S = 64 * 1024


class UploadTooLarge(ForensicsError):
    """More bytes than one upload may have."""


class UploadTooSlow(ForensicsError):
    """The sender stopped, or sends byte by byte."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """A file that arrived whole: under a random name, its first bytes those of a known medium."""

    path: Path
    size_bytes: int


class Store:
    """Uploads until they have been examined, reports until the end. Use it as a context manager.

    The folder is only its owner's (0700), each file 0600 under a name of 128 random bits; no name
    from outside reaches the disk. It is removed by `close`, at the interpreter's exit, and, where a
    server was killed, by the next one's start: a lock tells the living from the dead.
    """

    def __init__(self, *, max_bytes: int, parent: Path | None = None) -> None:
        parent = parent or Path(tempfile.gettempdir())
        _sweep(parent)
        self.max_bytes = max_bytes
        self.folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        self._lock = _locked(self.folder)
        self._remove = weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove everything; may be called again."""
        if self._remove.alive:
            self._remove()
            os.close(self._lock)

    async def receive(self, chunks: AsyncIterator[bytes]) -> Upload:
        """Write a stream to a new file, counting while it comes.

        Raises UploadTooLarge at the first byte too many, MediaError as soon as the first bytes
        belong to nothing that is examined, UploadTooSlow and OSError. Nothing stays then.
        """
        path = self.folder / secrets.token_hex(16)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        size, head, known = 0, b"", False
        try:
            with os.fdopen(descriptor, "wb", buffering=_BUFFER) as file:
                async for chunk in _paced(chunks):
                    size += len(chunk)
                    if size > self.max_bytes:
                        raise UploadTooLarge(too_large(self.max_bytes))
                    if not known:
                        head += chunk[: HEAD_BYTES - len(head)]
                        if known := len(head) == HEAD_BYTES:
                            sniff(head)
                    await asyncio.to_thread(file.write, chunk)
                if not known:
                    sniff(head)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return Upload(path=path, size_bytes=size)

    def keep(self, name: str, report: Report) -> None:
        """Write the report in all FORMATS, as `report_file` finds it."""
        for suffix in FORMATS:
            write(self.folder / f"{name}{suffix}", report)

    def report_file(self, name: str, suffix: str) -> Path | None:
        """A report's file; None where there is none. `name` is one that `keep` was given."""
        path = self.folder / f"{name}{suffix}"
        return path if path.is_file() else None

    def forget(self, name: str) -> None:
        """Remove a report."""
        for suffix in FORMATS:
            (self.folder / f"{name}{suffix}").unlink(missing_ok=True)


def too_large(max_bytes: int) -> str:
    """The sentence for a file over the limit."""
    return (
        f"the file is larger than {max_bytes / 2**20:g} MB: start the server with a higher "
        "--max-upload-mb, or use `deepfake scan`"
    )


async def _paced(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The stream, as long as it keeps a least pace. Raises UploadTooSlow."""
    start, received = time.monotonic(), 0
    while True:
        left = start + _GRACE_S + received / _LEAST_BYTES_PER_S - time.monotonic()
        try:
            chunk = await asyncio.wait_for(anext(chunks, None), min(left, _GRACE_S))
        except (TimeoutError, asyncio.TimeoutError) as error:  # one class only from 3.11 on
            raise UploadTooSlow(
                f"the upload is too slow: {received} bytes came in "
                f"{time.monotonic() - start:.0f} s; try again"
            ) from error
        if chunk is None:
            return
        received += len(chunk)
        yield chunk


def _locked(folder: Path) -> int:
    """A descriptor that holds the folder's lock while this process lives."""
    unnamed = folder / f"{_LOCK}.new"
    descriptor = os.open(unnamed, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    unnamed.rename(folder / _LOCK)  # appears locked: a server that starts now must not sweep it
    return descriptor


def _sweep(parent: Path) -> None:
    """Remove what servers left that were killed: our own folders whose lock nobody holds."""
    for folder in parent.glob(f"{PREFIX}*"):
        with suppress(OSError):  # gone meanwhile, or not ours to open
            if folder.is_symlink() or folder.stat().st_uid != os.geteuid():
                continue
            descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
            finally:
                os.close(descriptor)
