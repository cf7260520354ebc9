"""Two analyses of the same file, compared: equal on the same machine, close on another.

Other processors sum in another order and multiply in another precision. The tolerances are twice
what bfloat16 against float32 was measured to do (docs/log.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from forensics.report.verification import Check

PROBABILITY = 0.03  # of a person or file
FRAME_PROBABILITY = 0.07
BOX_SHARE = 0.05  # of the longer box side; detection runs on a scaled-down frame
TIME_S = 0.001  # as times are written


def same_making(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Whether machine, software and precision are the same, so that numbers must be, too."""
    return (
        before["host"] == after["host"]
        and before["software"] == after["software"]
        and before["config"] == after["config"]
    )


def compare(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Check]:
    """Checks of `after` against `before`, both documents of the schema."""
    exact = same_making(before, after)
    how = "equal" if exact else "within the tolerance for another machine or other versions"
    return [
        _same("video", before["media"]["sha256"], after["media"]["sha256"], "hash"),
        _same("detector", before["detector"]["sha256"], after["detector"]["sha256"], "hash"),
        _media(before["media"], after["media"], exact=exact),
        _verdict(before["verdict"], after["verdict"], exact=exact, how=how),
        _people(before["people"], after["people"], exact=exact, how=how),
    ]


def _same(subject: str, before: object, after: object, what: str) -> Check:
    if before == after:
        return Check(subject=subject, outcome="matches", detail=f"same {what}")
    return Check(subject=subject, outcome="differs", detail=f"{what} {after} instead of {before}")


def _media(before: Mapping[str, Any], after: Mapping[str, Any], *, exact: bool) -> Check:
    """What decoding said; names of profiles and pixel formats belong to a version of FFmpeg."""
    keys = ["kind", "container", "codec", "width", "height", "duration_s", "coverage"]
    if exact:
        keys = [key for key in before if key not in ("path", "credentials")]
    for key in keys:
        if before[key] != after[key]:
            detail = f"{key}: {after[key]} instead of {before[key]}"
            return Check(subject="media", outcome="differs", detail=detail)
    return Check(subject="media", outcome="matches", detail="the file was read as before")


def _verdict(
    before: Mapping[str, Any], after: Mapping[str, Any], *, exact: bool, how: str
) -> Check:
    old, new = before["probability"], after["probability"]
    said = f"{after['label']} {_written(new)}, before {before['label']} {_written(old)}"
    if exact:  # the reasons name the path, which may be another
        good = all(before[key] == after[key] for key in ("label", "probability", "thresholds"))
    else:
        good = _close(old, new, PROBABILITY)
    if good and before["label"] != after["label"]:
        # A label may flip only where the tolerance reaches across a threshold.
        edges: Mapping[str, float] = before["thresholds"] or {}
        good = old is not None and any(abs(old - p) <= PROBABILITY for p in edges.values())
        how = "the label flips at a threshold that lies within the tolerance"
    return Check(
        subject="verdict",
        outcome="matches" if good else "differs",
        detail=f"{said}: {how}" if good else said,
    )


def _people(before: list[Any], after: list[Any], *, exact: bool, how: str) -> Check:
    wrong = ""
    if len(before) != len(after):
        wrong = f"{len(after)} people instead of {len(before)}"
    elif exact:
        wrong = "" if before == after else "their numbers are others"
    else:
        found = {person["id"]: person for person in after}
        for old in before:
            new = found.get(old["id"])
            wrong = wrong or (_person(old, new) if new else f"person {old['id']} is not found")
    return Check(
        subject="people",
        outcome="differs" if wrong else "matches",
        detail=wrong or f"{len(before)} found, {how}",
    )


def _person(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """What is wrong with a person's numbers; empty where nothing is."""
    name = f"person {old['id']}"
    if not _close(old["probability"], new["probability"], PROBABILITY):
        return f"{name}: probability {new['probability']} instead of {old['probability']}"
    if old["num_frames"] != new["num_frames"]:
        return f"{name}: seen in {new['num_frames']} frames instead of {old['num_frames']}"
    for one, other in zip(old["frames"], new["frames"], strict=True):
        time_s = one["time_s"]
        if abs(time_s - other["time_s"]) > TIME_S:
            return f"{name}: a frame at {other['time_s']} s instead of {time_s} s"
        if not _close(one["probability"], other["probability"], FRAME_PROBABILITY):
            return (
                f"{name} at {time_s} s: probability {other['probability']} instead of "
                f"{one['probability']}"
            )
        box, moved = one["box_xyxy"], other["box_xyxy"]
        reach = BOX_SHARE * max(box[2] - box[0], box[3] - box[1])
        if any(abs(a - b) > reach for a, b in zip(box, moved, strict=True)):
            return f"{name} at {time_s} s: the face lies at {moved} instead of {box}"
    return ""


def _close(old: float | None, new: float | None, tolerance: float) -> bool:
    if old is None or new is None:
        return old is new
    return abs(old - new) <= tolerance


def _written(probability: float | None) -> str:
    return "without a probability" if probability is None else f"({probability:.4f})"
