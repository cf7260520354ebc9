"""`deepfake convert`: published weights become a checkpoint with a card."""

from __future__ import annotations

from pathlib import Path

from forensics.checkpoint import save_checkpoint
from forensics.convert import convert
from forensics.errors import CheckpointError

from .terminal import emit


def run(source: str, model: str, *, out: Path | None, image_size: int | None) -> int:
    """Convert and write; the result is the exit status."""
    path = out or Path(f"{model}.safetensors")
    if path.exists():
        raise CheckpointError(f"{path}: exists already; choose another --out")
    network, card = convert(source, model, image_size=image_size)
    written = save_checkpoint(path, network, card)
    emit(f"{path}: {model}, {written.preprocessing.size} px. {written.training_data}\n")
    return 0
