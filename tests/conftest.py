"""Fixtures that several test modules share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint file with seeded random weights: knows nothing, but has every part."""
    import torch

    from forensics.calibration import Platt
    from forensics.card import Card
    from forensics.checkpoint import save_checkpoint
    from forensics.models import build
    from forensics.preprocess import Preprocessing
    from forensics.structures import Thresholds
    from forensics.verdict import EvidenceRules

    options = {"image_size": 64, "width": 32, "depth": 1, "heads": 2}
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.safetensors"
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = build("efficient-vit", options).train()
        # One pass sets the batch norms' statistics: without it the random network says the same
        # of every picture, and no test would notice wrong crops.
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 1.0
        with torch.no_grad():
            model(torch.randn(16, 3, 64, 64))
        model.eval()
    save_checkpoint(
        path,
        model,
        Card(
            name="tiny",
            version="0",
            model="efficient-vit",
            options=options,
            preprocessing=Preprocessing(
                size=64, margin=1.3, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)
            ),
            calibration=Platt(scale=1.0, offset=0.0),
            thresholds=Thresholds(real=0.3, fake=0.7),
            evidence=EvidenceRules(min_frames=4, min_face_px=16),
            training_data="none: random weights",
            manifest_sha256="0" * 64,
            metrics={},
            licence="Apache-2.0",
        ),
    )
    return path


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Small tensors: more threads only wait for each other."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
