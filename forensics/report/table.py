"""A report as one row of a CSV file: stable columns, safe to open in a spreadsheet."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from forensics.findings import Report
from forensics.report.document import printable, to_document
from forensics.report.moments import most_suspicious

# New columns go to the end: scripts count on the order.
COLUMNS = (
    "path",
    "label",
    "probability",
    "threshold_real",
    "threshold_fake",
    "people",
    "suspicious_from_s",
    "suspicious_to_s",
    "container",
    "codec",
    "width",
    "height",
    "duration_s",
    "declared_frames",
    "decoded_frames",
    "coverage",
    "sha256",
    "detector",
    "detector_version",
    "detector_sha256",
    "started",
    "seconds",
    "reasons",
)

# A cell that starts so is a formula to Excel, LibreOffice and Google Sheets (OWASP, CSV injection).
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def csv_header() -> str:
    """The first line."""
    return _line(COLUMNS)


def csv_row(report: Report) -> str:
    """One report as one line; unknown values are empty cells."""
    document = to_document(report)
    media, verdict, detector = document["media"], document["verdict"], document["detector"]
    thresholds: dict[str, float] = verdict["thresholds"] or {}
    people = report.verdict.people
    moment = (
        most_suspicious(max(people, key=lambda person: person.score.probability).score)
        if people
        else None
    )
    values: dict[str, Any] = {
        **{key: media[key] for key in COLUMNS if key in media},
        "label": verdict["label"],
        "probability": verdict["probability"],
        "threshold_real": thresholds.get("real"),
        "threshold_fake": thresholds.get("fake"),
        "people": len(people),
        "suspicious_from_s": round(moment.start_s, 3) if moment else None,
        "suspicious_to_s": round(moment.end_s, 3) if moment else None,
        "detector": detector["name"],
        "detector_version": detector["version"],
        "detector_sha256": detector["sha256"],
        "started": document["started"],
        "seconds": document["seconds"],
        "reasons": " ".join(verdict["reasons"]),
    }
    return _line([_cell(values[column]) for column in COLUMNS])


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        return str(value)
    text = printable(value)
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text


def _line(cells: Sequence[str]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(cells)
    return buffer.getvalue()
