"""Names of published weights -> the names of this project's networks.

Each family's parameters bear the names of the weights that most people have (timm's for ViT and
ConViT, Microsoft's for CvT, the official ones for CMT, efficientnet-pytorch's for EfficientNet);
what others call them is translated here. Values are never touched but to join what was split.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import torch
from torch import Tensor

Tensors = dict[str, Tensor]


def is_transformers_vit(tensors: Tensors) -> bool:
    """Whether these are a ViT's weights as transformers names them."""
    return any(re.search(r"(^|\.)embeddings\.patch_embeddings\.", name) for name in tensors)


def _as_it_is(tensors: Tensors) -> Tensors:
    return tensors


_HF_VIT = (
    (r"^(vit\.)?embeddings\.cls_token$", "cls_token"),
    (r"^(vit\.)?embeddings\.position_embeddings$", "pos_embed"),
    (r"^(vit\.)?embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^(vit\.)?(encoder\.layer|layers)\.(\d+)\.", r"blocks.\3."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.attention\.(output\.dense|o_proj)\.", ".attn.proj."),
    (r"\.attention\.attention\.(query|key|value)\.", r".attn.\1."),
    (r"\.attention\.([qkv])_proj\.", r".attn.\1."),
    (r"\.(intermediate\.dense|mlp\.fc1)\.", ".mlp.fc1."),
    (r"^(blocks\.\d+)\.(output\.dense|mlp\.fc2)\.", r"\1.mlp.fc2."),
    (r"^(vit\.)?layernorm\.", "norm."),
    (r"^classifier\.", "head."),
)


def _vit(tensors: Tensors) -> Tensors:
    """timm's names, or either of the two that transformers has had."""
    if "patch_embed.proj.weight" in tensors:
        return {k: v for k, v in tensors.items() if not k.startswith("pre_logits.")}
    renamed = {_renamed(name, _HF_VIT): value for name, value in tensors.items()}
    joined: Tensors = {}
    for name, value in renamed.items():
        match = re.fullmatch(r"(.*\.attn)\.(query|key|value|q|k|v)\.(weight|bias)", name)
        if match is None:
            joined[name] = value
        elif match[2][0] == "q":
            long = len(match[2]) > 1
            parts = ("query", "key", "value") if long else ("q", "k", "v")
            names = [f"{match[1]}.{part}.{match[3]}" for part in parts]
            if all(part in renamed for part in names):
                joined[f"{match[1]}.qkv.{match[3]}"] = torch.cat([renamed[n] for n in names])
    return joined


_HF_CVT = (
    (r"^cvt\.", ""),
    (r"^encoder\.stages\.(\d)\.", r"stage\1."),
    (r"embedding\.convolution_embeddings\.projection", "patch_embed.proj"),
    (r"embedding\.convolution_embeddings\.normalization", "patch_embed.norm"),
    (r"layers\.(\d+)\.layernorm_before", r"blocks.\1.norm1"),
    (r"layers\.(\d+)\.layernorm_after", r"blocks.\1.norm2"),
    (r"layers\.(\d+)\.attention\.output\.dense", r"blocks.\1.attn.proj"),
    (r"layers\.(\d+)\.intermediate\.dense", r"blocks.\1.mlp.fc1"),
    (r"layers\.(\d+)\.output\.dense", r"blocks.\1.mlp.fc2"),
    (r"layers\.(\d+)\.attention\.attention\.", r"blocks.\1.attn."),
    (
        r"convolution_projection_(.)\w*\.convolution_projection\.convolution",
        r"conv_proj_\1.conv",
    ),
    (
        r"convolution_projection_(.)\w*\.convolution_projection\.normalization",
        r"conv_proj_\1.bn",
    ),
    (r"projection_(q)uery|projection_(k)ey|projection_(v)alue", r"proj_\1\2\3"),
    (r"^layernorm", "norm"),
    (r"^classifier", "head"),
)


def _cvt(tensors: Tensors) -> Tensors:
    """Microsoft's names, or those of transformers."""
    if "stage0.patch_embed.proj.weight" in tensors:
        return tensors
    return {_renamed(name, _HF_CVT): value for name, value in tensors.items()}


def _efficientnet(tensors: Tensors) -> Tensors:
    """efficientnet-pytorch's names, or those of timm's `tf_efficientnet_*`."""
    if "_conv_stem.weight" not in tensors:
        tensors = _from_timm(tensors)
    return {f"net.{name}": value for name, value in tensors.items()}


def _from_timm(tensors: Tensors) -> Tensors:
    stages = sorted(
        {(int(m[1]), int(m[2])) for n in tensors if (m := re.match(r"blocks\.(\d+)\.(\d+)\.", n))}
    )
    number = {place: i for i, place in enumerate(stages)}
    # A block without expansion has no first convolution: its batch norms count from the next.
    outer = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1"}
    outer["classifier"] = "_fc"
    inner = {"conv_dw": "_depthwise_conv", "conv_pwl": "_project_conv"}
    inner |= {"se.conv_reduce": "_se_reduce", "se.conv_expand": "_se_expand"}
    renamed: Tensors = {}
    for name, value in tensors.items():
        match = re.match(r"blocks\.(\d+)\.(\d+)\.(.*)\.(\w+)$", name)
        if match is None:
            part, _, last = name.rpartition(".")
            renamed[f"{outer.get(part, part)}.{last}"] = value
            continue
        block = number[int(match[1]), int(match[2])]
        expands = f"blocks.{match[1]}.{match[2]}.conv_pwl.weight" in tensors
        names = {"conv_pw": "_expand_conv", "bn1": "_bn0", "bn2": "_bn1", "bn3": "_bn2"}
        if not expands:
            names = {"conv_pw": "_project_conv", "bn1": "_bn1", "bn2": "_bn2"}
        part = (names | inner).get(match[3], match[3])
        renamed[f"_blocks.{block}.{part}.{match[4]}"] = value
    return renamed


def _renamed(name: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


# By the class of the network. A family without an entry has no published weights.
TRANSLATIONS: dict[str, Callable[[Tensors], Tensors]] = {
    "ViT": _vit,
    "ConViT": _as_it_is,
    "CvT": _cvt,
    "CMT": _as_it_is,
    "EfficientNetClassifier": _efficientnet,
    "PublishedEfficientViT": _as_it_is,
    "PublishedCrossEfficientViT": _as_it_is,
}
