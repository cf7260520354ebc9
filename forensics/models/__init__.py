"""Every network by name. A model's options are its constructor's words; a card repeats them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from forensics.errors import ConfigError
from forensics.models.efficient_vit import EfficientViT

MODELS: dict[str, type[nn.Module]] = {
    "efficient-vit": EfficientViT,
}


def build(name: str, options: Mapping[str, Any]) -> nn.Module:
    """Build a network with random weights. Raises ConfigError naming what does not fit."""
    if name not in MODELS:
        raise ConfigError(f"model {name!r} is unknown; known: {', '.join(sorted(MODELS))}")
    try:
        return MODELS[name](**options)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"model {name!r}: {error}") from error
