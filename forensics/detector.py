"""A detector ready to examine: networks, device and threads, made once for all files."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from forensics.checkpoint import Checkpoint, load_checkpoint
from forensics.config import ScanConfig
from forensics.errors import ForensicsError
from forensics.faces import FaceDetector, MtcnnDetector
from forensics.findings import DetectorFacts
from forensics.models.inference import for_inference
from forensics.runtime import Workers, choose_device, compute_workers
from forensics.scoring import faces_per_pass, precision


@dataclass(frozen=True, slots=True, kw_only=True)
class Detector:
    """What looking and judging need. `batch_size` counts faces per pass of the network."""

    checkpoint: Checkpoint
    scorer: Checkpoint  # the same with its network made faster
    faces: FaceDetector
    device: torch.device
    dtype: torch.dtype
    workers: Workers | None
    batch_size: int

    @property
    def facts(self) -> DetectorFacts:
        """Its name, version and the hash of its file, as a report gives them."""
        card = self.checkpoint.card
        return DetectorFacts(name=card.name, version=card.version, sha256=self.checkpoint.sha256)

    def close(self) -> None:
        """Stop the threads that compute. May be called twice."""
        if self.workers is not None:
            self.workers.close()


def load_detector(
    checkpoint: Checkpoint | str | Path,
    config: ScanConfig,
    *,
    face_detector: FaceDetector | None = None,
    stop: threading.Event,
) -> Detector:
    """The detector of a shipped name, a file or a loaded checkpoint; MTCNN unless told otherwise.

    Raises CheckpointError, ConfigError for a device that is not there, and ForensicsError where
    `stop` is set before the weights are read.
    """
    device = choose_device(config.device)
    if stop.is_set():
        raise ForensicsError("the scanner was closed while it was loading")
    if isinstance(checkpoint, Checkpoint):
        checkpoint.model.to(device)
    else:
        checkpoint = load_checkpoint(checkpoint, device=device)
    workers = compute_workers(device)
    faces = face_detector or MtcnnDetector(
        config.faces,
        max_faces=config.limits.max_faces,
        device=str(device),
        workers=workers,
    )
    return Detector(
        checkpoint=checkpoint,
        scorer=replace(checkpoint, model=for_inference(checkpoint.model)),
        faces=faces,
        device=device,
        dtype=precision(checkpoint.card, device),
        workers=workers,
        batch_size=faces_per_pass(config.batch_size, device),
    )
