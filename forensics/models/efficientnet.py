"""EfficientNet as a plain classifier, the CNN to compare with, and as the extractor of hybrids.

Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019
(arXiv 1905.11946), as efficientnet-pytorch 0.7.1 has it, whose weights load strictly. The library
pads for the one size it is built for, so a network belongs to its `image_size`.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from efficientnet_pytorch import EfficientNet  # pyright: ignore[reportMissingTypeStubs]
from torch import Tensor, nn
from torch.nn import functional as F

from forensics.models.layers import as_logits, require_size

EFFICIENTNET_VARIANTS: dict[str, dict[str, Any]] = {
    f"efficientnet-b{i}": {"extractor": f"efficientnet-b{i}", "dropout": rate}
    for i, rate in enumerate((0.2, 0.2, 0.3, 0.3, 0.4, 0.4, 0.5, 0.5))
}
EXTRACTORS: tuple[str, ...] = tuple(EFFICIENTNET_VARIANTS)
_SMALLEST = 32  # pixels: one place of the last map


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
        """Raises ValueError for an unknown extractor or a size below 32."""
        super().__init__()
        self.image_size = image_size
        self.net = efficientnet(
            extractor, image_size, dropout_rate=dropout, num_classes=num_classes
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
        self.image_size, self.cut = image_size, cut
        net: Any = efficientnet(name, image_size, include_top=False)
        blocks: list[Any] = list(net._blocks)
        self._num_blocks = len(blocks)  # of the whole network: drop connect grows towards its end
        if cut is None:
            self.channels = int(net._conv_head.out_channels)
            self.side = _side(image_size, blocks)
        else:
            self.channels, self.side = shape_after(net, cut, image_size)
            net._blocks = nn.ModuleList(blocks[: cut + 1])
            net._conv_head, net._bn1 = nn.Identity(), nn.Identity()
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


class _Activation(nn.Module):
    """SiLU, in place where no gradient is asked for: one pass over memory less."""

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(x, inplace=not torch.is_grad_enabled())


def efficientnet(name: str, image_size: int, **words: Any) -> nn.Module:
    """efficientnet-pytorch's network with random weights, its names and values, but faster.

    Its own activation stands for one fused operation, and padding that is the same on both sides,
    a copy of the map each time, is left to the convolutions. Raises ValueError for an unknown
    name or a size below 32 pixels.
    """
    if name not in EXTRACTORS:
        raise ValueError(f"extractor {name!r} is unknown; known: {', '.join(EXTRACTORS)}")
    if image_size < _SMALLEST:
        raise ValueError(f"image_size must be at least {_SMALLEST}, not {image_size}")
    net = cast(
        nn.Module,
        EfficientNet.from_name(name, image_size=image_size, **words),  # pyright: ignore
    )
    for part in net.modules():
        if hasattr(part, "_swish"):
            part._swish = _Activation()
        padding = getattr(getattr(part, "static_padding", None), "padding", None)
        if isinstance(part, nn.Conv2d) and padding is not None and len(set(padding)) == 1:
            part.padding = (padding[0], padding[0])
            part.static_padding = nn.Identity()
    return net


def shape_after(net: nn.Module, block: int, image_size: int) -> tuple[int, int]:
    """(channels, side) of the map after that block. Raises ValueError where there is none."""
    blocks = list(cast(Any, net)._blocks)
    if not 0 <= block < len(blocks):
        raise ValueError(f"cut must name a block, 0 to {len(blocks) - 1}, not {block}")
    return int(blocks[block]._bn2.num_features), _side(image_size, blocks[: block + 1])


def _side(image_size: int, blocks: list[Any]) -> int:
    """Of the map after `blocks`: each stride rounds up, the stem's first."""
    side = -(-image_size // 2)
    for block in blocks:
        side = -(-side // int(block._depthwise_conv.stride[0]))
    return side
