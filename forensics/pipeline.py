"""From a path to a Report: the only place that knows the order of the stages.

    video -> frames -> faces -> tracks -> scores -> verdict -> report

Costs overlap: a child process decodes ahead while this one looks for faces, the input's hash is
taken in a thread, and torch is imported while the first file is already being decoded. Hence the
imports inside functions: whatever pulls in torch is imported by `Scanner._load`, or after it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

from forensics.config import ScanConfig
from forensics.errors import ForensicsError, MediaError
from forensics.findings import DetectorFacts, Report
from forensics.report.custody import host_facts
from forensics.report.facts import Clock, file_sha256, require_stored, software_versions
from forensics.report.sanity import Pictures
from forensics.sampling import choose_times
from forensics.structures import (
    AbstentionLabel,
    DecodeStats,
    Frame,
    Observation,
    Verdict,
    VideoInfo,
)
from forensics.verdict import abstain, decide
from forensics.video import Cancellation, dismiss, open_video, prestart

if TYPE_CHECKING:
    import torch

    from forensics.checkpoint import Checkpoint
    from forensics.detector import Detector
    from forensics.faces import FaceDetector

# Stage ("loading", "looking", "scoring"; "explaining" where evidence is kept), done, total.
OnProgress = Callable[[str, int, int], None]

# Crops of one file: 4800 faces of 384 px. A crowd in 4096 frames would be 100 GB.
_CROP_BYTES = 2**31


def scan(
    path: str | Path,
    *,
    checkpoint: Checkpoint | str | Path | None = None,
    config: ScanConfig | None = None,
    on_progress: OnProgress | None = None,
    keep_evidence: bool = False,
) -> Report:
    """Examine one file. `checkpoint` is a shipped detector's name, a file or a loaded checkpoint.

    `keep_evidence` makes what a report for people shows beside the numbers (`Report.evidence`).

    A file that cannot be judged ends in a Report whose verdict abstains and says why. Raises
    ForensicsError where there is no file to examine, and its CheckpointError and ConfigError.
    """
    with Scanner(checkpoint, config) as scanner:
        return scanner.scan(path, on_progress=on_progress, last=True, keep_evidence=keep_evidence)


@dataclass(slots=True)
class _Looked:
    """What looking at one file has found so far."""

    info: VideoInfo | None = None
    stats: DecodeStats | None = None
    observations: list[Observation] = field(default_factory=list[Observation])
    pictures: Pictures = field(default_factory=Pictures)


class Scanner:
    """Examines files one after the other and pays for set-up once. Use it as a context manager.

    The detector is loaded in the background: a CheckpointError or ConfigError shows in `scan`.
    """

    def __init__(
        self,
        checkpoint: Checkpoint | str | Path | None = None,
        config: ScanConfig | None = None,
        *,
        face_detector: FaceDetector | None = None,
    ) -> None:
        self._config = config or ScanConfig()
        # First of all: the child's own imports run while torch is imported here.
        prestart(self._config.decoder)
        self._closing = threading.Event()
        self._pool = ThreadPoolExecutor(max_workers=2, thread_name_prefix="forensics")
        self._detector = self._pool.submit(self._load, checkpoint or "default", face_detector)

    def __enter__(self) -> Scanner:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the threads and the decoder process that stands by."""
        self._closing.set()
        self._pool.shutdown(cancel_futures=True)
        if not self._detector.cancelled() and self._detector.exception() is None:
            self._detector.result().close()
        dismiss()

    @property
    def detector(self) -> DetectorFacts:
        """Which detector judges; waits for it. Raises CheckpointError or ConfigError."""
        return self._detector.result().facts

    def scan(
        self,
        path: str | Path,
        *,
        on_progress: OnProgress | None = None,
        last: bool = False,
        cancellation: Cancellation | None = None,
        keep_evidence: bool = False,
    ) -> Report:
        """Examine one file; see `forensics.scan`. `last` says that no other will follow.

        Raises ScanCancelled once another thread calls `cancellation.cancel()`.
        """
        started, clock = datetime.now(timezone.utc), Clock()
        cancellation = cancellation or Cancellation()
        path, looked, digest = Path(path), _Looked(), None

        def report_progress(stage: str, done: int, total: int) -> None:
            cancellation.check()
            (on_progress or _silent)(stage, done, total)

        try:
            require_stored(path)
            digest = self._pool.submit(
                file_sha256, path, lambda: self._closing.is_set() or cancellation.is_set()
            )
            self._look(path, looked, clock, report_progress, cancellation)
            if not last:
                prestart(self._config.decoder)  # loads its library while this file is scored
            verdict = self._judge(looked, clock, report_progress)
        except MediaError as error:
            cancellation.check()  # then it is the decoder's end that was asked for
            verdict = abstain(cast("AbstentionLabel", error.label), str(error))
        detector = self._detector.result()
        dtype = str(detector.dtype).removeprefix("torch.")
        with clock.stage("hash"):
            try:
                sha256, num_bytes = digest.result() if digest else (None, None)
            except ForensicsError:
                cancellation.check()  # then it is the end of hashing that was asked for
                raise
        evidence = None
        if keep_evidence:
            report_progress("explaining", 0, 1)
            with clock.stage("evidence"):
                from forensics.evidence import gather

                evidence = gather(
                    path,
                    verdict,
                    detector.checkpoint,
                    detector.device,
                    readable=digest is not None,
                    on_progress=partial(report_progress, "explaining"),
                    cancellation=cancellation,
                )
            report_progress("explaining", 1, 1)
        return Report(
            path=str(path),
            sha256=sha256,
            info=looked.info,
            stats=looked.stats,
            verdict=verdict,
            detector=self.detector,
            software=software_versions(),
            config=asdict(self._config)
            | {"device": str(detector.device), "dtype": dtype, "batch_size": detector.batch_size},
            started=started.isoformat(timespec="seconds"),
            ended=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            num_bytes=num_bytes,
            host=_host(detector.device),
            evidence=evidence,
            seconds=clock.total(),
            timings_s=clock.stages,
        )

    def _judge(self, looked: _Looked, clock: Clock, on_progress: OnProgress) -> Verdict:
        from forensics.scoring import score_tracks
        from forensics.tracking import link

        detector = self._detector.result()
        card = detector.checkpoint.card
        with clock.stage("track"):
            tracks = link(looked.observations)
        with clock.stage("score"):
            scores = score_tracks(
                tracks,
                detector.scorer,
                batch_size=detector.batch_size,
                device=detector.device,
                dtype=detector.dtype,
                workers=detector.workers,
                on_progress=lambda done, total: on_progress("scoring", done, total),
            )
        return decide(
            scores,
            looked.info,
            looked.stats,
            thresholds=card.thresholds,
            rules=card.evidence,
            threshold=self._config.threshold,
            still=looked.pictures.still,
            limits_of_trust=looked.pictures.doubts(),
        )

    def _look(
        self,
        path: Path,
        looked: _Looked,
        clock: Clock,
        on_progress: OnProgress,
        cancellation: Cancellation,
    ) -> None:
        """Decode and find faces. Frames are dropped batch by batch, crops are kept.

        `looked` keeps what was learned when a MediaError ends this early.
        """
        from forensics.observations import batches

        config, done = self._config, 0
        with clock.stage("open"):
            session = open_video(
                path, decoder=config.decoder, limits=config.limits, cancellation=cancellation
            )
        with session:
            looked.info = session.info
            positions = choose_times(
                config.sampling, session.info, max_frames=config.limits.max_frames, source=path
            )
            # The child decodes ahead: what counts as decoding is the wait for it.
            frames = session.frames(positions)
            for batch in batches(clock.waits("decode", frames), config.faces.batch_frames):
                if not self._detector.done():
                    on_progress("loading", 0, len(positions))
                with clock.stage("load"):
                    detector = self._detector.result()
                looked.observations += _faces_of(batch, detector, clock)
                if sum(seen.crop.nbytes for seen in looked.observations) > _CROP_BYTES:
                    raise MediaError(
                        f"{path}: too many faces in too many frames; ask for fewer frames",
                        label="limit_exceeded",
                    )
                looked.pictures.add(batch)
                done += len(batch)
                on_progress("looking", done, len(positions))
            looked.stats = session.stats
        if done == 0:
            raise MediaError(f"{path}: no frame could be decoded", label="undecodable")

    def _load(
        self, checkpoint: Checkpoint | str | Path, face_detector: FaceDetector | None
    ) -> Detector:
        """In the background: the import alone brings torch."""
        from forensics.detector import load_detector

        return load_detector(
            checkpoint, self._config, face_detector=face_detector, stop=self._closing
        )


def _silent(stage: str, done: int, total: int) -> None:
    """The progress of a caller who does not ask for it."""


def _faces_of(batch: list[Frame], detector: Detector, clock: Clock) -> list[Observation]:
    from forensics.observations import observe

    cutting = detector.checkpoint.card.preprocessing
    with clock.stage("detect"):
        faces = detector.faces.detect([frame.pixels for frame in batch])
    with clock.stage("crop"):
        return observe(batch, faces, margin=cutting.margin, size=cutting.crop_size)


def _host(device: torch.device) -> dict[str, str | int]:
    from forensics.runtime import device_name, num_threads

    return host_facts(device_name(device), num_threads())
