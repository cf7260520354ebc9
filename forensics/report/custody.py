"""What ties a report to its making: canonical bytes, hash of the settings, facts of the host."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import rfc8785

from forensics.errors import ReportError


def canonical(document: Mapping[str, Any]) -> bytes:
    """A document as the one sequence of bytes that stands for it: RFC 8785 (JCS).

    Keys sorted, no white space, numbers as ECMAScript writes them: 1 and 1.0 are the same, and the
    order or layout of a file changes nothing. Raises ReportError for what JSON cannot hold.
    """
    try:
        return rfc8785.dumps(dict(document))
    except (rfc8785.CanonicalizationError, RecursionError) as error:
        raise ReportError(f"the report cannot be written canonically: {error}") from error


def sha256_of(document: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical bytes."""
    return hashlib.sha256(canonical(document)).hexdigest()


def host_facts(device_name: str, threads: int) -> dict[str, str | int]:
    """The machine as far as it can change a number; neither its name nor its user's."""
    return {
        "system": platform.system(),
        "release": platform.release(),
        "machine": platform.machine(),
        "processor": _processor(),
        "cores": os.cpu_count() or 0,
        "threads": threads,
        "device": device_name,
    }


def _processor() -> str:
    """The processor's name; /proc knows it where the standard library says "x86_64" or nothing."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or "unknown"
