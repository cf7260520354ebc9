"""A checkpoint for other runtimes: ONNX, compared with the network before it is kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from forensics import onnx_file
from forensics.card import card_json
from forensics.checkpoint import Checkpoint, write_whole
from forensics.errors import CheckpointError
from forensics.models.published import first_position
from forensics.preprocess import normalise

TOLERANCE = 1e-3  # on logits: a hundredth of what half-precision weights move them by
_LARGEST = 2**31 - 2**24  # bytes: protobuf's limit, less room for the graph


def export_onnx(checkpoint: Checkpoint, path: Path) -> float:
    """Write `path`, whole or not at all; the largest difference of a logit seen in comparing.

    Exported is the network as a scan uses it (`first_position`). Both run on the same five crops of
    noise, in batches of one and four. Raises CheckpointError where they differ by more than
    `TOLERANCE` or the file cannot be written, ConfigError where onnx or onnxruntime is not
    installed.
    """
    if path.suffix != ".onnx":
        raise CheckpointError(f"{path}: an ONNX file's name ends in .onnx")
    with first_position(checkpoint.model):
        data, difference = _compared(checkpoint, path)
    write_whole(path, data)
    return difference


def _compared(checkpoint: Checkpoint, path: Path) -> tuple[bytes, float]:
    size = checkpoint.card.preprocessing.size
    stored = 4 * sum(tensor.numel() for tensor in checkpoint.model.state_dict().values())
    if stored > _LARGEST:
        raise CheckpointError(
            f"{path}: not written: {stored / 1e9:.1f} GB of weights, and an ONNX file holds 2.1 GB"
        )
    data = onnx_file.write(checkpoint.model, size)
    card = replace(checkpoint.card, weights_sha256=onnx_file.graph_sha256(data))
    data = onnx_file.with_card(data, card_json(card, str(path)))
    exported = onnx_file.load(data, size, str(path))
    crops = np.random.default_rng(0).integers(0, 256, (5, size, size, 3), np.uint8)
    images = normalise(crops, checkpoint.card.preprocessing)
    model = checkpoint.model
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    difference = 0.0
    with torch.inference_mode():
        for batch in (images[:1], images[1:]):
            expected = model(batch.to(device)).cpu()
            difference = max(difference, float((exported(batch) - expected).abs().max()))
    if not difference <= TOLERANCE:  # false for NaN, too
        raise CheckpointError(
            f"{path}: not written: its logits differ by {difference:.2g} from the checkpoint's, "
            f"more than {TOLERANCE:g}"
        )
    return data, difference
