"""Whether a report is what it was, and belongs to a file: each point checked, none assumed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from forensics.report import signature
from forensics.report.custody import sha256_of
from forensics.report.facts import file_sha256
from forensics.structures import ABSTENTION_LABELS

_ROUNDING = 1e-6  # probabilities and thresholds are written with six digits
Outcome = Literal["matches", "differs", "not checked"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One point of a report: what was looked at, what came out, and why."""

    subject: str
    outcome: Outcome
    detail: str


def verify(
    document: Mapping[str, Any], *, video: Path | None = None, public_key: str | None = None
) -> list[Check]:
    """Check a report that `read_document` gave; `public_key` as `load_public_key` gives it.

    Raises ForensicsError where the video cannot be read, ConfigError where a signature needs
    cryptography and it is not installed.
    """
    return [
        *_signature(document, public_key),
        _settings(document),
        _label(document),
        _video(document, video),
    ]


def proven(checks: list[Check]) -> bool:
    """Whether the report is beyond doubt what a known signer signed, and nothing contradicts it."""
    outcomes = {check.subject: check.outcome for check in checks}
    return outcomes["signer"] == "matches" and "differs" not in outcomes.values()


def _signature(document: Mapping[str, Any], public_key: str | None) -> list[Check]:
    if signature.FIELD not in document:
        missing = "unsigned: anybody could have written or changed this report"
        outcome: Outcome = "not checked" if public_key is None else "differs"
        return [
            Check(subject="signature", outcome=outcome, detail=missing),
            Check(subject="signer", outcome="not checked", detail="there is no signature"),
        ]
    named = str(document[signature.FIELD]["public_key"])
    if not signature.holds(document):
        changed = "the report or its signature was changed after it was signed"
        return [
            Check(subject="signature", outcome="differs", detail=changed),
            Check(subject="signer", outcome="not checked", detail="the signature does not hold"),
        ]
    intact = Check(
        subject="signature", outcome="matches", detail=f"as signed with the key {named[:16]}..."
    )
    if public_key is None:
        detail = "give --key: without it anybody may have signed, and the key proves nothing"
        return [intact, Check(subject="signer", outcome="not checked", detail=detail)]
    if named != public_key:
        detail = f"signed with the key {named[:16]}..., not with {public_key[:16]}..."
        return [intact, Check(subject="signer", outcome="differs", detail=detail)]
    return [intact, Check(subject="signer", outcome="matches", detail="signed with the given key")]


def _settings(document: Mapping[str, Any]) -> Check:
    same = sha256_of(document["config"]) == document["config_sha256"]
    return Check(
        subject="settings",
        outcome="matches" if same else "differs",
        detail="their hash is the one stated" if same else "changed: their hash is another",
    )


def _label(document: Mapping[str, Any]) -> Check:
    """Whether the verdict follows from its own numbers: catches an edited word."""
    verdict, people = document["verdict"], document["people"]
    wrong = ""
    if verdict["label"] in ABSTENTION_LABELS:
        wrong = "an abstention lists judged people" if people else ""
    else:
        first = people[0]
        if first["label"] != verdict["label"] or first["probability"] != verdict["probability"]:
            wrong = "the verdict is not that of the person who decides"
        wrong = wrong or next(filter(None, (_wrong(person, verdict) for person in people)), "")
    detail = wrong or "labels follow from probabilities and thresholds"
    return Check(subject="verdict", outcome="differs" if wrong else "matches", detail=detail)


def _wrong(person: Mapping[str, Any], verdict: Mapping[str, Any]) -> str:
    p, thresholds = person["probability"], verdict["thresholds"]
    fits = {"uncertain"} if not person["sufficient"] else _labels(p, thresholds)
    if person["label"] not in fits:
        said = " or ".join(sorted(fits))
        return f"person {person['id']} is called {person['label']}, its numbers say {said}"
    if person["num_frames"] != len(person["frames"]):
        return f"person {person['id']} has another number of frames than stated"
    return ""


def _labels(p: float, thresholds: Mapping[str, float]) -> set[str]:
    """The label of a probability; two at a threshold, where rounding hides which one it was."""
    fits: set[str] = set()
    for near in (p - _ROUNDING, p + _ROUNDING):
        if near >= thresholds["fake"]:
            fits.add("likely_fake")
        else:
            fits.add("likely_real" if near <= thresholds["real"] else "uncertain")
    return fits


def _video(document: Mapping[str, Any], video: Path | None) -> Check:
    stated = document["media"]["sha256"]
    if video is None:
        return Check(subject="video", outcome="not checked", detail="no file was given")
    if stated is None:
        return Check(subject="video", outcome="not checked", detail="the report states no hash")
    found, num_bytes = file_sha256(video)
    if found == stated:
        return Check(subject="video", outcome="matches", detail=f"{num_bytes} bytes, same hash")
    size = document["media"]["size_bytes"]
    what = f"{num_bytes} bytes instead of {size}" if num_bytes != size else "as long, but changed"
    return Check(subject="video", outcome="differs", detail=f"another file: {what}")
