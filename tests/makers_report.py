"""Reports and scanners made up for tests of the writers and of the command line. No torch."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from forensics.config import ScanConfig
from forensics.errors import CheckpointError, ForensicsError
from forensics.findings import DetectorFacts, Report
from forensics.structures import (
    DecodeStats,
    Label,
    PersonVerdict,
    Thresholds,
    Track,
    TrackScore,
    Verdict,
    VideoInfo,
)

HOSTILE = "=cmd|' /C calc'!A0\x1b[2J\x1b]0;owned\x07\u202egpj.\n\r\t\x00.mp4" + os.fsdecode(
    b"\xff\xfe"
)


def person(probabilities: list[float], *, track_id: int = 0) -> PersonVerdict:
    p = np.asarray(probabilities)
    t = len(p)
    track = Track(
        id=track_id,
        crops=np.zeros((t, 8, 8, 3), np.uint8),
        times_s=np.arange(t) * 0.5,
        boxes=np.tile(np.array([10, 10, 60, 70], np.float32), (t, 1)),
        frame_indices=np.arange(t),
    )
    score = TrackScore(
        track=track,
        logits=np.zeros(t),
        frame_probabilities=p,
        score=0.0,
        probability=float(p.mean()),
    )
    return PersonVerdict(label="likely_fake", score=score, sufficient=True)


def judged(path: str = "clip.mp4", **changes: Any) -> Report:
    report = Report(
        path=path,
        sha256="a" * 64,
        info=VideoInfo(
            kind="video",
            container="mp4",
            codec="h264",
            width=640,
            height=360,
            first_s=0.0,
            last_s=9.96,
            duration_s=10.0,
            frame_rate=25.0,
            declared_frames=250,
            listed_frames=250,
            traits=("variable_frame_rate",),
        ),
        stats=DecodeStats(
            decoded_frames=250,
            corrupt_packets=0,
            size_changes=0,
            coverage=1.0,
            positions_asked=4,
            positions_read=4,
            seconds=0.1,
        ),
        verdict=Verdict(
            label="likely_fake",
            probability=0.91,
            thresholds=Thresholds(real=0.2, fake=0.8),
            reasons=("One person was found.", "The whole file could be decoded."),
            people=(person([0.9, 0.95, 0.88, 0.4]),),
        ),
        detector=DetectorFacts(name="default", version="1", sha256="b" * 64),
        software={"python": "3.11"},
        config={"decoder": "pyav", "sampling": {"fps": None, "frames": 4}},
        started="2026-01-01T00:00:00+00:00",
        ended="2026-01-01T00:00:02+00:00",
        seconds=1.23456,
        timings_s={"decode": 0.5},
    )
    return dataclasses.replace(report, **changes)


def abstained(label: Label = "undecodable", path: str = "clip.mp4") -> Report:
    verdict = Verdict(label=label, probability=None, thresholds=None, reasons=("It is broken.",))
    return judged(path, verdict=verdict, info=None, stats=None, sha256=None)


class FakeScanner:
    """Answers by file name: `fake`, `real`, `uncertain`, an abstention, or a way to fail."""

    def __init__(self, checkpoint: object = None, config: ScanConfig | None = None) -> None:
        self.config = config or ScanConfig()

    def __enter__(self) -> FakeScanner:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def scan(
        self,
        path: Path,
        *,
        on_progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
        last: bool = False,
        keep_evidence: bool = False,
    ) -> Report:
        on_progress("looking", 1, 2)
        word = path.name.partition(".")[0].partition("-")[0]
        failures: dict[str, BaseException] = {
            "crash": RuntimeError("[bold]boom[/bold]\nsecond line"),
            "gone": ForensicsError(f"{path}: cannot be read: Permission denied"),
            "badweights": CheckpointError("weights: damaged"),
            "interrupt": KeyboardInterrupt(),
        }
        if word in failures:
            raise failures[word]
        if word == "cleanup":
            try:
                raise KeyboardInterrupt
            finally:
                raise BufferError("what cleaning up after Ctrl-C ran into")
        labels: dict[str, Label] = {
            "no": "no_face",
            "broken": "undecodable",
            "big": "limit_exceeded",
        }
        if word in labels:
            return abstained(labels[word], str(path))
        report = judged(str(path), config=dataclasses.asdict(self.config))
        label = {"real": "likely_real", "uncertain": "uncertain"}.get(word, "likely_fake")
        return dataclasses.replace(
            report,
            verdict=dataclasses.replace(report.verdict, label=label),  # pyright: ignore
        )
