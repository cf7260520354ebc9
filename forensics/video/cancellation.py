"""Ending one file's scan from another thread, whatever its child processes are doing."""

from __future__ import annotations

import threading
from typing import Protocol

from forensics.errors import ScanCancelled


class Stoppable(Protocol):
    """What a cancellation ends: a process that reads the file."""

    def stop(self) -> None: ...


class Cancellation:
    """One scan's switch: `cancel()` from any thread, any number of times, before or while it runs.

    Who waits for a child is woken because it is killed; who computes finds out at the next `check`.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cancelled = False
        self._child: Stoppable | None = None

    def cancel(self) -> None:
        with self._lock:
            self._cancelled = True
            child = self._child
        if child is not None:
            child.stop()

    def is_set(self) -> bool:
        return self._cancelled

    def check(self) -> None:
        """Raises ScanCancelled once `cancel` was called."""
        if self._cancelled:
            raise ScanCancelled("the scan was cancelled")

    def attach(self, child: Stoppable) -> None:
        """Name the process to end; one that comes after `cancel` is ended at once."""
        with self._lock:
            self._child = child
            too_late = self._cancelled
        if too_late:
            child.stop()
