"""What became of one file: the row of the ledger, its people and its frames."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

from forensics.datasets.manifest import Sample
from forensics.structures import PersonVerdict, Verdict

# `failed` is no answer: the file was missing, a worker died, a bug. A named abstention is `done`.
State = Literal["pending", "done", "failed"]
AS_IT_IS = "clean"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """One thing to do: `sample` at `location` (a path or an address), changed by `condition`."""

    sample: Sample
    location: str
    condition: str = AS_IT_IS

    @property
    def key(self) -> tuple[str, str]:
        return self.sample.place, self.condition


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameRow:
    """One face in one frame: `box` xyxy in pixels of the full frame, `logit` uncalibrated."""

    track: int
    frame: int
    time_s: float
    box: tuple[float, float, float, float]
    logit: float
    probability: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackRow:
    """One person: `score` is the aggregated logit, `face_px` the median longer side of the box.

    The first of a file's tracks decides its verdict.
    """

    track: int
    label: str
    sufficient: bool
    num_frames: int
    face_px: float
    score: float
    probability: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """`label` and `probability` are those of the verdict, None where there is none; `score`,
    `face_px` belong to the person who decides it. `detail` says why there is no probability."""

    place: str
    condition: str = AS_IT_IS
    state: State = "done"
    label: str | None = None
    probability: float | None = None
    score: float | None = None
    face_px: float | None = None
    frames_read: int = 0
    seconds: float = 0.0
    sha256: str | None = None
    detail: str = ""
    tracks: tuple[TrackRow, ...] = ()
    frames: tuple[FrameRow, ...] = ()

    @property
    def key(self) -> tuple[str, str]:
        return self.place, self.condition


class Engine(Protocol):
    """Whatever examines files: on this machine or on many. Outcomes come in any order."""

    def outcomes(self, units: Iterator[Unit]) -> Iterator[Outcome]:
        """Every unit's outcome, as it finishes. A failed file is an outcome, not an error."""
        ...


OnOutcome = Callable[[Outcome], None]


def outcome_of(
    unit: Unit,
    verdict: Verdict,
    *,
    frames_read: int,
    seconds: float,
    sha256: str | None,
    hide: str,
) -> Outcome:
    """A verdict in the ledger's words. `hide`: the path that was read, shown as the file's place:
    a copy's path means nothing later."""
    people = verdict.people
    detail = " ".join(verdict.reasons) if verdict.abstained else ""
    return Outcome(
        place=unit.sample.place,
        condition=unit.condition,
        label=verdict.label,
        probability=verdict.probability,
        score=people[0].score.score if people else None,
        face_px=people[0].score.track.face_px if people else None,
        frames_read=frames_read,
        seconds=seconds,
        sha256=sha256,
        detail=detail.replace(hide, unit.sample.place),
        tracks=tuple(_track(person) for person in people),
        frames=tuple(frame for person in people for frame in _frames(person)),
    )


def failed(unit: Unit, detail: str) -> Outcome:
    """The outcome of a file that could not be examined at all."""
    return Outcome(place=unit.sample.place, condition=unit.condition, state="failed", detail=detail)


def _track(person: PersonVerdict) -> TrackRow:
    score = person.score
    return TrackRow(
        track=score.track.id,
        label=person.label,
        sufficient=person.sufficient,
        num_frames=len(score.logits),
        face_px=score.track.face_px,
        score=score.score,
        probability=score.probability,
    )


def _frames(person: PersonVerdict) -> Iterator[FrameRow]:
    score, track = person.score, person.score.track
    rows = zip(
        track.frame_indices.tolist(),
        track.times_s.tolist(),
        track.boxes.tolist(),
        score.logits.tolist(),
        score.frame_probabilities.tolist(),
        strict=True,
    )
    for frame, time_s, (x0, y0, x1, y1), logit, probability in rows:
        yield FrameRow(
            track=track.id,
            frame=frame,
            time_s=time_s,
            box=(x0, y0, x1, y1),
            logit=logit,
            probability=probability,
        )
