"""Every network by name. A model's options are its constructor's words; a card repeats them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from torch import nn

from forensics.errors import ConfigError
from forensics.models.cmt import CMT, CMT_VARIANTS
from forensics.models.convit import CONVIT_VARIANTS, ConViT
from forensics.models.cross_efficient_vit import CrossEfficientViT
from forensics.models.cvt import CVT_VARIANTS, CvT
from forensics.models.efficient_vit import EfficientViT
from forensics.models.efficientnet import EFFICIENTNET_VARIANTS, EfficientNetClassifier
from forensics.models.hybrid import Hybrid
from forensics.models.published import PublishedCrossEfficientViT, PublishedEfficientViT
from forensics.models.vit import VIT_VARIANTS, ViT

# Name -> the network and the words that make it this variant.
MODELS: dict[str, tuple[type[nn.Module], Mapping[str, Any]]] = {
    "efficient-vit": (EfficientViT, {}),
    "efficient-vit-published": (PublishedEfficientViT, {}),
    "cross-efficient-vit": (CrossEfficientViT, {}),
    "cross-efficient-vit-published": (PublishedCrossEfficientViT, {}),
    "hybrid": (Hybrid, {}),
    **{name: (ViT, words) for name, words in VIT_VARIANTS.items()},
    **{name: (ConViT, words) for name, words in CONVIT_VARIANTS.items()},
    **{name: (CvT, words) for name, words in CVT_VARIANTS.items()},
    **{name: (CMT, words) for name, words in CMT_VARIANTS.items()},
    **{name: (EfficientNetClassifier, words) for name, words in EFFICIENTNET_VARIANTS.items()},
}

_DEEPEST = 1000  # layers; the deepest published network here has 32
_MAY_BE_ZERO = ("cut", "early", "dropout", "norm_eps")


def build(model: str | type[nn.Module], options: Mapping[str, Any]) -> nn.Module:
    """Build a network with random weights, by name or from a class of one's own.

    A class takes `options` as keywords, has the attribute `image_size` (pixels) and maps images
    (B, 3, S, S) float32 to logits (B,), fake positive. Raises ConfigError naming what does not fit.
    """
    if isinstance(model, str):
        if model not in MODELS:
            raise ConfigError(f"model {model!r} is unknown; known: {', '.join(sorted(MODELS))}")
        network, words = MODELS[model]
    else:
        network, words = model, {}
    name = model if isinstance(model, str) else model.__name__
    try:
        _require_sizes(options)
        return network(**{**words, **options})
    except (TypeError, ValueError, ArithmeticError, LookupError, RuntimeError) as error:
        # Words of the wrong type or sign fail wherever they are used first, in torch at the latest.
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(f"model {name!r}: {reason}") from error


def _require_sizes(options: Mapping[str, Any]) -> None:
    """Raises ValueError for a size that is not above 0, which torch would take with a warning, and
    for a number of layers that would take minutes to build before it failed."""
    for word, value in options.items():
        if isinstance(value, Mapping):
            _require_sizes(cast("Mapping[str, Any]", value))
            continue
        many: list[object] = list(value) if isinstance(value, (list, tuple)) else [value]  # pyright: ignore
        numbers = [each for each in many if isinstance(each, (int, float))]
        counts_layers = "depth" in word or word == "rounds"
        may_be_zero = counts_layers or word in _MAY_BE_ZERO
        if not all(number > 0 or (number == 0 and may_be_zero) for number in numbers):
            raise ValueError(f"{word} must be {'at least' if may_be_zero else 'above'} 0")
        if counts_layers and not all(number <= _DEEPEST for number in numbers):
            raise ValueError(f"{word} must be at most {_DEEPEST}")
