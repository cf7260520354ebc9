"""Networks that no library has, composed once more from their papers' formulas over a state dict.

Slow and plain on purpose: every product, norm and activation is written out, so that agreement with
`forensics.models` (and with the authors' numbers) is that of two independent formulations. Each
gives its logits and what its stages gave on the way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt

import torch
from efficientnet_pytorch import EfficientNet  # pyright: ignore[reportMissingTypeStubs]
from torch import Tensor
from torch.nn import functional as F

State = Mapping[str, Tensor]


def gelu(x: Tensor) -> Tensor:
    return x * (1 + torch.erf(x / sqrt(2))) / 2


def layer_norm(s: State, name: str, x: Tensor, eps: float) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    scaled = centred / torch.sqrt((centred**2).mean(-1, keepdim=True) + eps)
    return scaled * s[f"{name}.weight"] + s[f"{name}.bias"]


def batch_norm(s: State, name: str, x: Tensor) -> Tensor:
    def channel(part: str) -> Tensor:
        return s[f"{name}.{part}"].view(1, -1, 1, 1)

    x = (x - channel("running_mean")) / torch.sqrt(channel("running_var") + 1e-5)
    return x * channel("weight") + channel("bias")


def linear(s: State, name: str, x: Tensor) -> Tensor:
    x = torch.einsum("...i,oi->...o", x, s[f"{name}.weight"])
    return x + s[f"{name}.bias"] if f"{name}.bias" in s else x


def conv(s: State, name: str, x: Tensor, stride: int = 1, padding: int = 0) -> Tensor:
    weight = s[f"{name}.weight"]
    return F.conv2d(x, weight, s[f"{name}.bias"], stride, padding, 1, x.shape[1] // weight.shape[1])


def attend(
    q: Tensor, k: Tensor, v: Tensor, heads: int, scale: float, bias: Tensor | None
) -> Tensor:
    """Softmax attention of tokens (B, N, D) on (B, M, D), one head after the other."""
    made: list[Tensor] = []
    for head in range(heads):
        part = slice(head * q.shape[2] // heads, (head + 1) * q.shape[2] // heads)
        weights = torch.einsum("bnd,bmd->bnm", q[..., part], k[..., part]) * scale
        weights = torch.exp(weights + (0 if bias is None else bias[head]))
        weights = weights / weights.sum(-1, keepdim=True)
        made.append(torch.einsum("bnm,bmd->bnd", weights, v[..., part]))
    return torch.cat(made, dim=-1)


def cmt(
    s: State, x: Tensor, *, depths: Sequence[int], reductions: Sequence[int] = (8, 4, 2, 1)
) -> tuple[Tensor, dict[str, Tensor]]:
    """Guo et al., CVPR 2022: (B, 3, S, S) -> (B, K)."""
    stages: dict[str, Tensor] = {}
    for i in (1, 2, 3):
        x = gelu(conv(s, f"stem_conv{i}", x, 2 if i == 1 else 1, 1))
        x = batch_norm(s, f"stem_norm{i}", x)
    stages["stem"] = x
    for stage, name in enumerate("abcd"):
        x = conv(s, f"patch_embed_{name}.proj", x, 2)
        b, d, h, w = x.shape
        x = layer_norm(s, f"patch_embed_{name}.norm", x.flatten(2).mT, 1e-5).mT.view(b, d, h, w)
        bias = s[f"relative_pos_{name}"]
        for i in range(depths[stage]):
            at = f"blocks_{name}.{i}"
            x = x + conv(s, f"{at}.proj", x, 1, 1)
            y = layer_norm(s, f"{at}.norm1", x.flatten(2).mT, 1e-6)  # (B, N, D)
            few = y
            if reductions[stage] > 1:
                few = conv(s, f"{at}.attn.sr.0", y.mT.reshape(b, d, h, w), reductions[stage])
                few = batch_norm(s, f"{at}.attn.sr.1", few).flatten(2).mT
            q, k, v = (
                linear(s, f"{at}.attn.{part}", of)
                for part, of in (("q", y), ("k", few), ("v", few))
            )
            y = attend(q, k, v, 2**stage, (d / 2**stage) ** -0.5, bias)
            x = x + linear(s, f"{at}.attn.proj", y).mT.reshape(b, d, h, w)
            y = layer_norm(s, f"{at}.norm2", x.flatten(2).mT, 1e-6).mT.reshape(b, d, h, w)
            y = batch_norm(s, f"{at}.mlp.conv1.2", gelu(conv(s, f"{at}.mlp.conv1.0", y)))
            y = gelu(conv(s, f"{at}.mlp.proj", y, 1, 1) + y)
            y = conv(s, f"{at}.mlp.conv2.0", batch_norm(s, f"{at}.mlp.proj_bn", y))
            x = x + batch_norm(s, f"{at}.mlp.conv2.1", y)
        stages[f"stage_{name}"] = x.flatten(2).mT
    x = batch_norm(s, "_bn", conv(s, "_fc", x))
    x = (x / (1 + torch.exp(-x))).mean((2, 3))
    return linear(s, "head", x), stages


def features(s: State, prefix: str, x: Tensor, last_block: int | None) -> Tensor:
    """efficientnet-pytorch's own map after a block, or after the head convolution."""
    net = EfficientNet.from_name("efficientnet-b0", image_size=x.shape[-1])
    net = net.to(x.dtype).eval()  # pyright: ignore[reportUnknownMemberType]
    own = {k.removeprefix(prefix): v for k, v in s.items() if k.startswith(prefix)}

    class Cut(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor) -> Tensor:
            if last_block is None:
                return net.extract_features(x)
            x = net._swish(net._bn0(net._conv_stem(x)))
            for block in net._blocks[: last_block + 1]:
                x = block(x)
            return x

    return torch.func.functional_call(Cut(), {f"net.{k}": v for k, v in own.items()}, (x,))


