"""One file from its address to its outcome, by the scan itself; whatever happens is an outcome."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import cast

import torch

from forensics.card import Card
from forensics.checkpoint import Checkpoint
from forensics.config import ScanConfig
from forensics.errors import (
    CheckpointError,
    ConfigError,
    ForensicsError,
    MediaError,
    ScanCancelled,
)
from forensics.evaluation.degrade import degraded
from forensics.evaluation.outcome import Outcome, Unit, failed, outcome_of
from forensics.evaluation.pictures import face_track
from forensics.evaluation.run import Judge
from forensics.evaluation.storage import stored
from forensics.faces import FaceDetector
from forensics.models.inference import for_inference
from forensics.pipeline import Scanner
from forensics.report.facts import require_stored
from forensics.runtime import choose_device
from forensics.scoring import precision, score_tracks
from forensics.structures import AbstentionLabel, Verdict
from forensics.verdict import abstain, decide
from forensics.video import Cancellation


class Examiner:
    """Examines files for any number of threads. Use it as a context manager."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        config: ScanConfig,
        *,
        face_detector: FaceDetector | None = None,
    ) -> None:
        self._checkpoint, self._config = checkpoint, config
        self._scorer = replace(checkpoint, model=for_inference(checkpoint.model))
        self._scanner = Scanner(checkpoint, config, face_detector=face_detector)

    def __enter__(self) -> Examiner:
        return self

    def __exit__(self, *_: object) -> None:
        self._scanner.close()

    def examine(self, unit: Unit, cancellation: Cancellation) -> Outcome:
        """The unit's outcome; what goes wrong with the file itself is one, too.

        Raises ScanCancelled, and CheckpointError and ConfigError: no other file would fare better.
        """
        try:
            with stored(unit.location) as path:
                return self._named(unit, path, cancellation)
        except (ScanCancelled, CheckpointError, ConfigError):
            raise
        except MediaError as error:  # of a version that could not be made
            return self._outcome(unit, abstain(cast("AbstentionLabel", error.label), str(error)))
        except ForensicsError as error:
            return failed(unit, str(error))
        except Exception as error:
            return failed(unit, f"unexpected {type(error).__name__}: {error}; please report this")

    def _named(self, unit: Unit, path: Path, cancellation: Cancellation) -> Outcome:
        if unit.sample.kind != "video":
            return self._pictures(unit, path)
        require_stored(path)
        with degraded(path, unit, limits=self._config.limits, cancellation=cancellation) as version:
            report = self._scanner.scan(version, cancellation=cancellation)
        return self._outcome(
            unit,
            report.verdict,
            frames_read=report.stats.positions_read if report.stats else 0,
            seconds=report.seconds,
            sha256=report.sha256,
            hide=version,
        )

    def _pictures(self, unit: Unit, path: Path) -> Outcome:
        """Crops are judged as they are: whoever cut them chose the margin."""
        started, card = time.perf_counter(), self._checkpoint.card
        read = 0
        try:
            track = face_track(
                path,
                unit.sample,
                frames=self._config.sampling.frames,
                size=card.preprocessing.crop_size,
            )
            read = len(track.times_s)
            device = choose_device(self._config.device)
            scores = score_tracks(
                [track],
                self._scorer,
                batch_size=self._config.batch_size,
                device=device,
                dtype=precision(card, device),
            )
            verdict = decide(scores, None, None, thresholds=card.thresholds, rules=card.evidence)
        except MediaError as error:
            verdict = abstain("undecodable", str(error))
        return self._outcome(
            unit, verdict, frames_read=read, seconds=time.perf_counter() - started, hide=path
        )

    def _outcome(
        self,
        unit: Unit,
        verdict: Verdict,
        *,
        frames_read: int = 0,
        seconds: float = 0.0,
        sha256: str | None = None,
        hide: Path | None = None,
    ) -> Outcome:
        return outcome_of(
            unit,
            verdict,
            frames_read=frames_read,
            seconds=seconds,
            sha256=sha256,
            hide=str(hide or unit.location),
        )


def judge_of(checkpoint: Checkpoint, config: ScanConfig, dtype: torch.dtype) -> Judge:
    """The detector as a run knows it, with everything that changes its scores."""
    card = checkpoint.card
    settings = asdict(config)
    # Where it computes and how many faces at a time is not what it computes.
    for name in ("device", "batch_size", "threshold"):
        del settings[name]
    return Judge(
        name=card.name,
        version=card.version,
        sha256=checkpoint.sha256,
        thresholds=card.thresholds,
        protocol=settings
        | {
            "aggregation": f"{card.aggregation} of a person's frame logits, calibrated; the most"
            " suspicious person seen sufficiently",
            "frame_score": "the most suspicious face of the frame",
            "crop_margin": card.preprocessing.margin,
            "crop_size": card.preprocessing.crop_size,
            "views": [asdict(view) for view in card.preprocessing.views],
            "min_frames": card.evidence.min_frames,
            "min_face_px": card.evidence.min_face_px,
            "dtype": str(dtype).removeprefix("torch."),
        },
    )


def shared_precision(card: Card, config: ScanConfig) -> tuple[torch.device, torch.dtype]:
    """Where and in which type a scan with this configuration computes on this machine."""
    device = choose_device(config.device)
    return device, precision(card, device)
