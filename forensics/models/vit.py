"""ViT: an image, or a feature map, as patches of a transformer with a class token.

Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021 (arXiv 2010.11929). Equal to timm's
`vit_*`, whose weights load strictly.

Legend: B images, S side, C channels, G grid side, N = G x G tokens, D width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from forensics.models.layers import (
    Attention,
    Block,
    PatchEmbed,
    as_logits,
    grid_side,
    init_linear,
    require_heads,
    require_size,
)

VIT_VARIANTS: dict[str, dict[str, Any]] = {
    "vit-tiny": {"patch_size": 16, "width": 192, "depth": 12, "heads": 3},
    "vit-small": {"patch_size": 16, "width": 384, "depth": 12, "heads": 6},
    "vit-base": {"patch_size": 16, "width": 768, "depth": 12, "heads": 12},
    "vit-base-p32": {"patch_size": 32, "width": 768, "depth": 12, "heads": 12},
    "vit-large": {"patch_size": 16, "width": 1024, "depth": 24, "heads": 16},
    "vit-huge": {"patch_size": 14, "width": 1280, "depth": 32, "heads": 16},
}


class ViT(nn.Module):
    """(B, C, S, S) -> (B,) logits, fake positive; (B, K) for `num_classes` K above 1."""

    def __init__(
        self,
        *,
        image_size: int = 224,
        patch_size: int = 16,
        in_channels: int = 3,
        width: int = 768,
        depth: int = 12,
        heads: int = 12,
        mlp_ratio: float = 4.0,
        dropout: float = 0.0,
        norm_eps: float = 1e-6,
        num_classes: int = 1,
    ) -> None:
        """`norm_eps` is timm's; transformers' weights have 1e-12. Raises ValueError where patch and
        image, or heads and width, do not fit."""
        super().__init__()
        require_heads(width, heads)
        self.image_size = image_size
        tokens = grid_side(image_size, patch_size) ** 2
        self.patch_embed = PatchEmbed(in_channels, patch_size, width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, tokens + 1, width))
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            Block(width, Attention(width, heads), mlp_ratio, dropout, norm_eps)
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width, eps=norm_eps)
        self.head = nn.Linear(width, num_classes)
        self.apply(init_linear)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        nn.init.normal_(self.cls_token, std=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        require_size(x, self.image_size)
        x = self.patch_embed(x)  # (B, N, D)
        x = torch.cat((self.cls_token.expand(x.shape[0], -1, -1), x), dim=1) + self.pos_embed
        x = self.dropout(x)
        for block in self.blocks:
            x = block(x)
        return as_logits(self.head(self.norm(x[:, 0])))
