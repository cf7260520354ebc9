"""CvT: a transformer in three stages, with convolutions before tokens and before projections.

Wu et al., "CvT: Introducing Convolutions to Vision Transformers", ICCV 2021 (arXiv 2103.15808).
Names of parameters are those of Microsoft's weights, which load strictly; transformers' port is
the same network with exact GELU. Any input size: nothing depends on positions.

Legend: B images, C channels, H and W a map's height and width, N tokens, D width of a stage.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from forensics.models.layers import Mlp, as_logits, init_linear, require_heads

Projection = Literal["dw_bn", "avg", "linear"]
Activation = Literal["quickgelu", "gelu"]

CVT_VARIANTS: dict[str, dict[str, Any]] = {
    "cvt-13": {"widths": (64, 192, 384), "depths": (1, 2, 10), "heads": (1, 3, 6)},
    "cvt-21": {"widths": (64, 192, 384), "depths": (1, 4, 16), "heads": (1, 3, 6)},
    "cvt-w24": {"widths": (192, 768, 1024), "depths": (2, 2, 20), "heads": (3, 12, 16)},
}


class QuickGELU(nn.Module):
    """x * sigmoid(1.702 x): what Microsoft's weights were trained with."""

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            return x * torch.sigmoid(1.702 * x)
        return (1.702 * x).sigmoid_().mul_(x)  # the same in one map of memory instead of three


class ConvProjection(nn.Module):
    """Depthwise 3 x 3 convolution and batch norm on the token map, before a linear projection."""

    def __init__(self, width: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride, 1, groups=width, bias=False)
        self.bn = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))


class ConvAttention(nn.Module):
    """Attention over (B, N, D) whose queries, keys and values come from the token map.

    The scale is D^-0.5, the full width, as published. A class token, where there is one, skips the
    map and goes before the tokens.
    """

    def __init__(self, width: int, heads: int, projection: Projection, kv_stride: int) -> None:
        super().__init__()
        require_heads(width, heads)
        self.heads = heads
        self.conv_proj_q = _before_projection(projection, width, 1, is_query=True)
        self.conv_proj_k = _before_projection(projection, width, kv_stride, is_query=False)
        self.conv_proj_v = _before_projection(projection, width, kv_stride, is_query=False)
        self.proj_q = nn.Linear(width, width)
        self.proj_k = nn.Linear(width, width)
        self.proj_v = nn.Linear(width, width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        b, n, d = x.shape
        cls, places = x[:, : n - height * width], x[:, n - height * width :]
        grid = places.transpose(1, 2).reshape(b, d, height, width)

        def tokens(part: nn.Module, projection: nn.Linear) -> Tensor:
            flat = torch.cat((cls, part(grid).flatten(2).transpose(1, 2)), dim=1)
            return projection(flat).view(b, -1, self.heads, d // self.heads).transpose(1, 2)

        x = F.scaled_dot_product_attention(
            tokens(self.conv_proj_q, self.proj_q),
            tokens(self.conv_proj_k, self.proj_k),
            tokens(self.conv_proj_v, self.proj_v),
            scale=d**-0.5,
        )
        return self.proj(x.transpose(1, 2).reshape(b, n, d))


def _before_projection(
    projection: Projection, width: int, stride: int, *, is_query: bool
) -> nn.Module:
    if projection == "dw_bn":
        return ConvProjection(width, stride)
    if projection == "avg" and not is_query:
        # Rounding up and counting the padding: 28 places become 15, not 14.
        return nn.AvgPool2d(3, stride, 1, ceil_mode=True, count_include_pad=True)
    if projection in ("avg", "linear"):
        return nn.Identity()
    raise ValueError(f"projection {projection!r} is unknown; known: dw_bn, avg, linear")


class ConvBlock(nn.Module):
    """Pre-norm block with convolutional attention over tokens of a map."""

    def __init__(
        self,
        width: int,
        heads: int,
        mlp_ratio: float,
        dropout: float,
        projection: Projection,
        kv_stride: int,
        activation: Activation,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = ConvAttention(width, heads, projection, kv_stride)
        self.norm2 = nn.LayerNorm(width)
        act = QuickGELU() if activation == "quickgelu" else nn.GELU()
        self.mlp = Mlp(width, int(width * mlp_ratio), act)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        x = x + self.dropout(self.attn(self.norm1(x), height, width))
        return x + self.dropout(self.mlp(self.norm2(x)))


class ConvEmbed(nn.Module):
    """(B, C, H, W) -> (B, D, H / stride, W / stride) by an overlapping convolution, then norm."""

    def __init__(self, in_channels: int, width: int, kernel: int, stride: int) -> None:
        super().__init__()
        padding = (kernel - 1) // 2 if kernel != 7 else 2  # as published: 7, 4, 2
        self.proj = nn.Conv2d(in_channels, width, kernel, stride, padding)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.proj(x)
        height, width = x.shape[-2:]
        x = self.norm(x.flatten(2).transpose(1, 2))
        return x.transpose(1, 2).reshape(x.shape[0], -1, height, width)


class Stage(nn.Module):
    """Embedding and blocks; gives the map (B, D, H, W) and, where it has one, the class token."""

    def __init__(
        self,
        *,
        in_channels: int,
        width: int,
        depth: int,
        heads: int,
        kernel: int,
        stride: int,
        mlp_ratio: float,
        dropout: float,
        projection: Projection,
        kv_stride: int,
        activation: Activation,
        with_cls: bool,
    ) -> None:
        super().__init__()
        self.patch_embed = ConvEmbed(in_channels, width, kernel, stride)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width)) if with_cls else None
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            ConvBlock(width, heads, mlp_ratio, dropout, projection, kv_stride, activation)
            for _ in range(depth)
        )
        self.apply(init_linear)
        if self.cls_token is not None:
            nn.init.trunc_normal_(self.cls_token, std=0.02)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        x = self.patch_embed(x)
        b, _, height, width = x.shape
        x = x.flatten(2).transpose(1, 2)
        if self.cls_token is not None:
            x = torch.cat((self.cls_token.expand(b, -1, -1), x), dim=1)
        x = self.dropout(x)
        for block in self.blocks:
            x = block(x, height, width)
        cls = x[:, :1] if self.cls_token is not None else None
        places = x[:, x.shape[1] - height * width :]
        return places.transpose(1, 2).reshape(b, -1, height, width), cls


