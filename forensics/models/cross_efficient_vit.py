"""Convolutional Cross ViT, corrected: two scales of one EfficientNet, real grids of tokens.

Coccomini et al., ICIAP 2022 (arXiv 2107.02612). Against the published form (`published`): the
branches share one extractor instead of carrying two whole ones, each branch has as many tokens as
its map has patches instead of one, and each token has its own position.

Legend: B images, S side in pixels, N tokens, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from forensics.models.efficientnet import Extractor, shape_after
from forensics.models.layers import PatchEmbed, as_logits, grid_side, init_linear, require_heads
from forensics.models.published_parts import MultiScaleEncoder


class _Tokens(nn.Module):
    """A map as tokens with positions, a class token first."""

    def __init__(
        self, channels: int, side: int, patch_size: int, width: int, dropout: float
    ) -> None:
        super().__init__()
        grid = grid_side(side, patch_size)
        self.patch_embed = PatchEmbed(channels, patch_size, width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, grid * grid + 1, width))
        self.dropout = nn.Dropout(dropout)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        nn.init.trunc_normal_(self.cls_token, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x)
        x = torch.cat((self.cls_token.expand(x.shape[0], -1, -1), x), dim=1)
        return self.dropout(x + self.pos_embed)


class CrossEfficientViT(nn.Module):
    """(B, 3, S, S) -> (B,) logits, fake positive; (B, K) for `num_classes` K above 1.

    The small branch reads the last map, the large branch the map after block `early`; the logits
    of both are added.
    """

    def __init__(
        self,
        *,
        extractor: str = "efficientnet-b0",
        image_size: int = 224,
        early: int = 2,
        small_width: int = 192,
        large_width: int = 384,
        small_patch: int = 1,
        large_patch: int = 8,
        depth: int = 4,
        small_depth: int = 2,
        large_depth: int = 3,
        rounds: int = 2,
        heads: int = 8,
        hidden: int = 768,
        dropout: float = 0.15,
        num_classes: int = 1,
    ) -> None:
        """Raises ValueError where a patch does not divide its map or a block does not exist."""
        super().__init__()
        require_heads(large_width, heads)
        self.image_size, self.early = image_size, early
        self.extractor = Extractor(extractor, image_size, None)
        channels, side = shape_after(self.extractor.net, early, image_size)
        self.small = _Tokens(
            self.extractor.channels, self.extractor.side, small_patch, small_width, dropout
        )
        self.large = _Tokens(channels, side, large_patch, large_width, dropout)
        self.encoder = MultiScaleEncoder(
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
        self.small_head = nn.Sequential(
            nn.LayerNorm(small_width), nn.Linear(small_width, num_classes)
        )
        self.large_head = nn.Sequential(
            nn.LayerNorm(large_width), nn.Linear(large_width, num_classes)
        )
        for part in (self.small, self.large, self.encoder, self.small_head, self.large_head):
            part.apply(init_linear)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.extractor.maps(x, self.early)
        small, large = self.encoder(self.small(maps[1]), self.large(maps[0]))
        return as_logits(self.small_head(small[:, 0]) + self.large_head(large[:, 0]))
