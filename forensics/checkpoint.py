"""Checkpoints: one safetensors file that holds the weights and, in its metadata, their card.

A card says everything needed to use the weights: the network is rebuilt from it alone. Pickles
are never loaded: they run code.

Legend: names, shapes and dtypes are those of the network's state dict.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as parse_safetensors
from safetensors.torch import save as dump_safetensors
from torch import Tensor, nn

from forensics import onnx_file
from forensics.card import Card, card_json, parse_card
from forensics.errors import CheckpointError, ConfigError
from forensics.models import build
from forensics.whole_file import whole_file

DEFAULT_DETECTOR = "default"
CARD_KEY = "card"
_PICKLES = (".pth", ".pt", ".ckpt", ".pkl", ".pickle")
_SHOWN_KEYS = 5  # of missing or unexpected ones in an error: enough to recognise the mistake


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A detector ready to score: `model` in eval mode, float32, on its device. `sha256` is that of
    the whole file at `path`; `card.weights_sha256` that of the weights alone."""

    card: Card
    model: nn.Module
    sha256: str
    path: Path


def shipped() -> dict[str, Path]:
    """The detectors inside this package, name -> file."""
    folder = Path(str(resources.files("forensics.weights")))
    return {path.stem: path for path in sorted(folder.glob("*.safetensors"))}


