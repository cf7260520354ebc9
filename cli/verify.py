"""`deepfake verify` and `deepfake rerun`: what of a report holds, point by point."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import forensics
from forensics import ScanConfig
from forensics.config import load_config
from forensics.errors import ConfigError
from forensics.report import printable, to_document
from forensics.report.comparison import compare, same_making
from forensics.report.reading import read_document
from forensics.report.signature import load_public_key
from forensics.report.verification import Check, proven, verify

from .terminal import emit, error_line

PROVEN, DIFFERS, UNPROVEN = 0, 1, 3


def run(report: Path, *, video: Path | None, key: Path | None) -> int:
    """Check a report; the result is the exit status."""
    public_key = load_public_key(key) if key is not None else None
    checks = verify(read_document(report), video=video, public_key=public_key)
    emit(_as_lines(checks))
    if _differs(checks):
        return DIFFERS
    return PROVEN if proven(checks) else UNPROVEN


def repeat(report: Path, video: Path, *, detector: str | None) -> int:
    """Repeat an analysis and compare; the result is the exit status."""
    before = read_document(report)
    hashes = [check for check in verify(before, video=video) if check.subject != "signer"]
    if _differs(hashes):
        emit(_as_lines(hashes))
        error_line(f"{report}: nothing was repeated")
        return DIFFERS
    config = _config(before["config"], str(report))
    name = detector or str(before["detector"]["name"])
    with forensics.Scanner(name, config) as scanner:
        after = to_document(scanner.scan(video, last=True))
    checks = compare(before, after)
    emit(_as_lines(checks))
    if not same_making(before, after):
        emit(_as_lines([*_changed(before, after)]))
    return DIFFERS if _differs(checks) else PROVEN


def _config(stated: Mapping[str, Any], source: str) -> ScanConfig:
    """The settings of a report: what a scan adds to them is left out, an absent device replaced."""
    from forensics.runtime import choose_device

    known = {field.name for field in fields(ScanConfig)}
    settings = {key: value for key, value in stated.items() if key in known}
    try:
        choose_device(str(settings.get("device", "auto")))
    except ConfigError:
        settings["device"] = "auto"
    return load_config(ScanConfig, settings, f"{source}: config")


def _changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Check]:
    """What makes the two analyses differ in their making, so that numbers may differ a little."""
    return [
        Check(
            subject=f"{part}: {key}",
            outcome="not checked",
            detail=f"{after[part].get(key)} here, {before[part].get(key)} then",
        )
        for part in ("host", "software", "config")
        for key in sorted({*before[part], *after[part]})
        if before[part].get(key) != after[part].get(key)
    ]


def _differs(checks: Sequence[Check]) -> bool:
    return any(check.outcome == "differs" for check in checks)


def _as_lines(checks: Sequence[Check]) -> str:
    width = max((len(check.subject) for check in checks), default=0)
    return "".join(
        f"{check.subject:<{width}}  {check.outcome:<11}  {printable(check.detail)}\n"
        for check in checks
    )
