"""From scores to a verdict with its reasons, or to a named abstention; pure.

A person is sufficiently seen when the face was found often enough and large enough (the card's
rules). The video's probability is that of its most suspicious sufficiently seen person.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from forensics.structures import (
    AbstentionLabel,
    DecodeStats,
    JudgedLabel,
    PersonVerdict,
    Thresholds,
    TrackScore,
    Verdict,
    VideoInfo,
)

# What a trait of a file (see forensics.video.probe) means for trust. Traits beside these are
# dealt with without loss: a rotated picture is as good as an upright one.
TRAIT_LIMITS: dict[str, str] = {
    "interlaced": "The material is interlaced: every second line of a frame was rebuilt.",
    "hdr": "Colours were mapped from high dynamic range, which changes how faces look.",
    "count_mismatch": "The file claims another number of frames than it holds.",
    "truncated": "The file ends before what its index promises.",
    "no_presentation_times": "The file holds no presentation times: the times given are counted.",
    "scaled_down": "Pictures were scaled down before they were examined: fine traces may be lost.",
}
_MOST = 0.5  # coverage below which nothing is called real: what was lost may hold the forgery
_COMPLETE = 0.995  # coverage from here on is complete: declared counts are often off by a frame


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceRules:
    """When a person is sufficiently seen: in at least `min_frames` frames, with a median face of
    at least `min_face_px` pixels (longer box side, in the full frame)."""

    min_frames: int
    min_face_px: float

    def __post_init__(self) -> None:
        if self.min_frames < 1:
            raise ValueError("min_frames must be at least 1")
        if not (math.isfinite(self.min_face_px) and self.min_face_px >= 0):
            raise ValueError("min_face_px must be 0 or more")


def abstain(label: AbstentionLabel, *reasons: str) -> Verdict:
    """A verdict that says why there is none."""
    return Verdict(label=label, probability=None, thresholds=None, reasons=reasons)


def decide(
    scores: Sequence[TrackScore],
    info: VideoInfo | None,
    stats: DecodeStats | None,
    *,
    thresholds: Thresholds,
    rules: EvidenceRules,
    threshold: float | None = None,
    still: bool = False,
    limits_of_trust: Sequence[str] = (),
) -> Verdict:
    """Judge a file by its people; the order of `scores` changes nothing.

    No person: `no_face`. Nobody sufficiently seen: `uncertain`, with the probability of whoever
    was seen best. Else the label of the most suspicious sufficiently seen person.

    Nothing is called real of which less than half could be decoded.

    Where a file holds fewer frames than the rules ask for (an image holds one), all of them
    suffice. In a `still`, all of whose frames show the same picture, each person is seen once:
    a repeated look is no further evidence. `threshold` replaces `thresholds.fake` and caps
    `thresholds.real`. `limits_of_trust` are sentences to add to the reasons.
    """
    limits = (*_limits(info, stats), *limits_of_trust)
    if not scores:
        return abstain("no_face", _nobody(stats), *limits)
    if threshold is not None:
        thresholds = Thresholds(real=min(thresholds.real, threshold), fake=threshold)
    needed = min(rules.min_frames, _frames_there(info))
    people = [_judge(score, thresholds, rules, needed, still=still) for score in scores]
    people.sort(key=_rank)
    first = people[0]
    sentences = [_people(scores, stats), _span(scores), _face_sizes(scores)]
    if first.sufficient:
        sentences.append(_decisive(first, thresholds))
    else:
        sentences += [_why_insufficient(first, rules, needed, still=still), _best_seen(first)]
    sentences += _doubts(people, needed, rules)
    label = first.label
    if label == "likely_real" and stats is not None and stats.coverage < _MOST:
        label = "uncertain"
        sentences.append("What was seen speaks for a real, but most of the file was not seen.")
    return Verdict(
        label=label,
        probability=first.score.probability,
        thresholds=thresholds,
        reasons=(*sentences, *limits),
        people=tuple(people),
    )


def label_of(probability: float, thresholds: Thresholds) -> JudgedLabel:
    """At or above `fake`: likely_fake; at or below `real`: likely_real; between: uncertain."""
    if probability >= thresholds.fake:
        return "likely_fake"
    return "likely_real" if probability <= thresholds.real else "uncertain"


def _judge(
    score: TrackScore, thresholds: Thresholds, rules: EvidenceRules, needed: float, *, still: bool
) -> PersonVerdict:
    looks = 1 if still else len(score.logits)
    enough = looks >= needed and score.track.face_px >= rules.min_face_px
    label = label_of(score.probability, thresholds) if enough else "uncertain"
    return PersonVerdict(label=label, score=score, sufficient=enough)


def _rank(person: PersonVerdict) -> tuple[float, ...]:
    """Sort key: the person who decides comes first; ties end in facts, never in the input order."""
    score = person.score
    frames, size = len(score.logits), score.track.face_px
    if person.sufficient:
        order = (0.0, -score.probability, -frames, -size)
    else:
        order = (1.0, -frames, -size, -score.probability)
    return (*order, score.track.id, float(score.track.times_s[0]))


def _frames_there(info: VideoInfo | None) -> float:
    """How many frames there are to look at. What a damaged file declares counts too: a video cut
    down to one readable frame is not an image."""
    if info is None:
        return math.inf
    if info.kind == "image":
        return 1
    return max(info.listed_frames, info.declared_frames or 0, 1)


def _nobody(stats: DecodeStats | None) -> str:
    if stats is None:
        return "No face was found."
    return f"No face was found in {_count(stats.positions_read, 'frame')} read."


def _people(scores: Sequence[TrackScore], stats: DecodeStats | None) -> str:
    with_faces = len({int(i) for score in scores for i in score.track.frame_indices})
    who = "One person was found" if len(scores) == 1 else f"{len(scores)} people were found"
    if stats is None:
        return f"{who}, with faces in {_count(with_faces, 'frame')}."
    return f"{who}, with faces in {with_faces} of {_count(stats.positions_read, 'frame')} read."


def _span(scores: Sequence[TrackScore]) -> str:
    first = min(float(score.track.times_s[0]) for score in scores)
    last = max(float(score.track.times_s[-1]) for score in scores)
    if first == last:
        return f"All faces are from one moment, at {first:.1f} s."
    return f"The faces span {last - first:.1f} seconds, from {first:.1f} s to {last:.1f} s."


def _face_sizes(scores: Sequence[TrackScore]) -> str:
    sizes = sorted(score.track.face_px for score in scores)
    if len(sizes) == 1:
        return f"The face is {sizes[0]:.0f} pixels large."
    return f"The faces are {sizes[0]:.0f} to {sizes[-1]:.0f} pixels large."


def _decisive(person: PersonVerdict, thresholds: Thresholds) -> str:
    place = {
        "likely_fake": f"at or above the threshold for fake, {thresholds.fake:.2f}",
        "likely_real": f"at or below the threshold for real, {thresholds.real:.2f}",
        "uncertain": f"between the thresholds, {thresholds.real:.2f} and {thresholds.fake:.2f}",
    }[person.label]
    score = person.score
    return (
        f"Person {score.track.id}, seen in {_count(len(score.logits), 'frame')}, decides: "
        f"probability of fake {score.probability:.3f}, {place}."
    )


def _why_insufficient(
    person: PersonVerdict, rules: EvidenceRules, needed: float, *, still: bool
) -> str:
    """What the best seen person lacks."""
    frames = 1 if still else len(person.score.logits)
    size = person.score.track.face_px
    lacks: list[str] = []
    if frames < needed:
        what = "different frame" if still else "frame"
        lacks.append(f"{_count(frames, what)} where {needed:.0f} are needed")
    if size < rules.min_face_px:
        lacks.append(f"{size:.0f} pixels where {rules.min_face_px:.0f} are needed")
    return f"Nobody was seen sufficiently for a verdict; the best seen: {' and '.join(lacks)}."


def _best_seen(person: PersonVerdict) -> str:
    return f"The probability is that of the best seen, person {person.score.track.id}."


def _doubts(people: Sequence[PersonVerdict], needed: float, rules: EvidenceRules) -> list[str]:
    """What about the people themselves limits trust."""
    first = people[0]
    doubts: list[str] = []
    if first.sufficient and needed < rules.min_frames:
        doubts.append(
            f"There are fewer frames to look at ({needed:.0f}) than the {rules.min_frames} a "
            "verdict normally rests on: trust it less."
        )
    doubts.extend(
        f"Person {other.score.track.id} is more suspicious ({other.score.probability:.3f}) but was "
        f"not seen sufficiently to decide: {_count(len(other.score.logits), 'frame')}, "
        f"{other.score.track.face_px:.0f} pixels."
        for other in people
        if first.sufficient
        and not other.sufficient
        and other.score.probability > first.score.probability
    )
    return doubts


def _limits(info: VideoInfo | None, stats: DecodeStats | None) -> list[str]:
    """What about the file limits trust."""
    limits: list[str] = []
    if info is not None and info.kind == "image":
        limits.append("This is a single image: nothing over time could be examined.")
    if info is not None:
        limits += [said for trait, said in TRAIT_LIMITS.items() if trait in info.traits]
    if stats is None:
        return limits
    if stats.coverage < _COMPLETE:
        # Rounded down, so that a gap is never reported as 100%.
        limits.append(f"Only {math.floor(stats.coverage * 100)}% of the file could be decoded.")
    elif info is not None and info.kind == "video":
        limits.append("The whole file could be decoded.")
    if stats.positions_read < stats.positions_asked:
        limits.append(
            f"Only {stats.positions_read} of {stats.positions_asked} sampling positions were read."
        )
    if stats.corrupt_packets:
        count = _count(stats.corrupt_packets, "corrupt packet")
        limits.append(f"Decoding skipped {count}.")
    if stats.size_changes:
        limits.append(f"The picture's size changed {_count(stats.size_changes, 'time')}.")
    return limits


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
