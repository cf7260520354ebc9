"""What every network of this project does, whatever its family; a family's tests call `check`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from fill import fill, golden_input
from torch import Tensor, nn

from forensics.calibration import Platt
from forensics.checkpoint import Card, load_checkpoint, save_checkpoint
from forensics.models import build
from forensics.preprocess import Preprocessing
from forensics.structures import Thresholds
from forensics.verdict import EvidenceRules


def check(
    name: str, options: dict[str, object], size: int, folder: Path, *, batch_matters: bool = False
) -> None:
    """Forward, backward, odd batches, determinism, bf16, and a checkpoint's way there and back."""
    words = {**options, "image_size": size}
    model = build(name, words)
    assert model.image_size == size
    model.load_state_dict(fill(model.state_dict()))
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(3, 3, size, size, generator=generator)

    model.train()
    loss = model(images).square().sum()
    loss.backward()
    silent = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not [n for n in silent if not _unused(n)], silent
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)

    model.load_state_dict(fill(model.state_dict()))  # the statistics moved in training mode
    model.eval()
    with torch.no_grad():
        logits: Tensor = model(images)
        assert logits.shape == (3,)
        assert torch.equal(model(images), logits)
        assert model(images[:1]).shape == (1,)
        if not batch_matters:
            alone = torch.cat([model(image[None]) for image in images])
            torch.testing.assert_close(alone, logits, rtol=1e-4, atol=1e-4)
        with torch.autocast("cpu", torch.bfloat16):
            half = model(images).float()
    assert torch.isfinite(half).all()
    assert (half - logits).abs().max() < 0.1 * logits.abs().max().clamp_min(1)

    path = folder / f"{name}.safetensors"
    save_checkpoint(path, model, card(name, words, size))
    loaded = load_checkpoint(path).model
    with torch.no_grad():
        difference = (loaded(images) - logits).abs().max()
    assert difference < 0.02 * logits.abs().max().clamp_min(1)  # weights are stored in half


def _unused(name: str) -> bool:
    """What published weights carry and nothing reads."""
    return ".net._fc." in name or "efficient_net." in name


def card(name: str, options: dict[str, object], size: int) -> Card:
    return Card(
        name="test",
        version="0",
        model=name,
        options=options,
        preprocessing=Preprocessing(size=size, margin=1.3, mean=(0.5,) * 3, std=(0.5,) * 3),
        calibration=Platt(scale=1.0, offset=0.0),
        thresholds=Thresholds(real=0.4, fake=0.6),
        evidence=EvidenceRules(min_frames=1, min_face_px=1),
        training_data="none",
        manifest_sha256="",
        metrics={},
        licence="Apache-2.0",
    )


def compare(
    mine: nn.Module,
    theirs: nn.Module,
    *,
    size: int,
    rename: Callable[[str], str] = lambda name: name,
    logits: Callable[[object], Tensor] = lambda out: out,  # type: ignore[assignment,return-value]
    tolerance: float = 1e-5,
) -> None:
    """Equal logits in float32 and float64 and equal gradients, for batches of 1 and 2.

    `rename` maps a parameter's name in `theirs` to that in `mine`; both load strictly.
    """
    state = fill(theirs.state_dict())
    theirs.load_state_dict(state)
    renamed = {rename(name): value for name, value in state.items()}
    mine.load_state_dict(renamed)
    assert {rename(n) for n in theirs.state_dict()} == set(mine.state_dict())  # and back
    mine.eval()
    theirs.eval()
    for batch in (1, 2):
        x = golden_input(size, batch)
        with torch.no_grad():
            difference = (mine(x) - logits(theirs(x))).abs().max()
        assert difference < tolerance, f"batch {batch}: {difference:.2e}"
    mine.double()
    theirs.double()
    x = golden_input(size).double()
    ours, reference = mine(x), logits(theirs(x))
    assert (ours - reference).abs().max() < 1e-9
    ours.square().sum().backward()
    reference.square().sum().backward()
    gradients = dict(mine.named_parameters())
    for name, parameter in theirs.named_parameters():
        expected, actual = parameter.grad, gradients[rename(name)].grad
        assert (expected is None) == (actual is None), name
        if expected is not None and actual is not None:
            scale = expected.abs().max().clamp_min(1e-6)
            assert (actual - expected).abs().max() / scale < 1e-8, name


def num_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
