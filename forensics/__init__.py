"""Deepfake video forensics: a video in, an honest verdict out. Light to import: no torch here.

import forensics

report = forensics.scan("video.mp4")
print(report.verdict.label, report.verdict.probability)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from forensics.checkpoint import load_checkpoint
    from forensics.config import ScanConfig
    from forensics.errors import ForensicsError
    from forensics.findings import Report
    from forensics.pipeline import Scanner, scan
    from forensics.structures import Verdict

__all__ = [
    "ForensicsError",
    "Report",
    "ScanConfig",
    "Scanner",
    "Verdict",
    "load_checkpoint",
    "scan",
]

_HOMES = {
    "ForensicsError": "forensics.errors",
    "Report": "forensics.findings",
    "ScanConfig": "forensics.config",
    "Scanner": "forensics.pipeline",
    "Verdict": "forensics.structures",
    "load_checkpoint": "forensics.checkpoint",
    "scan": "forensics.pipeline",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for (PEP 562): torch takes two seconds."""
    if name not in _HOMES:
        raise AttributeError(f"module 'forensics' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
