"""Runs made on the spot: samples, and an engine that answers by the file's name alone.

Executed, it is a run in a process of its own, to be killed: FOLDER COUNT PAUSE_S.
"""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from forensics.datasets.manifest import Sample
from forensics.evaluation.outcome import FrameRow, Outcome, TrackRow, Unit, failed
from forensics.evaluation.run import Judge, examine_all
from forensics.evaluation.selection import Selection
from forensics.structures import Thresholds

JUDGE = Judge(
    name="by name",
    version="1",
    sha256="5" * 64,
    thresholds=Thresholds(real=0.3, fake=0.7),
    protocol={"frames": 4, "faces": {"longest_side": 640}},
)


def samples(count: int) -> tuple[Sample, ...]:
    """Two data sets, two methods, two compressions; four files share a recording."""
    return tuple(
        Sample(
            path=f"{'fake' if number % 2 else 'real'}/{number:04d}.mp4",
            label="fake" if number % 2 else "real",
            kind="video",
            dataset="first" if number % 8 < 4 else "second",
            method=("swap" if number % 4 == 1 else "talk") if number % 2 else "",
            sources=(f"recording:{number // 4}",),
            split="test",
            compression="c40" if number % 16 > 11 else "c23",
        )
        for number in range(count)
    )


def selection(count: int = 64) -> Selection:
    return Selection(dataset="drawn", root="nowhere", split="all", samples=samples(count))


def probability(unit: Unit) -> float:
    """Somewhat right: fakes lie 0.25 higher; a condition takes half of that away."""
    digest = hashlib.sha256(unit.sample.path.encode()).digest()
    gain = 0.25 if unit.condition == "clean" else 0.12
    return int.from_bytes(digest[:4], "big") / 2**32 * 0.7 + gain * (unit.sample.label == "fake")


def outcome(unit: Unit) -> Outcome:
    number = int(Path(unit.sample.path).stem)
    if number % 16 == 7:
        return failed(unit, "no such file")
    if number % 16 == 10:
        return Outcome(
            place=unit.sample.place, condition=unit.condition, label="no_face", detail="No face."
        )
    p = probability(unit)
    label = "likely_fake" if p >= 0.7 else "likely_real" if p <= 0.3 else "uncertain"
    face_px = 30.0 + 5 * number
    return Outcome(
        place=unit.sample.place,
        condition=unit.condition,
        label=label,
        probability=p,
        score=p * 4 - 2,
        face_px=face_px,
        frames_read=4,
        seconds=0.25,
        sha256="a" * 64,
        tracks=(
            TrackRow(
                track=0,
                label=label,
                sufficient=True,
                num_frames=4,
                face_px=face_px,
                score=p * 4 - 2,
                probability=p,
            ),
        ),
        frames=tuple(
            FrameRow(
                track=0,
                frame=frame,
                time_s=frame / 4,
                box=(1.0, 2.0, 31.0, 42.0),
                logit=p * 4 - 2,
                probability=min(1.0, p + frame / 100),
            )
            for frame in range(4)
        ),
    )


class NamedEngine:
    """Answers at once, or `pause_s` later; `seen` lists what it was asked."""

    def __init__(self, pause_s: float = 0.0) -> None:
        self.pause_s = pause_s
        self.seen: list[tuple[str, str]] = []

    def outcomes(self, units: Iterator[Unit]) -> Iterator[Outcome]:
        for unit in units:
            self.seen.append(unit.key)
            time.sleep(self.pause_s)
            yield outcome(unit)


if __name__ == "__main__":
    examine_all(
        selection(int(sys.argv[2])), JUDGE, NamedEngine(float(sys.argv[3])), Path(sys.argv[1])
    )
