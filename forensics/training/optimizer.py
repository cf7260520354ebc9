"""The optimizer of a run: which weights learn how fast, which decay, and which do not learn."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import nn

from forensics.config import nearest
from forensics.errors import ConfigError
from forensics.training.config import OptimizerConfig


def freeze(model: nn.Module, parts: Iterable[str]) -> list[nn.Module]:
    """Take the parts whose names start so out of training; returns the frozen modules.

    Frozen batch norms are to stay in eval mode, or their statistics would go on learning. Raises
    ConfigError for a name that fits nothing.
    """
    frozen: list[nn.Module] = []
    for part in parts:
        found = [p for name, p in model.named_parameters() if _within(name, part)]
        if not found:
            homes = [name.split(".")[:-1] for name, _ in model.named_parameters()]
            known = sorted({".".join(home[:depth]) for home in homes for depth in (1, 2)} - {""})
            raise ConfigError(f"model.freeze: there is no part {part!r}{nearest(part, known)}")
        for parameter in found:
            parameter.requires_grad_(False)
        names = cast("Iterable[tuple[str, nn.Module]]", model.named_modules())
        frozen += [module for name, module in names if _within(name, part)]
    if not any(p.requires_grad for p in model.parameters()):
        raise ConfigError("model.freeze leaves nothing that could learn")
    return frozen


def _within(name: str, part: str) -> bool:
    return name == part or name.startswith(f"{part}.")


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """AdamW, or SGD with momentum (also below SAM), over the groups of `parameter_groups`."""
    groups = parameter_groups(model, config)
    if config.name == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr)
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum)


def parameter_groups(model: nn.Module, config: OptimizerConfig) -> list[dict[str, Any]]:
    """Groups with `params`, `lr` and `weight_decay`, from the input to the output.

    The last layer learns at `config.lr`, each before it at `config.layer_decay` of the next one's
    (Howard and Ruder, "ULMFiT", 2018; Bao et al., "BEiT", 2022). Only matrices and kernels decay:
    weights in the narrow sense, not biases, norms, positions and class tokens.
    """
    depths = layer_depths(model)
    last = max(depths.values())
    groups: dict[tuple[int, bool], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decays = name.rpartition(".")[2] == "weight" and parameter.ndim > 1
            # Without a decay from layer to layer all depths are one.
            depth = depths[name] if config.layer_decay < 1 else last
            groups[depth, decays].append(parameter)
    return [
        {
            "params": parameters,
            "lr": config.lr * config.layer_decay ** (last - depth),
            "weight_decay": config.weight_decay if decays else 0.0,
        }
        for (depth, decays), parameters in sorted(groups.items(), key=lambda item: item[0])
    ]


def layer_depths(model: nn.Module) -> dict[str, int]:
    """Parameter name -> its layer, from 0 at the input.

    A layer is one member of a numbered list (`blocks.3`), or a module outside such lists, in the
    order in which the network registers them. Bare tensors (positions, class tokens) belong to
    the first numbered layer beside them.
    """
    layers = {name: _layer(model, name) for name, _ in model.named_parameters()}
    order = list(dict.fromkeys(layer for layer in layers.values() if layer is not None))
    numbered = [layer for layer in order if layer.rpartition(".")[2].isdigit()]
    depth = {layer: index for index, layer in enumerate(order)}
    result: dict[str, int] = {}
    for name, layer in layers.items():
        if layer is None:
            home = name.split(".")[:-1]
            beside = [other for other in numbered if other.split(".")[:-2] == home]
            layer = beside[0] if beside else (order[0] if order else "")
        result[name] = depth.get(layer, 0)
    return result


def _layer(model: nn.Module, name: str) -> str | None:
    """The layer a parameter belongs to; None for a bare tensor outside numbered lists."""
    parts = name.split(".")
    for end, part in enumerate(parts, start=1):
        if part.isdigit():
            return ".".join(parts[:end])
    home = ".".join(parts[:-1])
    # A module with children and tensors of its own holds bare tensors; a leaf is a layer.
    return None if not home or list(model.get_submodule(home).children()) else home
