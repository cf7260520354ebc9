"""The network of a run: built to the size of its crops, and started from a checkpoint."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from forensics.checkpoint import load_checkpoint
from forensics.config import nearest
from forensics.errors import ConfigError
from forensics.models import MODELS, build
from forensics.preprocess import Preprocessing
from forensics.training.config import DataConfig, ModelConfig

_HALVES = (0.5, 0.5, 0.5)
# efficientnet-pytorch's 0.01 is made for runs of many thousand steps: a shorter one would be judged
# by the statistics of random weights. The average of the weights smooths statistics as well.
_BATCH_NORM_MOMENTUM = 0.1


def options_of(model: ModelConfig, data: DataConfig) -> dict[str, object]:
    """The constructor's words, the size of the crops among them. Raises ConfigError naming one
    that the network does not have, or a size that contradicts `data.size`."""
    if model.name not in MODELS:
        raise ConfigError(f"model.name: {model.name!r} is unknown{nearest(model.name, [*MODELS])}")
    known = list(inspect.signature(MODELS[model.name][0]).parameters)
    for word in model.options:
        if word not in known:
            raise ConfigError(f"model.options.{word}: {model.name} has none{nearest(word, known)}")
    if model.options.get("image_size", data.size) != data.size:
        raise ConfigError("model.options.image_size is what data.size says; set data.size alone")
    if model.options.get("num_classes", 1) != 1:
        raise ConfigError("model.options.num_classes: a detector has one logit; leave it out")
    return {**model.options, "image_size": data.size}


class Start(NamedTuple):
    """A network, how its input is made, and how many images its weights were trained on before."""

    network: nn.Module
    preprocessing: Preprocessing
    images_seen: int


def build_network(model: ModelConfig, data: DataConfig, *, seed: int) -> Start:
    """The network, its weights drawn from `seed` and then taken from `model.init` where they fit.

    The preprocessing is that of `model.init`, whose weights were made for it, at the run's size and
    margin; the images are those its card tells of. Raises ConfigError and CheckpointError.
    """
    options = options_of(model, data)
    with torch.random.fork_rng(devices=[]):  # pyright: ignore[reportUnknownMemberType]
        torch.manual_seed(seed)  # pyright: ignore[reportUnknownMemberType]
        network = build(model.name, options)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and module.momentum is not None:
            module.momentum = max(module.momentum, _BATCH_NORM_MOMENTUM)
    mean, std, colours, scale = _HALVES, _HALVES, "rgb", 1 / 255
    images = 0
    if model.init is not None:
        start = load_checkpoint(model.init)
        _take(network, start.model.state_dict(), model.init)
        given = start.card.preprocessing
        mean, std, colours, scale = given.mean, given.std, given.colour_order, given.scale
        seen = start.card.metrics.get("images_seen", 0)
        images = int(seen) if isinstance(seen, float | int) else 0
    preprocessing = Preprocessing(
        size=data.size, margin=data.margin, mean=mean, std=std, colour_order=colours, scale=scale
    )
    return Start(network, preprocessing, images)


def _take(network: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Copy every tensor that fits by name and shape, or by its name behind the first dot: the
    weights of a whole EfficientNet start the extractor of a hybrid.

    Raises ConfigError where less than a tenth of the network's weights is found.
    """
    state = network.state_dict()
    by_end: dict[str, Tensor] = {name.partition(".")[2]: t for name, t in tensors.items()}
    taken: dict[str, Tensor] = {}
    for name, own in state.items():
        parts = name.split(".")
        ends = (".".join(parts[cut:]) for cut in range(1, len(parts)))
        found = tensors.get(name)
        if found is None:
            found = next((by_end[end] for end in ends if end and end in by_end), None)
        if found is not None and name.rpartition(".")[2] == "position":
            found = _stretched(found, own.shape)
        if found is not None and found.shape == own.shape:
            taken[name] = found
    share = sum(t.numel() for t in taken.values()) / sum(t.numel() for t in state.values())
    if share < 0.1:
        raise ConfigError(
            f"model.init: {source} fits {share:.0%} of this network's weights; name a checkpoint "
            "of the same network, or of its extractor"
        )
    network.load_state_dict({**state, **taken})


def _stretched(table: Tensor, shape: torch.Size) -> Tensor:
    """Positions (1, 1 + G * G, D), of a class token and then row by row, interpolated to the grid
    of `shape` (1, 1 + H * H, D); left as they are where either is not of that form."""
    old, new = (round((places - 1) ** 0.5) for places in (table.shape[1], shape[1]))
    fits = old * old + 1 == table.shape[1] and new * new + 1 == shape[1]
    if old == new or not fits:
        return table
    width = table.shape[2]
    places = table[:, 1:].float().reshape(1, old, old, width).permute(0, 3, 1, 2)
    places = nn.functional.interpolate(places, (new, new), mode="bicubic")
    places = places.permute(0, 2, 3, 1).reshape(1, -1, width)
    return torch.cat([table[:, :1].float(), places], dim=1).to(table.dtype)
