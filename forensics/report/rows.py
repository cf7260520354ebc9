"""What a page shows of a report as words: times, numbers, media facts, command lines; pure."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any, cast

from forensics.findings import Report
from forensics.report.document import printable


def clock(seconds: float) -> str:
    """12.34 s; 4:05.1 and 1:04:05.1 where seconds alone are hard to find in a player."""
    if abs(seconds) < 60:
        return f"{seconds:.2f} s"
    tenths = round(seconds * 10)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    head = f"{hours}:{minutes:02d}" if hours else f"{minutes}"
    return f"{head}:{rest / 10:04.1f}"


def media_rows(media: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Media facts as rows; what is unknown is left out."""
    rows: list[tuple[str, str | None]] = [
        ("Kind", media["kind"]),
        ("Container", media["container"]),
        ("Video codec", _joined(media["codec"], media["profile"], media["pixel_format"])),
        ("Sound", f"{media['sound']} (not examined)" if media["sound"] else None),
        ("Picture", f"{media['width']} x {media['height']} px" if media["width"] else None),
        ("Duration", clock(media["duration_s"]) if media["duration_s"] else None),
        ("Frame rate", f"{media['frame_rate']:.2f} per second" if media["frame_rate"] else None),
        ("Bit rate", f"{media['bit_rate'] / 1000:,.0f} kbit/s" if media["bit_rate"] else None),
        ("Frames declared", number(media["declared_frames"])),
        ("Frames found", number(media["listed_frames"])),
        ("Key frames", number(media["key_frames"])),
        ("File size", f"{media['size_bytes']:,} bytes" if media["size_bytes"] else None),
        ("Peculiarities", ", ".join(media["traits"]).replace("_", " ") or None),
    ]
    return [(name, value) for name, value in rows if value]


def _joined(*parts: str | None) -> str | None:
    return ", ".join(part for part in parts if part) or None


def number(value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, float):
        return f"{value:,.0f}" if value.is_integer() and abs(value) > 1 else f"{value:.4g}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return " to ".join(number(member) or "-" for member in cast("Sequence[object]", value))
    return str(value)


def commands(report: Report) -> list[str]:
    """Command lines that repeat the analysis and check the report."""
    config: Mapping[str, Any] = report.config
    sampling: Mapping[str, Any] = config.get("sampling") or {}
    faces: Mapping[str, Any] = config.get("faces") or {}
    video = shlex.quote(printable(report.path))
    words = ["deepfake scan", video, "--out reports"]
    options: dict[str, Any] = {
        "--detector": None if report.detector.name == "default" else report.detector.name,
        "--fps": sampling.get("fps"),
        "--frames": None if sampling.get("fps") else sampling.get("frames"),
        "--start": sampling.get("start_s"),
        "--end": sampling.get("end_s"),
        "--decoder": config.get("decoder"),
        "--longest-side": faces.get("longest_side"),
        "--threshold": config.get("threshold"),
        "--device": config.get("device"),
    }
    words += [f"{key} {shlex.quote(str(value))}" for key, value in options.items() if value]
    version = report.software.get("deepfake", "")
    return [
        f"pip install deepfake=={version}" if version else "pip install deepfake",
        " ".join(words),
        f"deepfake rerun REPORT.json {video}",
        f"deepfake verify REPORT.json {video} --key PUBLIC.pem",
    ]
