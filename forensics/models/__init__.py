"""Every network by name. A model's options are its constructor's words; a card repeats them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
        return network(**{**words, **options})
    except (TypeError, ValueError) as error:
        raise ConfigError(f"model {name!r}: {error}") from error
