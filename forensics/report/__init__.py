"""Reports as text and files: WRITERS maps a suffix to the function that makes its text.

`document.py` is the content, `schema.json` its JSON Schema, `table.py` the row of a CSV.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from forensics.errors import ConfigError
from forensics.findings import Report
from forensics.report.document import printable, readable_path, to_document
from forensics.report.moments import Moment, most_suspicious
from forensics.report.table import COLUMNS, csv_header, csv_row
from forensics.whole_file import whole_file

__all__ = [
    "COLUMNS",
    "WRITERS",
    "Moment",
    "Sign",
    "csv_header",
    "csv_row",
    "json_line",
    "json_text",
    "most_suspicious",
    "printable",
    "readable_path",
    "schema",
    "to_document",
    "write",
    "write_text",
]


Sign = Callable[[Mapping[str, Any]], dict[str, Any]]


def json_line(report: Report, sign: Sign | None = None) -> str:
    """One report as one line of JSON Lines, line break included; `sign` as `Signer.sign`.

    Pure ASCII: no terminal encoding can break it and no file name can smuggle an escape sequence
    through it.
    """
    return json.dumps(_signed(report, sign), allow_nan=False) + "\n"


def json_text(report: Report, sign: Sign | None = None) -> str:
    """One report as an indented document."""
    return json.dumps(_signed(report, sign), allow_nan=False, indent=2) + "\n"


def _signed(report: Report, sign: Sign | None) -> dict[str, Any]:
    document = to_document(report)
    return document if sign is None else sign(document)


def _json_text(reports: Sequence[Report]) -> str:
    """One indented document; JSON Lines for several."""
    if len(reports) == 1:
        return json_text(reports[0])
    return "".join(json_line(report) for report in reports)


def _csv_text(reports: Sequence[Report]) -> str:
    """A header and one row per file."""
    return csv_header() + "".join(csv_row(report) for report in reports)


def _html_text(reports: Sequence[Report]) -> str:
    """One page with a section per file."""
    from forensics.report.html import render  # Jinja2 and OpenCV: not before a page is wanted

    return render(reports)


WRITERS: dict[str, Callable[[Sequence[Report]], str]] = {
    ".json": _json_text,
    ".csv": _csv_text,
    ".html": _html_text,
}


def write(path: str | Path, reports: Report | Sequence[Report]) -> None:
    """Write one or several reports to `path`; its suffix names the format (`WRITERS`).

    The file appears whole or not at all. Raises ConfigError for an unknown suffix and OSError when
    the disk refuses.
    """
    target = Path(path)
    writer = WRITERS.get(target.suffix.lower())
    if writer is None:
        raise ConfigError(f"{target}: no writer for this suffix; use one of {', '.join(WRITERS)}")
    write_text(target, writer([reports] if isinstance(reports, Report) else reports))


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 `text` to `path`, whole or not at all."""
    with whole_file(path) as file:
        file.write(text.encode())


def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of `to_document`."""
    return json.loads(resources.files(__name__).joinpath("schema.json").read_text("utf-8"))