def load_checkpoint(
    name_or_path: str | Path = DEFAULT_DETECTOR, *, device: torch.device | str = "cpu"
) -> Checkpoint:
    """Load a shipped detector by name, or a checkpoint file by path.

    The weights' hash is verified and the network rebuilt from the card alone. A file that bears a
    shipped detector's name is reached as `./name`. Raises CheckpointError, one line, when anything
    is missing or does not fit.
    """
    path = _locate(name_or_path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error
    if path.suffix == ".onnx":
        card, model = _restore_onnx(data, str(path))
    else:
        card, model = _restore(data, str(path))
    # Kernels in the memory order of their input (see preprocess): the faster one for convolutions.
    model.to(device=device, memory_format=torch.channels_last)  # pyright: ignore
    return Checkpoint(card=card, model=model, sha256=hashlib.sha256(data).hexdigest(), path=path)


def save_checkpoint(path: Path, model: nn.Module, card: Card, *, half: bool = True) -> Card:
    """Write weights and card to `path`, whole or not at all; return the card with its hash.

    With `half` matrices and kernels are stored as float16. Vectors stay float32: they are 1% of the
    bytes, and among them are the batch norms' running variances, which float16 could round to zero.

    Raises CheckpointError when a weight is not finite, when the network is not the one the
    card describes, or when the file cannot be written.
    """
    if path.suffix != ".safetensors":
        raise CheckpointError(f"{path}: a checkpoint's file name ends in .safetensors")
    tensors = {
        name: _stored(tensor, half and tensor.ndim > 1)
        for name, tensor in model.state_dict().items()
    }
    _require_finite(tensors, str(path))
    card = replace(card, weights_sha256=weights_sha256(tensors))
    # One key only: safetensors writes several in random order, and equal input would differ.
    data = dump_safetensors(tensors, metadata={CARD_KEY: card_json(card, str(path))})
    _restore(data, str(path))  # what could not be loaded again is not written
    write_whole(path, data)
    return card


def replace_card(source: Path, target: Path, card: Card) -> None:
    """Write the weights of `source`, bit for bit, to `target` under another card; they may be one
    file. Whole or not at all. Raises CheckpointError."""
    if source.suffix == ".onnx" or target.suffix != ".safetensors":
        raise CheckpointError(
            f"{target}: cards are replaced in .safetensors checkpoints; export the result again"
        )
    try:
        tensors = parse_safetensors(source.read_bytes())
    except OSError as error:
        raise CheckpointError(f"{source}: cannot be read: {error.strerror}") from error
    card = replace(card, weights_sha256=weights_sha256(tensors))
    data = dump_safetensors(tensors, metadata={CARD_KEY: card_json(card, str(target))})
    _restore(data, str(target))  # what could not be loaded again is not written
    write_whole(target, data)


def weights_sha256(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over the tensors as they are stored, in order of their names (by code point).

    Each adds: its name in UTF-8, a zero byte, its dtype as PyTorch spells it ("float16"), a zero
    byte, its shape as decimals joined by commas, a zero byte, its values row by row, little-endian.
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        dtype = str(tensor.dtype).removeprefix("torch.")
        shape = ",".join(str(side) for side in tensor.shape)
        digest.update(f"{name}\0{dtype}\0{shape}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _locate(name_or_path: str | Path) -> Path:
    names = shipped()
    if isinstance(name_or_path, str) and name_or_path in names:
        return names[name_or_path]
    path = Path(name_or_path)
    if path.suffix.lower() in _PICKLES:
        raise CheckpointError(
            f"{path}: pickles are never loaded, they can run code; give a .safetensors checkpoint"
        )
    try:
        is_file = path.is_file()
    except OSError:  # a name too long for the file system, say
        is_file = False
    if not is_file:
        known = ", ".join(names) or "none"
        raise CheckpointError(f"{path}: neither a file nor a shipped detector (shipped: {known})")
    return path


def _restore(data: bytes, source: str) -> tuple[Card, nn.Module]:
    """The card and network, in eval mode on the CPU, of a checkpoint file's bytes."""
    try:
        tensors = parse_safetensors(data)
    except (SafetensorError, KeyError, ValueError, RuntimeError, OverflowError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{source}: not a valid safetensors file: {reason}") from error
    card = _read_card(data, source)
    found = weights_sha256(tensors)
    if found != card.weights_sha256:
        raise CheckpointError(
            f"{source}: the weights are not those of the card: their sha256 is {found}, the card "
            f"says {card.weights_sha256 or 'none'}; fetch or save the file again"
        )
    _require_finite(tensors, source)
    return card, _network(card, tensors, source)


def _restore_onnx(data: bytes, source: str) -> tuple[Card, nn.Module]:
    card = parse_card(onnx_file.card_of(data, source), source)
    found = onnx_file.graph_sha256(data)
    if found != card.weights_sha256:
        raise CheckpointError(
            f"{source}: the graph is not that of the card: its sha256 is {found}, the card says "
            f"{card.weights_sha256 or 'none'}; fetch or export the file again"
        )
    return card, onnx_file.load(data, card.preprocessing.size, source)


def _read_card(data: bytes, source: str) -> Card:
    length = int.from_bytes(data[:8], "little")  # checked by the safetensors parser before
    metadata: dict[str, str] = json.loads(data[8 : 8 + length]).get("__metadata__") or {}
    if CARD_KEY not in metadata:
        raise CheckpointError(
            f"{source}: has no card ({CARD_KEY!r} in its metadata), so how to use its weights is "
            "unknown; write checkpoints with this project's own trainer"
        )
    return parse_card(metadata[CARD_KEY], source)


def _network(card: Card, tensors: Mapping[str, Tensor], source: str) -> nn.Module:
    # Built without memory first ("meta"): no time is lost on random weights, the generators stay
    # where they were, and a card that asks for a giant network is refused before it costs anything.
    try:
        with torch.device("meta"):
            model = build(card.model, card.options)
    except ConfigError as error:
        raise CheckpointError(f"{source}: {error}") from error
    size = getattr(model, "image_size", card.preprocessing.size)
    if size != card.preprocessing.size:
        raise CheckpointError(
            f"{source}: the card cuts crops of {card.preprocessing.size} px for a network that "
            f"takes {size} px"
        )
    expected = model.state_dict()
    _compare(expected, tensors, source)
    weights = {name: tensors[name].to(expected[name].dtype, copy=True) for name in expected}
    model.load_state_dict(weights, strict=True, assign=True)
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_meta:
            raise CheckpointError(
                f"{source}: {card.model} keeps {name} outside its state dict, so no checkpoint "
                "can restore it; register it as persistent"
            )
    return model.eval()


def _compare(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], source: str) -> None:
    for word, keys in (
        ("missing", sorted(expected.keys() - found.keys())),
        ("unexpected", sorted(found.keys() - expected.keys())),
    ):
        if keys:
            more = f" and {len(keys) - _SHOWN_KEYS} more" if len(keys) > _SHOWN_KEYS else ""
            listed = ", ".join(keys[:_SHOWN_KEYS])
            raise CheckpointError(
                f"{source}: the weights do not fit the card's network: {word}: {listed}{more}"
            )
    for name, tensor in expected.items():
        other = found[name]
        if tensor.shape != other.shape or tensor.is_floating_point() != other.is_floating_point():
            raise CheckpointError(
                f"{source}: the weights do not fit the card's network: {name} is "
                f"{other.dtype} {tuple(other.shape)}, expected {tensor.dtype} {tuple(tensor.shape)}"
            )


def _stored(tensor: Tensor, half: bool) -> Tensor:
    tensor = tensor.detach().cpu()
    if not tensor.is_floating_point():
        return tensor.clone()  # batch norms count their batches in int64
    dtype = torch.float16 if half else torch.float32
    return tensor.to(dtype, copy=True, memory_format=torch.contiguous_format)


def _require_finite(tensors: Mapping[str, Tensor], source: str) -> None:
    for name, tensor in tensors.items():
        if not math.isfinite(float(tensor.sum(dtype=torch.float64))):
            raise CheckpointError(
                f"{source}: {name} holds values that are not finite (or above float16's 65504)"
            )


def write_whole(path: Path, data: bytes) -> None:
    """Write the file or leave things as they were. Raises CheckpointError where that fails."""
    try:
        with whole_file(path) as file:
            file.write(data)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be written: {error.strerror}") from error
