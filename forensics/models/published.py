"""Efficient ViT and Convolutional Cross ViT exactly as their public weights need them.

Coccomini et al., "Combining EfficientNet and Vision Transformers for Video Deepfake Detection",
ICIAP 2022 (arXiv 2107.02612). These forms exist to run and compare published weights: one token for
the whole feature map, and in Efficient ViT a position that belongs to the place in the batch. The
corrected forms are in `efficient_vit` and `cross_efficient_vit`.

Legend: B images, N tokens, D width.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from forensics.models.efficientnet import efficientnet
from forensics.models.layers import as_logits, as_patches, grid_side, require_size
from forensics.models.published_parts import (
    FeedForward,
    FusedAttention,
    MultiScaleEncoder,
    Transformer,
)

_POSITIONS = 32  # rows of the position table: the batch size it was trained with


def _features(network: nn.Module, x: Tensor, last_block: int | None) -> Tensor:
    """The map after block `last_block`, or after the head convolution. The network is whole, with
    the classifier that the published files hold and nothing uses."""
    net = cast(Any, network)
    if last_block is None:
        return cast(Tensor, net.extract_features(x))
    x = net._swish(net._bn0(net._conv_stem(x)))
    for block in list(net._blocks)[: last_block + 1]:
        x = cast(Tensor, block(x))
    return x


class PublishedEfficientViT(nn.Module):
    """(B, 3, S, S) -> (B,) logits, fake positive, of the public `efficient_vit.pth`.

    The logit of an image depends on its place in the batch, as published: row b of the position
    table is added to all tokens of image b. At most 32 images; ValueError beyond. Within
    `first_position` every image gets row 0, and a batch may be of any size.
    """

    row: int | None = None  # of the position table, for all images; None: that of their place

    def __init__(
        self,
        *,
        extractor: str = "efficientnet-b0",
        image_size: int = 224,
        patch_size: int = 7,
        width: int = 1024,
        depth: int = 6,
        heads: int = 8,
        hidden: int = 2048,
        dropout: float = 0.15,
        num_classes: int = 1,
    ) -> None:
        super().__init__()
        self.image_size, self.patch_size = image_size, patch_size
        grid_side(-(-image_size // 32), patch_size)
        self.efficient_net = efficientnet(extractor, image_size)
        channels = cast(int, self.efficient_net._conv_head.out_channels)  # pyright: ignore
        self.pos_embedding = nn.Parameter(torch.randn(_POSITIONS, 1, width))
        self.patch_to_embedding = nn.Linear(patch_size**2 * channels, width)
        self.cls_token = nn.Parameter(torch.randn(1, 1, width))
        self.dropout = nn.Dropout(dropout)
        layers: list[tuple[nn.Module, nn.Module]] = [
            # The published feed-forward part has its dropout fixed at 0.
            (FusedAttention(width, heads, dropout), FeedForward(width, hidden, 0.0))
            for _ in range(depth)
        ]
        self.transformer = Transformer(layers, width, final_norm=False)
        self.mlp_head = nn.Sequential(
            nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, num_classes)
        )

    def forward(self, x: Tensor) -> Tensor:
        require_size(x, self.image_size)
        if self.row is None and x.shape[0] > _POSITIONS:
            raise ValueError(f"the published form takes at most {_POSITIONS} images at once")
        x = self.patch_to_embedding(
            as_patches(_features(self.efficient_net, x, None), self.patch_size)
        )
        x = torch.cat((self.cls_token.expand(x.shape[0], -1, -1), x), dim=1)
        rows = slice(x.shape[0]) if self.row is None else slice(self.row, self.row + 1)
        x = self.dropout(x + self.pos_embedding[rows])
        return as_logits(self.mlp_head(self.transformer(x)[:, 0]))


@contextmanager
def first_position(model: nn.Module) -> Generator[None]:
    """Within the block a published Efficient ViT scores each image as the first of its batch, so
    that a logit belongs to the image alone; other networks are as they are."""
    found = [part for part in model.modules() if isinstance(part, PublishedEfficientViT)]
    before = [part.row for part in found]
    for part in found:
        part.row = 0
    try:
        yield
    finally:
        for part, row in zip(found, before, strict=True):
            part.row = row


class _Embedder(nn.Module):
    """A whole EfficientNet of its own, cut after `last_block`; its map as tokens with a class."""

    def __init__(
        self,
        extractor: str,
        image_size: int,
        last_block: int | None,
        patch_size: int,
        channels: int,
        width: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.last_block, self.patch_size = last_block, patch_size
        self.efficient_net = efficientnet(extractor, image_size)
        self.to_patch_embedding = nn.Sequential(
            nn.Identity(), nn.Linear(patch_size**2 * channels, width)
        )
        # Sized for patches of the image, as published; only the first rows are used.
        rows = (image_size // patch_size) ** 2 + 1
        self.pos_embedding = nn.Parameter(torch.randn(1, rows, width))
        self.cls_token = nn.Parameter(torch.randn(1, 1, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = as_patches(_features(self.efficient_net, x, self.last_block), self.patch_size)
        x = self.to_patch_embedding(x)
        x = torch.cat((self.cls_token.expand(x.shape[0], -1, -1), x), dim=1)
        return self.dropout(x + self.pos_embedding[:, : x.shape[1]])


class PublishedCrossEfficientViT(nn.Module):
    """(B, 3, S, S) -> (B,) logits, fake positive, of the public `cross_efficient_vit.pth`.

    Two EfficientNets that share nothing: the small branch sees the last map (7 x 7) as one token,
    the large branch the map after block 2 (56 x 56) as one token. The logits of both are added.
    """

    def __init__(
        self,
        *,
        extractor: str = "efficientnet-b0",
        image_size: int = 224,
        small_width: int = 192,
        large_width: int = 384,
        small_patch: int = 7,
        large_patch: int = 56,
        depth: int = 4,
        small_depth: int = 2,
        large_depth: int = 3,
        rounds: int = 2,
        heads: int = 8,
        hidden: int = 2048,
        dropout: float = 0.15,
        num_classes: int = 1,
    ) -> None:
        super().__init__()
        self.image_size = image_size
        whole = efficientnet(extractor, image_size)
        last = cast(int, whole._conv_head.out_channels)  # pyright: ignore
        early = cast(int, list(whole._blocks)[2]._bn2.num_features)  # pyright: ignore
        self.sm_image_embedder = _Embedder(
            extractor, image_size, None, small_patch, last, small_width, dropout
        )
        self.lg_image_embedder = _Embedder(
            extractor, image_size, 2, large_patch, early, large_width, dropout
        )
        self.multi_scale_encoder = MultiScaleEncoder(
            small_width=small_width,
            large_width=large_width,
            depth=depth,
            small_depth=small_depth,
            large_depth=large_depth,
            rounds=rounds,
            heads=heads,
            hidden=hidden,
            dropout=dropout,
        )
        self.sm_mlp_head = nn.Sequential(
            nn.LayerNorm(small_width), nn.Linear(small_width, num_classes)
        )
        self.lg_mlp_head = nn.Sequential(
            nn.LayerNorm(large_width), nn.Linear(large_width, num_classes)
        )

    def forward(self, x: Tensor) -> Tensor:
        require_size(x, self.image_size)
        small, large = self.multi_scale_encoder(
            self.sm_image_embedder(x), self.lg_image_embedder(x)
        )
        return as_logits(self.sm_mlp_head(small[:, 0]) + self.lg_mlp_head(large[:, 0]))
