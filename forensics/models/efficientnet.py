"""EfficientNet as a plain classifier, the CNN to compare with, and as the extractor of hybrids.

Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019
(arXiv 1905.11946), as efficientnet-pytorch 0.7.1 has it. The library pads for the one size it is
built for, so a network belongs to its `image_size`.
"""

from __future__ import annotations

from typing import Any, cast

from efficientnet_pytorch import EfficientNet  # pyright: ignore[reportMissingTypeStubs]
from torch import Tensor, nn

from forensics.models.layers import as_logits, require_size

EXTRACTORS: tuple[str, ...] = tuple(f"efficientnet-b{i}" for i in range(8))


class EfficientNetClassifier(nn.Module):
    """(B, 3, S, S) -> (B,) logits, fake positive; (B, K) for `num_classes` K above 1."""

    def __init__(
        self,
        *,
        extractor: str = "efficientnet-b0",
        image_size: int = 224,
        dropout: float = 0.2,
        num_classes: int = 1,
    ) -> None:
        """Raises ValueError for an unknown extractor or a size that 32 does not divide."""
        super().__init__()
        require_extractor(extractor, image_size)
        self.image_size = image_size
        self.net = cast(
            nn.Module,
            EfficientNet.from_name(  # pyright: ignore[reportUnknownMemberType]
                extractor, image_size=image_size, dropout_rate=dropout, num_classes=num_classes
            ),
        )

    def forward(self, x: Tensor) -> Tensor:
        require_size(x, self.image_size)
        return as_logits(self.net(x))


class Extractor(nn.Module):
    """(B, 3, S, S) -> a feature map (B, `channels`, `side`, `side`).

    The map after the head convolution, or, with `cut`, after that block (B0 has blocks 0 to 15):
    more, smaller and less abstract patches. What lies behind the cut is not built.
    """

    def __init__(self, name: str, image_size: int, cut: int | None) -> None:
        """Raises ValueError for an unknown extractor, size or block."""
        super().__init__()
        require_extractor(name, image_size)
        self.image_size, self.cut = image_size, cut
        net: Any = EfficientNet.from_name(  # pyright: ignore[reportUnknownMemberType]
            name, image_size=image_size, include_top=False
        )
        blocks: list[Any] = list(net._blocks)
        if cut is not None and not 0 <= cut < len(blocks):
            raise ValueError(f"cut must name a block, 0 to {len(blocks) - 1}, not {cut}")
        self._num_blocks = len(blocks)  # of the whole network: drop connect grows towards its end
        if cut is None:
            self.channels = int(net._conv_head.out_channels)
        else:
            blocks = blocks[: cut + 1]
            net._blocks = nn.ModuleList(blocks)
            net._conv_head, net._bn1 = nn.Identity(), nn.Identity()
            self.channels = int(blocks[-1]._bn2.num_features)
        self.side = image_size // 2
        for block in blocks:
            self.side //= int(block._depthwise_conv.stride[0])
        self.net = cast(nn.Module, net)

    def forward(self, x: Tensor) -> Tensor:
        return self.maps(x, None)[1]

    def maps(self, x: Tensor, early: int | None) -> tuple[Tensor, Tensor]:
        """The map after block `early` (the input where it is None), and the extractor's own."""
        require_size(x, self.image_size)
        net: Any = self.net
        seen = x
        x = net._swish(net._bn0(net._conv_stem(x)))
        rate = float(net._global_params.drop_connect_rate or 0.0)
        for i, block in enumerate(net._blocks):
            x = block(x, drop_connect_rate=rate * i / self._num_blocks)
            if i == early:
                seen = x
        return seen, x if self.cut is not None else net._swish(net._bn1(net._conv_head(x)))


def require_extractor(name: str, image_size: int) -> None:
    """Raises ValueError for an unknown extractor or a size that 32 does not divide."""
    if name not in EXTRACTORS:
        raise ValueError(f"extractor {name!r} is unknown; known: {', '.join(EXTRACTORS)}")
    if image_size % 32 != 0 or image_size < 32:
        raise ValueError(f"image_size must be a multiple of 32, not {image_size}")
