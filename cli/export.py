"""`deepfake export`: a checkpoint for other runtimes."""

from __future__ import annotations

from pathlib import Path

from forensics.checkpoint import load_checkpoint
from forensics.errors import CheckpointError
from forensics.export import export_onnx

from .terminal import emit


def run(checkpoint: str, *, out: Path | None) -> int:
    """Export and compare; the result is the exit status."""
    loaded = load_checkpoint(checkpoint)
    path = out or Path(f"{loaded.path.stem}.onnx")
    if path.exists():
        raise CheckpointError(f"{path}: exists already; choose another --out")
    difference = export_onnx(loaded, path)
    emit(f"{path}: {loaded.card.model}; logits differ by at most {difference:.1e}\n")
    return 0