class CvT(nn.Module):
    """(B, C, H, W) -> (B,) logits, fake positive; (B, K) for `num_classes` K above 1.

    Per stage: widths, depths, heads, K/V strides and MLP ratios. The class token lives in the last
    stage. `image_size` is what the network is meant for; other sizes work.
    """

    def __init__(
        self,
        *,
        image_size: int = 224,
        in_channels: int = 3,
        widths: Sequence[int] = (64, 192, 384),
        depths: Sequence[int] = (1, 2, 10),
        heads: Sequence[int] = (1, 3, 6),
        kv_strides: Sequence[int] = (2, 2, 2),
        mlp_ratios: Sequence[float] = (4.0, 4.0, 4.0),
        projection: Projection = "dw_bn",
        activation: Activation = "quickgelu",
        dropout: float = 0.0,
        num_classes: int = 1,
    ) -> None:
        """Raises ValueError where the stages' lists differ in length or a value is unknown."""
        super().__init__()
        stages = len(widths)
        if not stages == len(depths) == len(heads) == len(kv_strides) == len(mlp_ratios) or (
            stages == 0
        ):
            raise ValueError("widths, depths, heads, kv_strides and mlp_ratios differ in length")
        if activation not in ("quickgelu", "gelu"):
            raise ValueError(f"activation {activation!r} is unknown; known: quickgelu, gelu")
        self.image_size = image_size
        self.stages = stages
        before = in_channels
        for i in range(stages):
            stage = Stage(
                in_channels=before,
                width=widths[i],
                depth=depths[i],
                heads=heads[i],
                kernel=7 if i == 0 else 3,
                stride=4 if i == 0 else 2,
                mlp_ratio=mlp_ratios[i],
                dropout=dropout,
                projection=projection,
                kv_stride=kv_strides[i],
                activation=activation,
                with_cls=i == stages - 1,
            )
            self.add_module(f"stage{i}", stage)
            before = widths[i]
        self.norm = nn.LayerNorm(before)
        self.head = nn.Linear(before, num_classes)
        init_linear(self.head)

    def forward(self, x: Tensor) -> Tensor:
        cls = None
        for i in range(self.stages):
            x, cls = self.get_submodule(f"stage{i}")(x)
        assert cls is not None
        return as_logits(self.head(self.norm(cls[:, 0])))


class CvTHead(nn.Module):
    """One CvT stage on a feature map (B, C, G, G) -> (B,) logits: the transformer of a hybrid."""

    def __init__(
        self,
        *,
        image_size: int,
        in_channels: int,
        width: int = 384,
        depth: int = 4,
        heads: int = 6,
        mlp_ratio: float = 4.0,
        kv_stride: int = 1,
        projection: Projection = "dw_bn",
        activation: Activation = "quickgelu",
        dropout: float = 0.0,
        num_classes: int = 1,
    ) -> None:
        super().__init__()
        self.image_size = image_size
        self.stage = Stage(
            in_channels=in_channels,
            width=width,
            depth=depth,
            heads=heads,
            kernel=1,
            stride=1,
            mlp_ratio=mlp_ratio,
            dropout=dropout,
            projection=projection,
            kv_stride=kv_stride,
            activation=activation,
            with_cls=True,
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, num_classes)
        init_linear(self.head)

    def forward(self, x: Tensor) -> Tensor:
        _, cls = self.stage(x)
        return as_logits(self.head(self.norm(cls[:, 0])))
