"""Efficient ViT: an EfficientNet feature map as the patches of a ViT classifier.

Coccomini et al., "Combining EfficientNet and Vision Transformers for Video Deepfake Detection",
ICIAP 2022 (arXiv 2107.02612), in the corrected form: one token per position of the feature map
instead of one for the whole map, positions indexed by token instead of by place in the batch,
a final LayerNorm.

Legend: B images, S side in pixels, C feature channels, G grid side (S / 32), N = G x G tokens,
D width.
"""

from __future__ import annotations

from typing import cast

import torch
from efficientnet_pytorch import EfficientNet  # pyright: ignore[reportMissingTypeStubs]
from torch import Tensor, nn
from torch.nn import functional as F

EXTRACTORS: tuple[str, ...] = tuple(f"efficientnet-b{i}" for i in range(8))


class Attention(nn.Module):
    """Multi-head self-attention over (B, N, D), fused qkv with bias as in ViT."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        b, n, d = x.shape
        qkv = self.qkv(x).view(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)  # each (B, heads, N, D / heads)
        x = F.scaled_dot_product_attention(q, k, v)
        return self.proj(x.transpose(1, 2).reshape(b, n, d))


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
    """(B, 3, S, S) float32, normalised as the card says -> (B,) logits, fake positive."""

    def __init__(
        self,
        *,
        extractor: str = "efficientnet-b0",
        image_size: int = 224,
        width: int = 1024,
        depth: int = 6,
        heads: int = 16,
        mlp_ratio: float = 2.0,
        dropout: float = 0.15,
    ) -> None:
        """Raises ValueError for an unknown extractor, a size that 32 does not divide (the
        library pads for one size only, so other sizes would shift the map), or a width that
        the heads do not divide."""
        super().__init__()
        if extractor not in EXTRACTORS:
            raise ValueError(f"extractor {extractor!r} is unknown; known: {', '.join(EXTRACTORS)}")
        if image_size % 32 != 0 or image_size < 32:
            raise ValueError(f"image_size must be a multiple of 32, not {image_size}")
        if width % heads != 0:
            raise ValueError(f"width {width} is not divisible by {heads} heads")
        self.image_size = image_size
        self.extractor = EfficientNet.from_name(  # pyright: ignore[reportUnknownMemberType]
            extractor, image_size=image_size, include_top=False
        )
        channels = cast(int, self.extractor._conv_head.out_channels)  # pyright: ignore
        tokens = (image_size // 32) ** 2
        self.embed = nn.Linear(channels, width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(torch.zeros(1, tokens + 1, width))
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(width, heads, mlp_ratio, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, 1)
        for part in (self.embed, self.blocks, self.head):
            part.apply(_init_linear)
        nn.init.trunc_normal_(self.position, std=0.02)
        nn.init.trunc_normal_(self.cls_token, std=0.02)

    def features(self, x: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, C, G, G), efficientnet-pytorch's map after its head convolution."""
        if x.shape[-2:] != (self.image_size, self.image_size):
            raise ValueError(f"expected {self.image_size} px squares, got {tuple(x.shape[-2:])}")
        return cast(Tensor, self.extractor.extract_features(x))  # pyright: ignore

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embed(self.features(x).flatten(2).transpose(1, 2))  # (B, N, D)
        cls = self.cls_token.expand(tokens.shape[0], -1, -1)
        x = self.dropout(torch.cat((cls, tokens), dim=1) + self.position)  # (B, N + 1, D)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x[:, 0])).squeeze(1)


def _init_linear(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
