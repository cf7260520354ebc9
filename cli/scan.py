"""`deepfake scan`: every file through one Scanner, whatever happens to its neighbours."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import forensics
from forensics import Report, ScanConfig
from forensics.config import load_config
from forensics.errors import CheckpointError, ConfigError, ForensicsError, MediaError
from forensics.report import csv_header, csv_row, json_line, json_text, write_text
from forensics.report.signature import Signer
from forensics.structures import ABSTENTION_LABELS

from .inputs import expand
from .settings import merged, read_yaml
from .show import Screen, as_table
from .terminal import ERROR, emit, error_line, interrupted

if TYPE_CHECKING:
    from forensics import Scanner
    from forensics.report.html import Section

Layout = Literal["table", "json", "csv"]
LAYOUTS = {"table": as_table, "csv": csv_row}

NOTHING_FOUND, FAKE_FOUND, ABSTAINED = 0, 1, 3
# File systems end names at 255 bytes; the suffix, a counter and a temporary name need room.
_LONGEST_NAME = 200


def run(
    paths: Sequence[str],
    *,
    layout: Layout,
    out: Path | None,
    page: Path | None,
    overlay: Path | None,
    key: Path | None,
    detector: str,
    config_file: Path | None,
    overrides: Mapping[str, Any],
    quiet: bool,
) -> int:
    """Scan what `paths` name; the result is the exit status."""
    config = effective_config(config_file, overrides)
    if page is not None:
        require_page(page)
    sign = None
    if key is not None:
        if layout != "json" and out is None:
            raise ConfigError("--sign signs JSON reports: give --json or --out, too")
        sign = Signer(key).sign
    inputs = expand(paths)
    for problem in inputs.problems:
        error_line(problem)
    if not inputs.files:
        return ERROR
    if overlay is not None:
        _require_overlay(overlay, inputs.files)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    labels: Counter[str] = Counter()
    errors = len(inputs.problems)
    names = _FreeNames()
    sections: list[Section] = []
    with (
        forensics.Scanner(detector, config) as scanner,
        Screen(len(inputs.files), quiet=quiet) as screen,
    ):
        if layout == "csv":
            emit(csv_header())
        for path in inputs.files:
            last = path == inputs.files[-1]
            report = _scan_one(scanner, path, screen, last=last, keep_evidence=page is not None)
            if report is None:
                errors += 1
                continue
            labels[report.verdict.label] += 1
            text = json_line(report, sign) if layout == "json" else LAYOUTS[layout](report)
            screen.pausing(lambda text=text: emit(text))
            if out is not None:
                write_text(out / names.take(path), json_text(report, sign))
            if page is not None:
                sections.append(_section(report, len(sections)))
            if overlay is not None:
                errors += not _annotate(overlay, report, config, screen)
            screen.file_finished(path, report.verdict.label)
        if page is not None:
            _write_page(page, sections)
    return exit_status(labels, errors)


def require_page(page: Path) -> None:
    """Raise ConfigError where a page could not be written: before hours of work, not after."""
    if page.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"{page}: --report writes HTML; give a name that ends in .html")
    if page.is_dir() or not page.parent.is_dir():
        raise ConfigError(f"{page}: not a file in an existing folder; check --report")


def _require_overlay(overlay: Path, files: Sequence[Path]) -> None:
    from forensics.report.overlay import require_target

    if len(files) > 1:
        raise ConfigError(f"--overlay annotates one video, not {len(files)}; name one file")
    require_target(overlay, files[0])


def _annotate(overlay: Path, report: Report, config: ScanConfig, screen: Screen) -> bool:
    """Whether the annotated video was written; why not is said on stderr."""
    from forensics.report.overlay import write_overlay

    show = screen.file_started(Path(report.path))
    try:
        write_overlay(
            overlay, report, config, on_progress=lambda done, total: show("annotating", done, total)
        )
    except MediaError as error:
        screen.error(f"{error}; no annotated video was written")
        return False
    return True


def _section(report: Report, number: int) -> Section:
    from forensics.report.html import section  # Jinja2 and more: only where a page is wanted

    return section(report, number)


def _write_page(page: Path, sections: Sequence[Section]) -> None:
    from forensics.report import html

    write_text(page, html.page(sections))


def exit_status(labels: Mapping[str, int], errors: int) -> int:
    """1 any fake; else 2 any error; else 3 when every file was abstained from; else 0."""
    if labels.get("likely_fake"):
        return FAKE_FOUND
    if errors:
        return ERROR
    if labels and all(label in ABSTENTION_LABELS for label in labels):
        return ABSTAINED
    return NOTHING_FOUND


def effective_config(file: Path | None, overrides: Mapping[str, Any]) -> ScanConfig:
    """Defaults, then the YAML file's keys, then the options that were given (None: not given)."""
    mapping = read_yaml(file) if file is not None else {}
    if file is not None:
        load_config(ScanConfig, mapping, str(file))  # so that its own mistakes bear its name
    return load_config(ScanConfig, merged(mapping, overrides), "command line")


def _scan_one(
    scanner: Scanner, path: Path, screen: Screen, *, last: bool, keep_evidence: bool
) -> Report | None:
    """The report, or None when the file failed: said on stderr, and the batch goes on."""
    try:
        return scanner.scan(
            path,
            on_progress=screen.file_started(path),
            last=last,
            keep_evidence=keep_evidence,
        )
    except (CheckpointError, ConfigError):
        raise  # no other file would fare better
    except ForensicsError as error:
        screen.error(str(error))
    except Exception as error:
        if interrupted(error):
            raise KeyboardInterrupt from error
        screen.error(f"{path}: unexpected {type(error).__name__}: {error}; please report this")
    screen.file_finished(path, "failed")
    return None


class _FreeNames:
    """File names for --out: the input's own name and .json, made unique within one run."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def take(self, path: Path) -> str:
        stem = path.name
        if len(os.fsencode(stem)) > _LONGEST_NAME:
            digest = hashlib.sha256(os.fsencode(stem)).hexdigest()[:8]
            stem = f"{os.fsdecode(os.fsencode(stem)[: _LONGEST_NAME - 9])}-{digest}"
        name, count = f"{stem}.json", 1
        # Compared without case: some file systems fold it.
        while name.casefold() in self._taken:
            count += 1
            name = f"{stem}-{count}.json"
        self._taken.add(name.casefold())
        return name
