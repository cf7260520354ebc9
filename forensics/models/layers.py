"""Parts that several families share: attention, MLP, transformer block, patch embedding, checks.

Names of parameters follow timm, so that its weights load strictly.

Legend: B images, N tokens, D width, S image side in pixels, C channels, G grid side.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class Mlp(nn.Module):
    """Linear, exact GELU, Linear over the last dimension; `activation` replaces the GELU."""

    def __init__(self, width: int, hidden: int, activation: nn.Module | None = None) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.act = activation or nn.GELU()
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


class Attention(nn.Module):
    """Multi-head self-attention over (B, N, D), scale head_dim^-0.5."""

    def __init__(self, width: int, heads: int, *, qkv_bias: bool = True) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=qkv_bias)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        b, n, d = x.shape
        qkv = self.qkv(x).view(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)  # each (B, heads, N, D / heads)
        x = F.scaled_dot_product_attention(q, k, v)
        return self.proj(x.transpose(1, 2).reshape(b, n, d))


class Block(nn.Module):
    """Pre-norm transformer block: `attention`, then an MLP, each with a residual."""

    def __init__(
        self,
        width: int,
        attention: nn.Module,
        mlp_ratio: float,
        dropout: float,
        norm_eps: float = 1e-6,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=norm_eps)
        self.attn = attention
        self.norm2 = nn.LayerNorm(width, eps=norm_eps)
        self.mlp = Mlp(width, int(width * mlp_ratio))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.dropout(self.attn(self.norm1(x)))
        return x + self.dropout(self.mlp(self.norm2(x)))


class PatchEmbed(nn.Module):
    """(B, C, S, S) -> (B, N, D), N = (S / patch)^2 row by row."""

    def __init__(self, in_channels: int, patch_size: int, width: int) -> None:
        super().__init__()
        self._side = patch_size
        self.proj = nn.Conv2d(in_channels, width, patch_size, patch_size)

    def forward(self, x: Tensor) -> Tensor:
        side = self._side
        if side == 1:
            return self.proj(x).flatten(2).transpose(1, 2)
        # The same as one product: on CPUs with AMX, PyTorch 2.15 computes wrong convolutions in
        # bfloat16 where kernel and stride are 4 or 8 (docs/log.md).
        weight = self.proj.weight.permute(0, 2, 3, 1).flatten(1)  # in the order of `as_patches`
        return F.linear(as_patches(x, side), weight, self.proj.bias)


def grid_side(image_size: int, patch_size: int) -> int:
    """Patches along a side. Raises ValueError where the patch does not divide the image."""
    if patch_size < 1 or image_size < patch_size or image_size % patch_size != 0:
        raise ValueError(f"image_size {image_size} is not divisible by patch_size {patch_size}")
    return image_size // patch_size


def as_patches(x: Tensor, side: int) -> Tensor:
    """(B, C, G, G) -> (B, N, side * side * C): patches row by row, places before channels."""
    b, c, g, _ = x.shape
    n = g // side
    x = x.view(b, c, n, side, n, side).permute(0, 2, 4, 3, 5, 1)
    return x.reshape(b, n * n, side * side * c)


def require_heads(width: int, heads: int) -> None:
    """Raises ValueError where the heads do not divide the width, or there is none."""
    if width < 1 or heads < 1 or width % heads != 0:
        raise ValueError(f"width {width} is not divisible by {heads} heads")


def require_size(x: Tensor, image_size: int) -> None:
    """Raises ValueError where `x` (B, C, S, S) is not of the size the network was built for."""
    if x.shape[-2:] != (image_size, image_size):
        raise ValueError(f"expected {image_size} px squares, got {tuple(x.shape[-2:])}")


def as_logits(x: Tensor) -> Tensor:
    """(B, K) from a classifier's head -> (B,) logits where K is 1, else as it is."""
    return x.squeeze(1) if x.shape[1] == 1 else x


def init_linear(module: nn.Module) -> None:
    """Truncated normal of 0.02 and no bias, as ViT begins."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:  # pyright: ignore[reportUnnecessaryComparison] (the stub lacks None)
            nn.init.zeros_(module.bias)
