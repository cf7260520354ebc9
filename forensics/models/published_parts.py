"""Layers of Coccomini et al.'s two networks, by the names that their weights give them.

Legend: B images, N tokens, D width, h heads, d head width (64).
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_HEAD_WIDTH = 64


class FusedAttention(nn.Module):
    """Self-attention with a fused projection without bias; heads of 64."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.to_qkv = nn.Linear(width, 3 * heads * _HEAD_WIDTH, bias=False)
        self.to_out = nn.Sequential(nn.Linear(heads * _HEAD_WIDTH, width), nn.Dropout(dropout))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (_split(part, self.heads) for part in self.to_qkv(x).chunk(3, dim=-1))
        return self.to_out(_join(F.scaled_dot_product_attention(q, k, v)))


class CrossAttention(nn.Module):
    """Attention of x over itself, or over x and a context; queries apart from keys and values."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, heads * _HEAD_WIDTH, bias=False)
        self.to_kv = nn.Linear(width, 2 * heads * _HEAD_WIDTH, bias=False)
        self.to_out = nn.Sequential(nn.Linear(heads * _HEAD_WIDTH, width), nn.Dropout(dropout))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        seen = x if context is None else torch.cat((x, context), dim=1)
        k, v = (_split(part, self.heads) for part in self.to_kv(seen).chunk(2, dim=-1))
        q = _split(self.to_q(x), self.heads)
        return self.to_out(_join(F.scaled_dot_product_attention(q, k, v)))


def _split(x: Tensor, heads: int) -> Tensor:
    b, n, _ = x.shape
    return x.reshape(b, n, heads, _HEAD_WIDTH).transpose(1, 2)  # (B, h, N, d)


def _join(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(2)  # (B, N, h d)


class FeedForward(nn.Module):
    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(width, hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, width),
            nn.Dropout(dropout),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class PreNorm(nn.Module):
    """LayerNorm, then `fn`: the published weights name both so."""

    def __init__(self, width: int, fn: nn.Module) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fn = fn

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        x = self.norm(x)
        return self.fn(x) if context is None else self.fn(x, context)


class Transformer(nn.Module):
    """Pairs of attention and feed-forward with residuals; optionally a norm at the end."""

    def __init__(
        self, layers: list[tuple[nn.Module, nn.Module]], width: int, *, final_norm: bool
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.ModuleList([PreNorm(width, attention), PreNorm(width, feed_forward)])
            for attention, feed_forward in layers
        )
        self.norm = nn.LayerNorm(width) if final_norm else None

    def forward(self, x: Tensor) -> Tensor:
        for pair in self.layers:
            attention, feed_forward = cast(nn.ModuleList, pair)
            x = x + attention(x)
            x = x + feed_forward(x)
        return x if self.norm is None else self.norm(x)


class _Exchange(nn.Module):
    """The class token of one branch, in the other's width, looks at the other's patches."""

    def __init__(self, width: int, other: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.project_in = nn.Linear(width, other)
        self.fn = PreNorm(other, CrossAttention(other, heads, dropout))
        self.project_out = nn.Linear(other, width)

    def forward(self, cls: Tensor, context: Tensor) -> Tensor:
        return self.project_out(self.fn(self.project_in(cls), context))


class _CrossTransformer(nn.Module):
    def __init__(self, small: int, large: int, rounds: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.ModuleList(
                [_Exchange(small, large, heads, dropout), _Exchange(large, small, heads, dropout)]
            )
            for _ in range(rounds)
        )

    def forward(self, small: Tensor, large: Tensor) -> tuple[Tensor, Tensor]:
        small_cls, small_patches = small[:, :1], small[:, 1:]
        large_cls, large_patches = large[:, :1], large[:, 1:]
        for pair in self.layers:
            small_from_large, large_from_small = cast(nn.ModuleList, pair)
            small_cls = small_cls + small_from_large(small_cls, large_patches)
            large_cls = large_cls + large_from_small(large_cls, small_patches)
        return (
            torch.cat((small_cls, small_patches), dim=1),
            torch.cat((large_cls, large_patches), dim=1),
        )


class MultiScaleEncoder(nn.Module):
    """Both branches' transformers and the exchange between their class tokens, `depth` times."""

    def __init__(
        self,
        *,
        small_width: int,
        large_width: int,
        depth: int,
        small_depth: int,
        large_depth: int,
        rounds: int,
        heads: int,
        hidden: int,
        dropout: float,
    ) -> None:
        super().__init__()

        def branch(width: int, layers: int) -> nn.Module:
            pairs: list[tuple[nn.Module, nn.Module]] = [
                (CrossAttention(width, heads, dropout), FeedForward(width, hidden, dropout))
                for _ in range(layers)
            ]
            return Transformer(pairs, width, final_norm=True)

        self.layers = nn.ModuleList(
            nn.ModuleList(
                [
                    branch(small_width, small_depth),
                    branch(large_width, large_depth),
                    _CrossTransformer(small_width, large_width, rounds, heads, dropout),
                ]
            )
            for _ in range(depth)
        )

    def forward(self, small: Tensor, large: Tensor) -> tuple[Tensor, Tensor]:
        for triple in self.layers:
            small_branch, large_branch, exchange = cast(nn.ModuleList, triple)
            small, large = exchange(small_branch(small), large_branch(large))
        return small, large
