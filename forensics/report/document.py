"""A Report as the dictionary of schema "deepfake-report/2" (`schema.json` beside this file)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

from forensics.findings import Credentials, Report
from forensics.report.custody import sha256_of
from forensics.report.origin import bit_rate, recompression_hints
from forensics.structures import PersonVerdict, Verdict

SCHEMA = "deepfake-report/2"

_SURROGATE = re.compile("[\ud800-\udfff]")


def to_document(report: Report) -> dict[str, Any]:
    """Plain values only: strings, finite numbers, lists, dictionaries, None; stable key order."""
    config = _plain(report.config)
    return {
        "schema": SCHEMA,
        "media": _media(report),
        "verdict": _verdict(report.verdict),
        "people": [_person(person) for person in report.verdict.people],
        "detector": {
            "name": report.detector.name,
            "version": report.detector.version,
            "sha256": report.detector.sha256,
        },
        "software": dict(report.software),
        "config": config,
        "config_sha256": sha256_of(config),
        "host": _plain(report.host),
        "started": report.started,
        "ended": report.ended,
        "seconds": finite(report.seconds, 3),
        "timings_s": {stage: finite(value, 4) for stage, value in report.timings_s.items()},
    }


def readable_path(path: str) -> str:
    """`path` as text that every encoder takes: bytes that are not UTF-8 become \\xNN.

    File names are bytes on Linux; Python hides foreign ones in lone surrogates, which neither
    UTF-8 nor most JSON parsers accept.
    """
    return _SURROGATE.sub(_escape_surrogate, path)


def printable(text: str) -> str:
    """`text` with every control, format and foreign character written as its escape.

    A file name may hold escape sequences, line breaks or right-to-left marks: shown as they are,
    they move the terminal's cursor, forge rows of a table or hide a suffix.
    """
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in readable_path(text)
    )


def finite(value: float | None, digits: int) -> float | None:
    """`value` rounded, None where it is unknown or not a finite number: JSON has no NaN."""
    if value is None or not math.isfinite(value):
        return None
    return round(float(value), digits)


def _escape_surrogate(match: re.Match[str]) -> str:
    code = ord(match[0])
    # PEP 383: U+DC80 to U+DCFF stand for the bytes 80 to FF.
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"


def _media(report: Report) -> dict[str, Any]:
    info, stats = report.info, report.stats
    return {
        "path": readable_path(report.path),
        "sha256": report.sha256,
        "size_bytes": report.num_bytes,
        "kind": info.kind if info else None,
        "container": info.container if info else None,
        "codec": info.codec if info else None,
        "profile": info.profile if info else None,
        "pixel_format": info.pixel_format if info else None,
        "sound": info.sound if info else None,
        "width": info.width if info else None,
        "height": info.height if info else None,
        "duration_s": finite(info.duration_s, 3) if info else None,
        "frame_rate": finite(info.frame_rate, 4) if info else None,
        "bit_rate": finite(bit_rate(info), 0) if info else None,
        "declared_frames": info.declared_frames if info else None,
        "listed_frames": info.listed_frames if info else None,
        "key_frames": info.key_frames if info else None,
        "decoded_frames": stats.decoded_frames if stats else None,
        "corrupt_packets": stats.corrupt_packets if stats else None,
        "size_changes": stats.size_changes if stats else None,
        "positions_asked": stats.positions_asked if stats else None,
        "positions_read": stats.positions_read if stats else None,
        "coverage": finite(stats.coverage, 4) if stats else None,
        "traits": list(info.traits) if info else [],
        "hints": [readable_path(hint) for hint in recompression_hints(info)] if info else [],
        "tags": [
            {"name": readable_path(name), "value": readable_path(value)}
            for name, value in (info.tags if info else ())
        ],
        "credentials": _credentials(report.evidence.credentials) if report.evidence else None,
    }


def _credentials(found: Credentials) -> dict[str, Any]:
    return {
        "state": found.state,
        "detail": readable_path(found.detail),
        "library": found.library,
        "generator": _readable(found.generator),
        "signer": _readable(found.signer),
        "signed_at": _readable(found.signed_at),
        "actions": [readable_path(action) for action in found.actions],
        "codes": [
            {"outcome": outcome, "code": readable_path(code), "explanation": readable_path(said)}
            for outcome, code, said in found.codes
        ],
    }


def _readable(text: str | None) -> str | None:
    return None if text is None else readable_path(text)


def _verdict(verdict: Verdict) -> dict[str, Any]:
    thresholds = verdict.thresholds
    return {
        "label": verdict.label,
        "probability": finite(verdict.probability, 6),
        "thresholds": {"real": finite(thresholds.real, 6), "fake": finite(thresholds.fake, 6)}
        if thresholds
        else None,
        "reasons": [readable_path(reason) for reason in verdict.reasons],
    }


def _person(person: PersonVerdict) -> dict[str, Any]:
    score, track = person.score, person.score.track
    return {
        "id": track.id,
        "label": person.label,
        "probability": finite(score.probability, 6),
        "interval": [finite(end, 6) for end in score.interval] if score.interval else None,
        "sufficient": person.sufficient,
        "num_frames": len(track.times_s),
        "face_px": finite(track.face_px, 1),
        "frames": [
            {
                "time_s": finite(time_s, 3),
                "box_xyxy": [finite(side, 1) for side in box],
                "probability": finite(probability, 6),
            }
            for time_s, box, probability in zip(
                track.times_s.tolist(),
                track.boxes.tolist(),
                score.frame_probabilities.tolist(),
                strict=True,
            )
        ],
    }


def _plain(value: object) -> Any:
    """Mappings, sequences and numbers of a configuration as JSON knows them."""
    if isinstance(value, Mapping):
        members = cast("Mapping[object, object]", value)
        return {str(key): _plain(member) for key, member in members.items()}
    if isinstance(value, str):
        return readable_path(value)
    if isinstance(value, bool | int) or value is None:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Sequence):
        return [_plain(member) for member in cast("Sequence[object]", value)]
    return str(value)
