"""ConViT: a ViT whose first layers can begin as convolutions (gated positional self-attention).

d'Ascoli et al., "ConViT: Improving Vision Transformers with Soft Convolutional Inductive Biases",
ICML 2021 (arXiv 2103.10697). Equal to timm's `convit_*`, whose weights load strictly.

Legend: B images, S side, C channels, G grid side, N = G x G tokens, D width, d head width.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

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

CONVIT_VARIANTS: dict[str, dict[str, Any]] = {
    "convit-tiny": {"width": 192, "heads": 4},
    "convit-small": {"width": 432, "heads": 9},
    "convit-base": {"width": 768, "heads": 16},
}


class GatedPositionalAttention(nn.Module):
    """A mix, per head, of content attention and attention by relative position, over (B, N, D).

    The mix of two row-stochastic maps needs no renormalising, and the positional map does not
    depend on the image: one fused attention plus one positional product for the whole batch. That
    map's logits are a sum of one of rows and one of columns, so its softmax is a product of the
    two and is applied as such: 2 G steps per token instead of G^2.
    """

    def __init__(self, width: int, heads: int, grid: int) -> None:
        super().__init__()
        self.heads = heads
        self.qk = nn.Linear(width, 2 * width, bias=False)
        self.v = nn.Linear(width, width, bias=False)
        self.proj = nn.Linear(width, width)
        self.pos_proj = nn.Linear(3, heads)
        self.gating_param = nn.Parameter(torch.ones(heads))
        self.grid = grid

    def forward(self, x: Tensor) -> Tensor:
        b, n, width = x.shape
        d = width // self.heads
        q, k = self.qk(x).view(b, n, 2, self.heads, d).permute(2, 0, 3, 1, 4).unbind(0)
        v = self.v(x).view(b, n, self.heads, d)
        content = F.scaled_dot_product_attention(q, k, v.transpose(1, 2))  # (B, heads, N, d)
        rows, columns = (part.to(v.dtype) for part in self.places())
        grid = self.grid
        placed = v.view(b, grid, grid, self.heads, d).permute(3, 1, 2, 0, 4)
        placed = torch.bmm(rows, placed.reshape(self.heads, grid, grid * b * d))
        placed = columns[:, None] @ placed.view(self.heads, grid, grid, b * d)
        placed = placed.view(self.heads, n, b, d).permute(2, 0, 1, 3)
        gate = torch.sigmoid(self.gating_param).view(1, -1, 1, 1)
        mixed = (1 - gate) * content + gate * placed
        return self.proj(mixed.transpose(1, 2).reshape(b, n, width).to(x.dtype))

    def places(self) -> tuple[Tensor, Tensor]:
        """Attention by position, (heads, G, G) each from query to key: over rows, over columns.

        The softmax of w0 dx + w1 dy + w2 (dx^2 + dy^2) over all keys is their outer product.
        """
        weight, bias = self.pos_proj.weight, self.pos_proj.bias
        side = torch.arange(self.grid, device=weight.device)
        step = (side[None] - side[:, None]).to(weight.dtype)  # query to key: right, or down
        dx, dy, squared = weight.T[:, :, None, None]
        rows = (dy * step + squared * step**2).softmax(-1)
        # No softmax sees the bias; it is here for the weights that have it.
        columns = (dx * step + squared * step**2 + bias[:, None, None]).softmax(-1)
        return rows, columns

    def begin_local(self, strength: float = 1.0) -> None:
        """Start as a convolution: each head looks at one neighbour of a sqrt(heads)-wide kernel.

        Heads beyond the largest square keep their random projection. To be called after any
        generic initialisation, which would undo it.
        """
        with torch.no_grad():
            self.v.weight.copy_(torch.eye(self.v.weight.shape[0]))
            side = int(self.heads**0.5)
            centre = (side - 1) / 2 if side % 2 == 0 else side // 2
            for column in range(side):
                for row in range(side):
                    head = self.pos_proj.weight[column + side * row]
                    head[0], head[1] = 2 * (row - centre), 2 * (column - centre)
                    head[2] = -1
            self.pos_proj.weight[: side * side] *= strength


class ConViT(nn.Module):
    """(B, C, S, S) -> (B,) logits, fake positive; (B, K) for `num_classes` K above 1.

    The class token joins before the last `depth` - `local_depth` blocks, which are plain.
    """

    def __init__(
        self,
        *,
        image_size: int = 224,
        patch_size: int = 16,
        in_channels: int = 3,
        width: int = 192,
        depth: int = 12,
        local_depth: int = 10,
        heads: int = 4,
        mlp_ratio: float = 4.0,
        dropout: float = 0.0,
        num_classes: int = 1,
    ) -> None:
        """Raises ValueError where patch and image, heads and width, or the depths do not fit."""
        super().__init__()
        require_heads(width, heads)
        if not 0 <= local_depth < depth:
            raise ValueError(f"local_depth must lie in 0..{depth - 1}, not {local_depth}")
        self.image_size = image_size
        self.local_depth = local_depth
        grid = grid_side(image_size, patch_size)
        self.patch_embed = PatchEmbed(in_channels, patch_size, width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, grid * grid, width))
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            Block(
                width,
                GatedPositionalAttention(width, heads, grid)
                if i < local_depth
                else Attention(width, heads, qkv_bias=False),
                mlp_ratio,
                dropout,
            )
            for i in range(depth)
        )
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, num_classes)
        self.apply(init_linear)
        for block in list(self.blocks)[:local_depth]:
            cast(GatedPositionalAttention, block.attn).begin_local()
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        nn.init.trunc_normal_(self.cls_token, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        require_size(x, self.image_size)
        x = self.dropout(self.patch_embed(x) + self.pos_embed)  # (B, N, D)
        for i, block in enumerate(self.blocks):
            if i == self.local_depth:
                x = torch.cat((self.cls_token.expand(x.shape[0], -1, -1), x), dim=1)
            x = block(x)
        return as_logits(self.head(self.norm(x[:, 0])))
