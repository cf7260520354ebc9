"""Families equal their references: timm, transformers, and numbers of the authors' own code."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from fill import fill, golden_input
from model_contract import compare
from torch import nn
from transformers import CvtConfig, CvtForImageClassification

from forensics.models import build
from forensics.models.cmt import LightAttention, resize_bias
from forensics.models.cvt import QuickGELU

GOLDEN = json.loads(
    (Path(__file__).parent / "assets" / "golden_logits.json").read_text(encoding="utf-8")
)


@pytest.mark.parametrize(
    ("mine", "theirs", "size", "cut"),
    [
        ("vit-tiny", "vit_tiny_patch16_224", 224, {}),
        ("vit-small", "vit_small_patch16_224", 64, {"depth": 3}),
        ("vit-base", "vit_base_patch16_224", 64, {"depth": 2}),
        ("vit-base-p32", "vit_base_patch32_224", 96, {"depth": 2}),
        ("vit-large", "vit_large_patch16_224", 64, {"depth": 1}),
        ("vit-huge", "vit_huge_patch14_224", 56, {"depth": 1}),
        *[
            pytest.param(*row, {}, marks=pytest.mark.slow)
            for row in (
                ("vit-small", "vit_small_patch16_224", 224),
                ("vit-base", "vit_base_patch16_224", 224),
                ("vit-base-p32", "vit_base_patch32_224", 224),
                ("vit-large", "vit_large_patch16_224", 224),
            )
        ],
    ],
)
def test_vit_equals_timm(mine: str, theirs: str, size: int, cut: dict[str, int]) -> None:
    reference = timm.create_model(theirs, num_classes=10, img_size=size, **cut)
    compare(build(mine, {"num_classes": 10, "image_size": size, **cut}), reference, size=size)


@pytest.mark.parametrize(
    ("name", "size", "cut"),
    [
        ("tiny", 224, False),
        ("small", 96, True),
        ("base", 96, True),
        pytest.param("small", 224, False, marks=pytest.mark.slow),
        pytest.param("base", 224, False, marks=pytest.mark.slow),
    ],
)
def test_convit_equals_timm(name: str, size: int, cut: bool) -> None:
    mine = {"depth": 3, "local_depth": 2} if cut else {}
    theirs = {"depth": 3, "local_up_to_layer": 2} if cut else {}
    reference = timm.create_model(f"convit_{name}", num_classes=10, img_size=size, **theirs)
    words = {"num_classes": 10, "image_size": size, **mine}
    compare(build(f"convit-{name}", words), reference, size=size)


@pytest.mark.parametrize("size", ["tiny", "small", "base"])
def test_convit_begins_as_timm_does(size: str) -> None:
    mine = build(f"convit-{size}", {}).state_dict()
    theirs = timm.create_model(f"convit_{size}").state_dict()
    heads = {"tiny": 4, "small": 9, "base": 16}[size]
    for name in ("blocks.0.attn.v.weight", "blocks.9.attn.gating_param"):
        assert torch.equal(mine[name], theirs[name])
    assert torch.equal(mine["blocks.3.attn.pos_proj.weight"],
                       theirs["blocks.3.attn.pos_proj.weight"])  # fmt: skip
    assert mine["blocks.3.attn.pos_proj.weight"].shape == (heads, 3)


def microsoft(name: str) -> str:
    """Hugging Face's name of a CvT parameter -> Microsoft's."""
    for old, new in (
        (r"^cvt\.encoder\.stages\.(\d)\.", r"stage\1."),
        (r"embedding\.convolution_embeddings\.projection", "patch_embed.proj"),
        (r"embedding\.convolution_embeddings\.normalization", "patch_embed.norm"),
        (r"layers\.(\d+)\.layernorm_before", r"blocks.\1.norm1"),
        (r"layers\.(\d+)\.layernorm_after", r"blocks.\1.norm2"),
        (r"layers\.(\d+)\.attention\.output\.dense", r"blocks.\1.attn.proj"),
        (r"layers\.(\d+)\.intermediate\.dense", r"blocks.\1.mlp.fc1"),
        (r"layers\.(\d+)\.output\.dense", r"blocks.\1.mlp.fc2"),
        (r"layers\.(\d+)\.attention\.attention\.", r"blocks.\1.attn."),
        (r"convolution_projection_(.)\w*\.convolution_projection\.convolution",
         r"conv_proj_\1.conv"),
        (r"convolution_projection_(.)\w*\.convolution_projection\.normalization",
         r"conv_proj_\1.bn"),
        (r"projection_(query|key|value)", lambda m: f"proj_{m[1][0]}"),
        (r"^layernorm", "norm"),
        (r"^classifier", "head"),
    ):  # fmt: skip
        name = re.sub(old, new, name)
    return name


@pytest.mark.parametrize("activation", ["gelu", "quickgelu"])
@pytest.mark.parametrize(
    ("name", "depths", "widths", "heads"),
    [
        ("cvt-13", (1, 2, 3), (64, 192, 384), (1, 3, 6)),
        pytest.param("cvt-w24", (1, 2, 3), (192, 768, 1024), (3, 12, 16), marks=pytest.mark.slow),
    ],
)
def test_cvt_equals_transformers(
    name: str, depths: tuple[int, ...], widths: tuple[int, ...], heads: tuple[int, ...],
    activation: str,
) -> None:  # fmt: skip
    config = CvtConfig(
        embed_dim=list(widths), depth=list(depths), num_heads=list(heads), num_labels=10
    )
    reference = CvtForImageClassification(config)
    if activation == "quickgelu":
        for module in reference.modules():
            if isinstance(getattr(module, "activation", None), nn.GELU):
                module.activation = QuickGELU()
    mine = build(name, {"num_classes": 10, "depths": depths, "activation": activation})
    # 5e-5: the wide network sums 1024 products; in float64 the difference is below 1e-9.
    compare(
        mine, reference, size=64, rename=microsoft, logits=lambda out: out.logits, tolerance=5e-5
    )


@pytest.mark.parametrize(
    ("key", "name", "options"),
    [
        ("cmt_ti@160", "cmt-ti", {}),
        pytest.param("cmt_s@224", "cmt-s", {}, marks=pytest.mark.slow),
        pytest.param("cmt_b@256", "cmt-b", {}, marks=pytest.mark.slow),
        ("cvt13_ms_quickgelu@224", "cvt-13", {}),
        ("cvt13_ms_avg@224", "cvt-13", {"projection": "avg"}),
        ("convit_tiny_fb@224", "convit-tiny", {}),
        pytest.param("convit_base_fb@224", "convit-base", {}, marks=pytest.mark.slow),
        ("efficient_vit_b0@224", "efficient-vit-published", {"num_classes": 1}),
        ("cross_efficient_vit_b0@224", "cross-efficient-vit-published", {"num_classes": 1}),
    ],
)
def test_logits_are_those_of_the_authors_code(key: str, name: str, options: dict[str, Any]) -> None:
    size = int(key.rpartition("@")[2])
    model = build(name, {"num_classes": 1000, "image_size": size, **options}).eval()
    model.load_state_dict(fill(model.state_dict()))
    expected = GOLDEN[key]
    with torch.no_grad():
        single = model(golden_input(size)).double()
        made = model.double()(golden_input(size).double())
    made, single = made.reshape(2, -1), single.reshape(2, -1)
    for i in (0, 1):
        golden = torch.tensor(expected[f"logits{i}"], dtype=torch.float64)
        assert (made[i, : len(golden)] - golden).abs().max() < 1e-9
        assert (single[i, : len(golden)] - golden).abs().max() < 2e-4
    assert abs(float(made.norm()) - expected["l2"]) < 1e-7


def test_light_attention_equals_loops() -> None:
    attention = LightAttention(8, 2, 2).eval().double()
    attention.load_state_dict(fill(attention.state_dict()))
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 16, 8, generator=generator, dtype=torch.float64)
    bias = torch.randn(2, 16, 4, generator=generator, dtype=torch.float64)
    assert attention.sr is not None
    with torch.no_grad():
        made = attention(x, 4, 4, bias)
        few = attention.sr(x[0].T.reshape(1, 8, 4, 4)).reshape(8, 4).T
        q, k, v = attention.q(x[0]), attention.k(few), attention.v(few)
        rows: list[torch.Tensor] = []
        for i in range(16):
            parts: list[torch.Tensor] = []
            for head in range(2):
                part = slice(4 * head, 4 * head + 4)
                logits = torch.stack(
                    [q[i, part] @ k[j, part] / 2 + bias[head, i, j] for j in range(4)]
                )
                parts.append(sum(w * v[j, part] for j, w in enumerate(logits.softmax(0))))  # type: ignore[arg-type]
            rows.append(torch.cat(parts))
        expected = attention.proj(torch.stack(rows))
    torch.testing.assert_close(made[0], expected, rtol=1e-12, atol=1e-12)


def test_bias_tables_are_resized_by_query_grid_and_key_grid() -> None:
    small = {"stem": 8, "width": 16, "depths": (1, 1, 1, 1), "reductions": (4, 2, 1, 1)}
    old = build("cmt-ti", {**small, "image_size": 64}).state_dict()
    assert all(torch.equal(v, old[k]) for k, v in resize_bias(old, 64, 64).items())
    new = build("cmt-ti", {**small, "image_size": 128})
    new.load_state_dict(resize_bias(old, 64, 128))
    flat = {k: torch.ones_like(v) if "relative_pos" in k else v for k, v in old.items()}
    resized = resize_bias(flat, 64, 128)["relative_pos_a"]
    torch.testing.assert_close(resized, torch.ones_like(resized))


def test_a_cvt_reads_any_size() -> None:
    model = build("cvt-13", {"depths": (1, 1, 1)}).eval()
    with torch.no_grad():
        assert model(torch.zeros(2, 3, 160, 96)).shape == (2,)
