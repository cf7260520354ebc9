"""Hybrids: an EfficientNet cut where one likes, and a transformer chosen apart from it.

The feature map is the picture whose places are the transformer's patches.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from forensics.models.cmt import CMT, CMTHead
from forensics.models.convit import ConViT
from forensics.models.cvt import CvT, CvTHead
from forensics.models.efficientnet import Extractor
from forensics.models.vit import ViT

# Behind an extractor: (channels, side) of a map -> a logit.
ON_MAPS: dict[str, type[nn.Module]] = {
    "vit": ViT,
    "convit": ConViT,
    "cvt": CvTHead,
    "cmt": CMTHead,
}
# Alone, on pixels.
ON_PIXELS: dict[str, type[nn.Module]] = {"vit": ViT, "convit": ConViT, "cvt": CvT, "cmt": CMT}
# Places per patch: the map's own places, unless the options say otherwise.
_PATCHED = ("vit", "convit")


class Hybrid(nn.Module):
    """(B, 3, S, S) -> (B,) logits, fake positive; (B, K) for `num_classes` K above 1.

    `extractor` is an EfficientNet's name or "none"; `cut` ends it after that block; `transformer`
    is "vit", "convit", "cvt" or "cmt", `options` its constructor's words.
    """

    def __init__(
        self,
        *,
        extractor: str = "efficientnet-b0",
        cut: int | None = None,
        transformer: str = "vit",
        options: Mapping[str, Any] | None = None,
        image_size: int = 224,
        num_classes: int = 1,
    ) -> None:
        """Raises ValueError for names that are unknown and parts that do not fit, TypeError for
        options that the transformer does not have."""
        super().__init__()
        self.image_size = image_size
        if transformer not in ON_MAPS:
            raise ValueError(f"transformer {transformer!r} is unknown; known: {', '.join(ON_MAPS)}")
        words = {"num_classes": num_classes, **(options or {})}
        if extractor == "none":
            if cut is not None:
                raise ValueError("cut needs an extractor")
            self.extractor = None
            self.transformer = ON_PIXELS[transformer](image_size=image_size, **words)
            return
        self.extractor = Extractor(extractor, image_size, cut)
        if transformer in _PATCHED:
            words = {"patch_size": 1, **words}
        self.transformer = ON_MAPS[transformer](
            image_size=self.extractor.side, in_channels=self.extractor.channels, **words
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.transformer(x if self.extractor is None else self.extractor(x))
