"""What every network of this project does, whatever its family; a family's tests call `check`."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from fill import fill, golden_input
from torch import Tensor, nn

from forensics.calibration import Platt
from forensics.card import Card
from forensics.checkpoint import load_checkpoint, save_checkpoint
from forensics.export import export_onnx
from forensics.models import build
from forensics.models.cmt import CmtBlock
from forensics.models.inference import for_inference
from forensics.models.published import first_position
from forensics.preprocess import Preprocessing
from forensics.structures import Thresholds
from forensics.verdict import EvidenceRules


def check(name: str, options: Mapping[str, object], size: int, folder: Path) -> None:
    """Forward, backward, odd batches, determinism, bf16, folding, and the ways through a checkpoint
    and through ONNX and back: a new family is tested by calling this."""
    words = {**options, "image_size": size}
    model = build(name, words)
    assert model.image_size == size
    model.load_state_dict(fill(model.state_dict()))
    images = torch.randn(7, 3, size, size, generator=torch.Generator().manual_seed(1))
    _learns(model, images[:3])
    model.load_state_dict(fill(model.state_dict()))  # training has moved it
    model.eval()
    with torch.no_grad(), first_position(model):
        logits: Tensor = model(images)
        assert logits.shape == (7,)
        assert torch.equal(model(images), logits)
        alone = torch.cat([model(image[None]) for image in images])
        torch.testing.assert_close(alone, logits, rtol=1e-4, atol=1e-4)
        with torch.autocast("cpu", torch.bfloat16):
            half = model(images).float()
        near = 0.1 * logits.abs().max().clamp_min(1)
        assert (half - logits).abs().max() < near
        _is_made_faster(model, images[:2].double())

        path = folder / "made.safetensors"
        save_checkpoint(path, model, card(name, words, size))
        loaded = load_checkpoint(path)
        with first_position(loaded.model):  # weights are stored in half
            assert (loaded.model(images) - logits).abs().max() < 0.2 * near
    exported = folder / "made.onnx"
    assert export_onnx(loaded, exported) <= 1e-3
    other = load_checkpoint(exported)
    assert replace(other.card, weights_sha256="") == replace(loaded.card, weights_sha256="")
    with torch.no_grad(), first_position(loaded.model):
        assert (other.model(images) - loaded.model(images)).abs().max() <= 1e-3


def _learns(model: nn.Module, images: Tensor) -> None:
    """Every parameter that is used gets a gradient, and a step against it lowers the loss."""
    model.train()
    model(images).square().sum().backward()
    silent = {n for n, p in model.named_parameters() if p.requires_grad and p.grad is None}
    assert not {n for n in silent if not UNUSED.search(n)}, silent
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    model.eval()  # the same function twice: dropout is silent and norms stand still
    model.zero_grad(set_to_none=True)
    before = model(images).square().sum()
    before.backward()
    used = [p for p in model.parameters() if p.grad is not None]
    slope = sum(float(p.grad.square().sum()) for p in used if p.grad is not None)
    with torch.no_grad():
        for parameter in used:
            assert parameter.grad is not None
            parameter -= 1e-3 * float(before.detach()) / slope * parameter.grad
        after = float(model(images).square().sum())
    assert 0.998 < after / float(before.detach()) < 0.9999


# What published weights carry and nothing reads.
UNUSED = re.compile(
    r"efficient_net\._fc\.|lg_image_embedder\.efficient_net\.(_blocks\.([3-9]|1\d)|_conv_head|_bn1)\."
)


def _is_made_faster(model: nn.Module, images: Tensor) -> None:
    """Made faster a network has fewer batch norms, no pointwise convolutions, no padding of maps,
    and the same logits."""
    exact = copy.deepcopy(model).double()
    folded = for_inference(exact)
    convolutions = [part for part in folded.modules() if isinstance(part, nn.Conv2d)]
    assert all(part.kernel_size != (1, 1) or part.stride != (1, 1) for part in convolutions)
    assert not any(isinstance(part, nn.ZeroPad2d) for part in folded.modules())
    torch.testing.assert_close(folded(images), exact(images), rtol=1e-9, atol=1e-9)
    before, after = (
        sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())
        for network in (exact, folded)
    )
    # CMT normalises after its activations: some of those norms stay.
    assert after == 0 or (after < before and any(isinstance(m, CmtBlock) for m in model.modules()))


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
    logits: Callable[[Any], Tensor] = lambda out: out,
    tolerance: float = 1e-5,
    gradients: bool = True,
    statistics: bool = True,
) -> None:
    """Equal to a reference: parameters, logits, every block's output and every gradient, in float32
    and float64, for batches of one and two; and what a step in training mode leaves in the norms.

    `rename` maps a name in the state dict of `theirs` to that in `mine`; both load strictly.
    """
    state = fill(theirs.state_dict())
    theirs.load_state_dict(state)
    mine.load_state_dict({rename(name): value for name, value in state.items()})
    mine_now = mine.state_dict()
    theirs.load_state_dict({name: mine_now[rename(name)] for name in state})  # and back
    assert {rename(name) for name in state} == set(mine_now)
    assert num_parameters(mine) == num_parameters(theirs)
    blocks = _same_blocks(mine, theirs, rename)
    assert blocks
    for dtype, limit, slope in ((torch.float32, tolerance, 1e-4), (torch.float64, 1e-9, 1e-8)):
        mine.to(dtype).eval()
        theirs.to(dtype).eval()
        for batch in (1, 2):
            x = golden_input(size, batch).to(dtype)
            with torch.set_grad_enabled(gradients and batch == 2):
                ours, seen = watch(mine, list(blocks), x)
                reference, expected = watch(theirs, list(blocks.values()), x)
            reference = logits(reference)
            assert ours.shape == reference.shape
            assert (ours - reference).abs().max() < limit, f"{dtype}, batch {batch}"
            for name, other in blocks.items():
                difference = (seen[name] - expected[other]).abs().max()
                assert difference < limit * expected[other].abs().max().clamp_min(1), name
            if ours.requires_grad:
                ours.square().sum().backward()
                reference.square().sum().backward()
                _compare_gradients(mine, theirs, rename, slope)
    if statistics:
        # Train mode draws (drop connect): both from the same beginning.
        for network in (mine, theirs):
            torch.manual_seed(0)
            with torch.no_grad():
                network.train()(golden_input(size).double())
        after = mine.state_dict()
        for name, value in theirs.state_dict().items():
            if "running_" in name:
                torch.testing.assert_close(after[rename(name)], value, rtol=1e-9, atol=1e-12)
                assert not torch.equal(value, state[name].double()), name  # it did move


def _compare_gradients(
    mine: nn.Module, theirs: nn.Module, rename: Callable[[str], str], limit: float
) -> None:
    expected = {rename(n): p.grad for n, p in theirs.named_parameters() if p.grad is not None}
    found = {n: p.grad for n, p in mine.named_parameters() if p.grad is not None}
    same_gradients(found, expected, limit)
    for network in (mine, theirs):
        network.zero_grad(set_to_none=True)


def same_gradients(
    found: Mapping[str, Tensor], expected: Mapping[str, Tensor], limit: float
) -> None:
    """Within `limit` of each one's largest value, or of a hundredth of the largest of all: what a
    softmax does not see, a bias of its keys, has no gradient but rounding."""
    assert found.keys() == expected.keys()
    floor = 1e-2 * max(float(gradient.abs().max()) for gradient in expected.values())
    for name, gradient in expected.items():
        scale = gradient.abs().max().clamp_min(floor)
        difference = float((found[name] - gradient).abs().max() / scale)
        assert difference < limit, f"{name}: {difference:.1e}"


def _same_blocks(
    mine: nn.Module, theirs: nn.Module, rename: Callable[[str], str]
) -> dict[str, str]:
    """Blocks of `mine` -> the module of `theirs` that holds the same parameters."""

    others: dict[frozenset[str], str] = {}
    for path, module in theirs.named_modules():
        names = frozenset(rename(f"{path}.{n}".lstrip(".")) for n, _ in module.named_parameters())
        others[names] = path  # the innermost of those that wrap each other
    return {
        path: others[frozenset(f"{path}.{n}" for n, _ in module.named_parameters())]
        for path, module in mine.named_modules()
        if re.search(r"blocks\.\d+$", path)
    }


def watch(network: nn.Module, names: list[str], x: Tensor) -> tuple[Any, dict[str, Tensor]]:
    """What the network gives for `x`, and what its modules of these names gave on the way."""
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: object, output: Any) -> None:
            seen[name] = output[0] if isinstance(output, tuple) else output

        return hook

    hooks = [network.get_submodule(n).register_forward_hook(keep(n)) for n in names]
    try:
        return network(x), seen
    finally:
        for hook in hooks:
            hook.remove()


def num_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
