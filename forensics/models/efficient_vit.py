"""Efficient ViT: an EfficientNet feature map as the patches of a ViT classifier.

Coccomini et al., "Combining EfficientNet and Vision Transformers for Video Deepfake Detection",
ICIAP 2022 (arXiv 2107.02612), in the corrected form: one token per position of the feature map
instead of one for the whole map, positions indexed by token instead of by place in the batch,
a final LayerNorm.

Legend: B images, S side in pixels, C feature channels, G side of the map (S / 32, rounded up), P
places along a patch's side, N = (G / P)^2 tokens, D width.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from forensics.models.efficientnet import efficientnet
from forensics.models.layers import (
    Attention,
    as_logits,
    as_patches,
    grid_side,
    init_linear,
    require_heads,
    require_size,
)


class Block(nn.Module):
    """Pre-norm transformer block: attention, then a GELU MLP, each with a residual."""

    def __init__(self, width: int, heads: int, mlp_ratio: float, dropout: float) -> None:
        super().__init__()
        hidden = int(width * mlp_ratio)
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.dropout(self.attn(self.norm1(x)))
        return x + self.dropout(self.mlp(self.norm2(x)))


class EfficientViT(nn.Module):
    """(B, 3, S, S) float32, normalised as the card says -> (B,) logits, fake positive; (B, K) for
    `num_classes` K above 1. `patch_size` counts places of the feature map."""

    def __init__(
        self,
        *,
        extractor: str = "efficientnet-b0",
        image_size: int = 224,
        patch_size: int = 1,
        width: int = 1024,
        depth: int = 6,
        heads: int = 16,
        mlp_ratio: float = 2.0,
        dropout: float = 0.15,
        num_classes: int = 1,
    ) -> None:
        """Raises ValueError for an unknown extractor, a size below 32, a patch that does not divide
        the map, or a width that the heads do not divide."""
        super().__init__()
        require_heads(width, heads)
        self.image_size, self.patch_size = image_size, patch_size
        self.extractor = efficientnet(extractor, image_size, include_top=False)
        channels = cast(int, self.extractor._conv_head.out_channels)  # pyright: ignore
        tokens = grid_side(-(-image_size // 32), patch_size) ** 2
        self.embed = nn.Linear(patch_size**2 * channels, width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(torch.zeros(1, tokens + 1, width))
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(width, heads, mlp_ratio, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, num_classes)
        for part in (self.embed, self.blocks, self.head):
            part.apply(init_linear)
        nn.init.trunc_normal_(self.position, std=0.02)
        nn.init.trunc_normal_(self.cls_token, std=0.02)

    def features(self, x: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, C, G, G), efficientnet-pytorch's map after its head convolution."""
        require_size(x, self.image_size)
        return cast(Tensor, self.extractor.extract_features(x))  # pyright: ignore

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embed(as_patches(self.features(x), self.patch_size))  # (B, N, D)
        cls = self.cls_token.expand(tokens.shape[0], -1, -1)
        x = self.dropout(torch.cat((cls, tokens), dim=1) + self.position)  # (B, N + 1, D)
        for block in self.blocks:
            x = block(x)
        return as_logits(self.head(self.norm(x[:, 0])))
