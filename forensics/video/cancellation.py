"""Ending one file's decoding from another thread, whatever the decoder is doing."""

from __future__ import annotations

import threading
from typing import Protocol

from forensics.errors import ScanCancelled


class Stoppable(Protocol):
    """What a cancellation ends: a decoder process."""

    def stop(self) -> None: ...


class Cancellation:
    """One scan's switch: `cancel()` from any thread, any number of times, before or while it runs.

    Who waits for the decoder is woken because the child is killed; who computes finds out at the
    next `check`.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cancelled = False
        self._decoder: Stoppable | None = None

    def cancel(self) -> None:
        with self._lock:
            self._cancelled = True
            decoder = self._decoder
        if decoder is not None:
            decoder.stop()

    def is_set(self) -> bool:
        return self._cancelled

    def check(self) -> None:
        """Raises ScanCancelled once `cancel` was called."""
        if self._cancelled:
            raise ScanCancelled("the scan was cancelled")

    def attach(self, decoder: Stoppable) -> None:
        """Name the process to end; one that comes after `cancel` is ended at once."""
        with self._lock:
            self._decoder = decoder
            too_late = self._cancelled
        if too_late:
            decoder.stop()
