"""A report from disk: whole, unambiguous, and as its schema says; or one line why not."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from forensics.errors import ReportError
from forensics.report.document import SCHEMA

_LONGEST = 256 * 2**20  # 4096 frames of 64 faces are 30 MB


def read_document(path: Path) -> dict[str, Any]:
    """The report in a JSON file.

    Raises ReportError where the file cannot be read, is cut off, holds several reports or two
    values for one key (of which readers would choose differently), or does not follow the schema.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_LONGEST + 1)
    except OSError as error:
        raise ReportError(f"{path}: the report cannot be read: {error.strerror}") from error
    if len(data) > _LONGEST:
        raise ReportError(f"{path}: larger than any report ({_LONGEST // 2**20} MB)")
    try:
        document: object = json.loads(
            data.decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_constant
        )
    except json.JSONDecodeError as error:
        several = error.msg == "Extra data"
        what = "holds more than one report: give one per file" if several else "cut off or edited"
        raise ReportError(f"{path}: not one JSON document, {what} ({error})") from error
    except (ValueError, RecursionError) as error:
        raise ReportError(f"{path}: not a report: {error}") from error
    return _follows_schema(document, path)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key occurs twice in one object, so readers disagree on its value")
    return found


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is not JSON")


def _follows_schema(document: object, path: Path) -> dict[str, Any]:
    from forensics.report import schema

    named = cast("dict[str, Any]", document).get("schema") if isinstance(document, dict) else None
    if named != SCHEMA:
        raise ReportError(
            f"{path}: a report says schema {SCHEMA!r}, this file says {named!r}"[:300]
        )
    jsonschema: Any = import_module("jsonschema")  # without types of its own
    validator = jsonschema.Draft202012Validator(schema())
    error = next(iter(validator.iter_errors(document)), None)
    if error is not None:
        where = "/".join(str(part) for part in error.absolute_path) or "the document"
        raise ReportError(f"{path}: does not follow {SCHEMA}: {where}: {error.message[:200]}")
    return cast("dict[str, Any]", document)
