"""The seconds of a person's track where suspicion is highest; pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from forensics.structures import TrackScore

# Neighbouring frames belong to the same moment while they are nearly as suspicious as its peak.
_WITHIN = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """From `start_s` to `end_s`, at most `probability` of fake in one frame."""

    start_s: float
    end_s: float
    probability: float


def most_suspicious(score: TrackScore) -> Moment:
    """The span around the frame with the highest probability of fake; the first one among equals.

    It reaches as far as the neighbouring examined frames stay within 0.1 of the peak.
    """
    probabilities, times = score.frame_probabilities, score.track.times_s
    first = last = int(np.argmax(probabilities))
    peak = float(probabilities[first])
    while first > 0 and probabilities[first - 1] >= peak - _WITHIN:
        first -= 1
    while last + 1 < len(times) and probabilities[last + 1] >= peak - _WITHIN:
        last += 1
    return Moment(start_s=float(times[first]), end_s=float(times[last]), probability=peak)


def extremes(score: TrackScore, count: int) -> tuple[list[int], list[int]]:
    """Places of the `count` most and the `count` least suspicious faces, the furthest out first.

    No face is in both lists: a short track gives fewer. The earlier one comes first among equals.
    """
    order = np.argsort(-score.frame_probabilities, kind="stable").tolist()
    most = order[: min(count, (len(order) + 1) // 2)]
    least = order[len(most) :][::-1][:count]
    return most, least
