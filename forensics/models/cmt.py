"""CMT: four stages of convolution and attention with few keys and a bias per pair of places.

Guo et al., "CMT: Convolutional Neural Networks Meet Vision Transformers", CVPR 2022 (arXiv
2107.06263), as the official code has it: activation before normalisation, one bias table per stage.
Names of parameters are those of the official weights, which load strictly.

Legend: B images, C channels, H and W a map's height and width, N tokens, M keys, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from forensics.models.layers import as_logits, init_linear, require_heads, require_size

CMT_VARIANTS: dict[str, dict[str, Any]] = {
    "cmt-ti": {"stem": 16, "width": 46, "depths": (2, 2, 10, 2), "mlp_ratio": 3.6},
    "cmt-xs": {"stem": 16, "width": 52, "depths": (3, 3, 12, 3), "mlp_ratio": 3.77},
    "cmt-s": {"stem": 32, "width": 64, "depths": (3, 3, 16, 3), "mlp_ratio": 4.0},
    "cmt-b": {"stem": 38, "width": 76, "depths": (4, 4, 20, 4), "mlp_ratio": 4.0, "dropout": 0.3},
}
_STAGES = "abcd"
_HEAD_WIDTH = 1280  # channels of the last convolution, as published


class LightAttention(nn.Module):
    """LMHSA: queries from every place, keys and values from a map `reduction` times smaller."""

    def __init__(self, width: int, heads: int, reduction: int) -> None:
        super().__init__()
        require_heads(width, heads)
        self.heads = heads
        self.q = nn.Linear(width, width)
        self.k = nn.Linear(width, width)
        self.v = nn.Linear(width, width)
        self.proj = nn.Linear(width, width)
        self.sr = (
            nn.Sequential(
                nn.Conv2d(width, width, reduction, reduction, groups=width),
                nn.BatchNorm2d(width),
            )
            if reduction > 1
            else None
        )

    def forward(self, x: Tensor, height: int, width: int, bias: Tensor) -> Tensor:
        """x (B, N, D), bias (heads, N, M) added to the logits -> (B, N, D)."""
        b, n, d = x.shape
        few = x
        if self.sr is not None:
            grid = x.transpose(1, 2).reshape(b, d, height, width)
            few = self.sr(grid).flatten(2).transpose(1, 2)

        def split(tokens: Tensor) -> Tensor:
            return tokens.view(b, -1, self.heads, d // self.heads).transpose(1, 2)

        q = split(self.q(x))
        x = F.scaled_dot_product_attention(
            q, split(self.k(few)), split(self.v(few)), attn_mask=bias[None].to(q.dtype)
        )
        return self.proj(x.transpose(1, 2).reshape(b, n, d))


class InvertedResidualMlp(nn.Module):
    """IRFFN on (B, D, H, W): widen, a depthwise convolution with a residual, narrow."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv2d(width, hidden, 1), nn.GELU(), nn.BatchNorm2d(hidden))
        self.proj = nn.Conv2d(hidden, hidden, 3, 1, 1, groups=hidden)
        self.proj_bn = nn.BatchNorm2d(hidden)
        self.conv2 = nn.Sequential(nn.Conv2d(hidden, width, 1), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        return self.conv2(self.proj_bn(F.gelu(self.proj(x) + x)))


class CmtBlock(nn.Module):
    """LPU, LMHSA and IRFFN, each with a residual, over (B, N, D)."""

    def __init__(self, width: int, heads: int, mlp_ratio: float, reduction: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = LightAttention(width, heads, reduction)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = InvertedResidualMlp(width, int(width * mlp_ratio))
        self.proj = nn.Conv2d(width, width, 3, 1, 1, groups=width)

    def forward(self, x: Tensor, height: int, width: int, bias: Tensor) -> Tensor:
        b, n, d = x.shape
        grid = x.transpose(1, 2).reshape(b, d, height, width)
        x = (self.proj(grid) + grid).flatten(2).transpose(1, 2)
        x = x + self.attn(self.norm1(x), height, width, bias)
        grid = self.norm2(x).transpose(1, 2).reshape(b, d, height, width)
        return x + self.mlp(grid).reshape(b, d, n).transpose(1, 2)


class Embed(nn.Module):
    """(B, C, H, W) -> (B, N, D) by a convolution of kernel and stride `patch_size`, then norm."""

    def __init__(self, in_channels: int, width: int, patch_size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, width, patch_size, patch_size)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.proj(x).flatten(2).transpose(1, 2))


class CMT(nn.Module):
    """(B, C, H, W) -> (B,) logits, fake positive; (B, K) for `num_classes` K above 1.

    `width` is that of the first stage and doubles from stage to stage. The bias tables belong to
    squares of `image_size` and are resized for images of another size as they come; `resize_bias`
    does it once for good.
    """

    def __init__(
        self,
        *,
        image_size: int = 224,
        in_channels: int = 3,
        stem: int = 16,
        width: int = 46,
        depths: Sequence[int] = (2, 2, 10, 2),
        heads: Sequence[int] = (1, 2, 4, 8),
        mlp_ratio: float = 3.6,
        reductions: Sequence[int] = (8, 4, 2, 1),
        dropout: float = 0.1,
        num_classes: int = 1,
    ) -> None:
        """Raises ValueError for an image too small for its stages, or stages that do not fit."""
        super().__init__()
        if not len(depths) == len(heads) == len(reductions) == len(_STAGES):
            raise ValueError("depths, heads and reductions need four values each")
        self.image_size, self.reductions = image_size, tuple(reductions)
        for i in range(3):
            before = in_channels if i == 0 else stem
            self.add_module(f"stem_conv{i + 1}", nn.Conv2d(before, stem, 3, 2 if i == 0 else 1, 1))
            self.add_module(f"stem_norm{i + 1}", nn.BatchNorm2d(stem))
        channels = stem
        for i, name in enumerate(_STAGES):
            stage_width, (grid, few) = width * 2**i, _grids(image_size, i, reductions[i])
            if few < 1:
                raise ValueError(
                    f"image_size {image_size} leaves stage {name} a grid of {grid}, less than its "
                    f"reduction of {reductions[i]}"
                )
            self.add_module(f"patch_embed_{name}", Embed(channels, stage_width, 2))
            table = torch.randn(heads[i], grid * grid, few * few)
            self.register_parameter(f"relative_pos_{name}", nn.Parameter(table))
            blocks = nn.ModuleList(
                CmtBlock(stage_width, heads[i], mlp_ratio, reductions[i]) for _ in range(depths[i])
            )
            self.add_module(f"blocks_{name}", blocks)
            channels = stage_width
        self._fc = nn.Conv2d(channels, _HEAD_WIDTH, 1)
        self._bn = nn.BatchNorm2d(_HEAD_WIDTH)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(_HEAD_WIDTH, num_classes)
        self.apply(_init)

    def forward(self, x: Tensor) -> Tensor:
        for i in (1, 2, 3):
            x = F.gelu(self.get_submodule(f"stem_conv{i}")(x))
            x = self.get_submodule(f"stem_norm{i}")(x)
        for name in _STAGES:
            x = self.stage(name, x)
        x = F.silu(self._bn(self._fc(x))).mean((2, 3))
        return as_logits(self.head(self.dropout(x)))

    def stage(self, name: str, x: Tensor) -> Tensor:
        """One stage, a map to a map: (B, C, H, W) -> (B, D, H / 2, W / 2)."""
        height, width = int(x.shape[2]) // 2, int(x.shape[3]) // 2
        x = self.get_submodule(f"patch_embed_{name}")(x)
        reduction = self.reductions[_STAGES.index(name)]
        bias = _resize_table(
            self.get_parameter(f"relative_pos_{name}"),
            (height, width),
            (height // reduction, width // reduction),
        )
        for block in self.get_submodule(f"blocks_{name}").children():
            x = block(x, height, width, bias)
        return x.transpose(1, 2).reshape(x.shape[0], -1, height, width)


class CMTHead(nn.Module):
    """One CMT stage on a feature map (B, C, G, G) -> (B,) logits: the transformer of a hybrid."""

    def __init__(
        self,
        *,
        image_size: int,
        in_channels: int,
        width: int = 256,
        depth: int = 4,
        heads: int = 4,
        mlp_ratio: float = 4.0,
        reduction: int = 1,
        dropout: float = 0.0,
        num_classes: int = 1,
    ) -> None:
        """Raises ValueError where `reduction` is above the grid's side."""
        super().__init__()
        if not 0 < reduction <= image_size:
            raise ValueError(f"reduction must lie in 1..{image_size}, the grid, not {reduction}")
        self.image_size = image_size
        few = (image_size // reduction) ** 2
        self.embed = Embed(in_channels, width, 1)
        self.relative_pos = nn.Parameter(torch.zeros(heads, image_size**2, few))
        self.blocks = nn.ModuleList(
            CmtBlock(width, heads, mlp_ratio, reduction) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, num_classes)
        self.apply(_init)
        nn.init.trunc_normal_(self.relative_pos, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        require_size(x, self.image_size)
        x = self.embed(x)
        for block in self.blocks:
            x = block(x, self.image_size, self.image_size, self.relative_pos)
        return as_logits(self.head(self.dropout(self.norm(x).mean(1))))


def resize_bias(
    state: Mapping[str, Tensor], image_size: int, reductions: Sequence[int] = (8, 4, 2, 1)
) -> dict[str, Tensor]:
    """A CMT state dict whose bias tables fit squares of `image_size` pixels."""
    resized = dict(state)
    for i, name in enumerate(_STAGES):
        grid, few = _grids(image_size, i, reductions[i])
        table = state[f"relative_pos_{name}"]
        resized[f"relative_pos_{name}"] = _resize_table(table, (grid, grid), (few, few))
    return resized


def _grids(image_size: int, stage: int, reduction: int) -> tuple[int, int]:
    """Sides of a stage's grids of queries and of keys: the stem rounds up, all others down."""
    side = -(-image_size // 2) // 2 ** (stage + 1)
    return side, side // reduction if reduction > 0 else 0


def _resize_table(table: Tensor, queries: tuple[int, int], keys: tuple[int, int]) -> Tensor:
    """(heads, N, M) of square grids -> (heads, height * width of queries, the same of keys).

    The grid of queries and the grid of keys are resized one after the other, bicubically: as one
    picture of N x M the table would mix the end of a row with the start of the next.
    """
    heads, n, m = (int(side) for side in table.shape)  # an exporter's trace has tensors here
    old, few = round(n**0.5), round(m**0.5)
    if (old, old, few, few) == (*queries, *keys):
        return table
    table = table.reshape(heads, old, old, m).permute(0, 3, 1, 2)
    table = _bicubic(table, queries)  # (heads, M, height, width)
    table = table.flatten(2).transpose(1, 2).reshape(heads, -1, few, few)
    return _bicubic(table, keys).flatten(2)


def _bicubic(x: Tensor, size: tuple[int, int]) -> Tensor:
    if x.shape[2:] == size:
        return x
    return F.interpolate(x, size, mode="bicubic", align_corners=False)


def _init(module: nn.Module) -> None:
    init_linear(module)
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