def one_token(x: Tensor) -> Tensor:
    """The whole map as one vector, place by place: (B, C, G, G) -> (B, 1, G * G * C)."""
    return x.permute(0, 2, 3, 1).reshape(x.shape[0], 1, -1)


def coccomini(s: State, name: str, x: Tensor, *, heads: int, depth: int, split: bool) -> Tensor:
    """Pre-norm layers with heads of 64; `split` projections and a final norm, or a fused one."""
    for i in range(depth):
        at = f"{name}.layers.{i}"
        y = layer_norm(s, f"{at}.0.norm", x, 1e-5)
        q, k, v = (
            (linear(s, f"{at}.0.fn.to_q", y), *linear(s, f"{at}.0.fn.to_kv", y).chunk(2, -1))
            if split
            else linear(s, f"{at}.0.fn.to_qkv", y).chunk(3, -1)
        )
        x = x + linear(s, f"{at}.0.fn.to_out.0", attend(q, k, v, heads, 64**-0.5, None))
        y = linear(s, f"{at}.1.fn.net.0", layer_norm(s, f"{at}.1.norm", x, 1e-5))
        x = x + linear(s, f"{at}.1.fn.net.3", gelu(y))
    return layer_norm(s, f"{name}.norm", x, 1e-5) if split else x


def efficient_vit(
    s: State, x: Tensor, *, heads: int = 8, depth: int = 6
) -> tuple[Tensor, dict[str, Tensor]]:
    """Coccomini et al.'s Efficient ViT as published: row b of the table goes to image b."""
    token = linear(s, "patch_to_embedding", one_token(features(s, "efficient_net.", x, None)))
    tokens = torch.cat([s["cls_token"].expand(len(x), -1, -1), token], dim=1)
    y = coccomini(s, "transformer", tokens + s["pos_embedding"][: len(x)], heads=heads,
                  depth=depth, split=False)  # fmt: skip
    logits = linear(s, "mlp_head.2", torch.relu(linear(s, "mlp_head.0", y[:, 0])))
    return logits, {"patch_lin": token, "transformer": y}


def cross_efficient_vit(
    s: State, x: Tensor, *, heads: int = 8, depth: int = 4
) -> tuple[Tensor, dict[str, Tensor]]:
    """Their Convolutional Cross ViT: two extractors, two tokens each, class tokens exchanged."""

    def embedded(name: str, last_block: int | None) -> Tensor:
        token = one_token(features(s, f"{name}.efficient_net.", x, last_block))
        token = linear(s, f"{name}.to_patch_embedding.1", token)
        tokens = torch.cat([s[f"{name}.cls_token"].expand(len(x), -1, -1), token], dim=1)
        return tokens + s[f"{name}.pos_embedding"][:, :2]

    def exchanged(at: str, cls: Tensor, context: Tensor) -> Tensor:
        y = layer_norm(s, f"{at}.fn.norm", linear(s, f"{at}.project_in", cls), 1e-5)
        seen = torch.cat([y, context], dim=1)
        k, v = linear(s, f"{at}.fn.fn.to_kv", seen).chunk(2, -1)
        y = attend(linear(s, f"{at}.fn.fn.to_q", y), k, v, heads, 64**-0.5, None)
        return cls + linear(s, f"{at}.project_out", linear(s, f"{at}.fn.fn.to_out.0", y))

    small, large = embedded("sm_image_embedder", None), embedded("lg_image_embedder", 2)
    stages = {"sm_embed": small, "lg_embed": large}
    for d in range(depth):
        at = f"multi_scale_encoder.layers.{d}"
        small = coccomini(s, f"{at}.0", small, heads=heads, depth=2, split=True)
        large = coccomini(s, f"{at}.1", large, heads=heads, depth=3, split=True)
        small_cls, large_cls = small[:, :1], large[:, :1]
        for r in range(2):
            small_cls = exchanged(f"{at}.2.layers.{r}.0", small_cls, large[:, 1:])
            large_cls = exchanged(f"{at}.2.layers.{r}.1", large_cls, small[:, 1:])
        small = torch.cat([small_cls, small[:, 1:]], dim=1)
        large = torch.cat([large_cls, large[:, 1:]], dim=1)
    stages["enc"] = small
    logits = sum(
        linear(s, f"{name}_mlp_head.1", layer_norm(s, f"{name}_mlp_head.0", y[:, 0], 1e-5))
        for name, y in (("sm", small), ("lg", large))
    )
    assert isinstance(logits, Tensor)
    return logits, stages
