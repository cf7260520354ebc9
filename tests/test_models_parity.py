"""Families equal their references: timm, transformers, and numbers of the authors' own code."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from fill import fill, golden_input
from model_contract import compare, num_parameters, same_gradients, watch
from recomposed import attend, cmt, cross_efficient_vit, efficient_vit, linear
from torch import nn
from transformers import CvtConfig, CvtForImageClassification

from forensics.models import build
from forensics.models.cmt import LightAttention, resize_bias
from forensics.models.cvt import ConvAttention, QuickGELU
from forensics.weight_names import TRANSLATIONS

GOLDEN = json.loads((Path(__file__).parent / "assets" / "golden.json").read_text(encoding="utf-8"))


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
                ("vit-huge", "vit_huge_patch14_224", 224),
            )
        ],
    ],
)
def test_vit_equals_timm(mine: str, theirs: str, size: int, cut: dict[str, int]) -> None:
    words = {"num_classes": 10, "image_size": size, **cut}
    with torch.device("meta"):  # their values come from `fill`
        reference = timm.create_model(theirs, num_classes=10, img_size=size, **cut)
        model = build(mine, words)
    reference.to_empty(device="cpu")
    model.to_empty(device="cpu")
    # Gradients of the whole huge network in float64 would take 20 GB.
    whole = mine == "vit-huge" and not cut
    compare(model, reference, size=size, gradients=not whole, statistics=False)


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
    compare(build(f"convit-{name}", words), reference, size=size, statistics=False)


@pytest.mark.parametrize(("size", "heads"), [("tiny", 4), ("small", 9), ("base", 16)])
def test_convit_begins_as_timm_does(size: str, heads: int) -> None:
    mine = build(f"convit-{size}", {"depth": 3, "local_depth": 2}).state_dict()
    theirs = timm.create_model(f"convit_{size}", depth=3, local_up_to_layer=2).state_dict()
    for i in (0, 1):
        for part in ("v.weight", "gating_param", "pos_proj.weight"):
            name = f"blocks.{i}.attn.{part}"
            assert torch.equal(mine[name], theirs[name])
    assert mine["blocks.1.attn.pos_proj.weight"].shape == (heads, 3)


def microsoft(name: str) -> str:
    """Hugging Face's name of a CvT parameter -> Microsoft's, as conversion translates it."""
    (renamed,) = TRANSLATIONS["CvT"]({name: torch.empty(0)})
    return renamed


def transformers_cvt(activation: str = "gelu", **words: Any) -> nn.Module:
    """Without its drop path, which is drawn after the sum and so drops whole images."""
    with torch.device("meta"):  # its values come from `fill`
        reference = CvtForImageClassification(
            CvtConfig(num_labels=10, drop_path_rate=[0.0] * 3, **words)
        )
    reference.to_empty(device="cpu")
    if activation == "quickgelu":
        for module in reference.modules():
            if isinstance(getattr(module, "activation", None), nn.GELU):
                module.activation = QuickGELU()
    return reference


CVT = {
    "cvt-13": {"embed_dim": [64, 192, 384], "depth": [1, 2, 10], "num_heads": [1, 3, 6]},
    "cvt-21": {"embed_dim": [64, 192, 384], "depth": [1, 4, 16], "num_heads": [1, 3, 6]},
    "cvt-w24": {"embed_dim": [192, 768, 1024], "depth": [2, 2, 20], "num_heads": [3, 12, 16]},
}


@pytest.mark.parametrize("activation", ["gelu", "quickgelu"])
@pytest.mark.parametrize(
    ("name", "depths", "size"),
    [
        ("cvt-13", (1, 2, 3), 64),
        pytest.param("cvt-13", None, 224, marks=pytest.mark.slow),
        pytest.param("cvt-21", None, 224, marks=pytest.mark.slow),
        pytest.param("cvt-w24", (1, 2, 3), 64, marks=pytest.mark.slow),
        pytest.param("cvt-w24", None, 64, marks=pytest.mark.slow),
    ],
)
def test_cvt_equals_transformers(
    name: str, depths: tuple[int, ...] | None, size: int, activation: str
) -> None:
    cut: dict[str, Any] = {} if depths is None else {"depth": list(depths)}
    words: dict[str, Any] = {} if depths is None else {"depths": depths}
    compare(
        build(name, {"num_classes": 10, "activation": activation, **words}),
        transformers_cvt(activation, **{**CVT[name], **cut}),
        size=size,
        rename=microsoft,
        logits=lambda out: out.logits,
        # The widest network sums 1024 products; in float64 the difference stays below 1e-9.
        tolerance=5e-5,
    )


def test_cvt_with_strides_and_ratios_free_per_stage() -> None:
    words = {"embed_dim": [32, 64, 96], "depth": [1, 2, 3], "num_heads": [1, 2, 3]}
    theirs = transformers_cvt(**words, stride_kv=[4, 2, 1], mlp_ratio=[2.0, 3.0, 3.5])
    mine = {"widths": (32, 64, 96), "depths": (1, 2, 3), "heads": (1, 2, 3)}
    free = {"kv_strides": (4, 2, 1), "mlp_ratios": (2, 3, 3.5), "activation": "gelu"}
    compare(
        build("cvt-13", {"num_classes": 10, **mine, **free}),
        theirs,
        size=96,
        rename=microsoft,
        logits=lambda out: out.logits,
        tolerance=2e-5,
    )


def test_a_linear_projection_is_attention_of_the_tokens_themselves() -> None:
    attention = ConvAttention(8, 2, "linear", 2).eval().double()
    attention.load_state_dict(fill(attention.state_dict()))
    x = torch.randn(2, 1 + 12, 8, generator=torch.Generator().manual_seed(0)).double()
    s = attention.state_dict()
    q, k, v = (linear(s, f"proj_{part}", x) for part in "qkv")
    expected = linear(s, "proj", attend(q, k, v, 2, 8**-0.5, None))
    torch.testing.assert_close(attention(x, 3, 4), expected, rtol=1e-12, atol=1e-12)


# The key's network, its options, and the modules whose outputs the authors' stages are.
AUTHORS: list[Any] = [
    ("cmt_ti@160", "cmt-ti", {}),
    pytest.param("cmt_s@224", "cmt-s", {}, marks=pytest.mark.slow),
    pytest.param("cmt_b@256", "cmt-b", {}, marks=pytest.mark.slow),
    ("cvt13_ms_quickgelu@224", "cvt-13", {}),
    ("cvt13_ms_avg@224", "cvt-13", {"projection": "avg"}),
    ("convit_tiny_fb@224", "convit-tiny", {}),
    pytest.param("convit_base_fb@224", "convit-base", {}, marks=pytest.mark.slow),
    ("efficient_vit_b0@224", "efficient-vit-published", {"num_classes": 1}),
    ("cross_efficient_vit_b0@224", "cross-efficient-vit-published", {"num_classes": 1}),
]
MODULES = {
    "patch": "patch_embed",
    "patch_lin": "patch_to_embedding",
    "sm_embed": "sm_image_embedder",
    "lg_embed": "lg_image_embedder",
    "enc": "multi_scale_encoder",
    "stem": "stem_norm3",
    **{f"block{i}": f"blocks.{i}" for i in (0, 9, 11)},
}


@pytest.mark.parametrize(("key", "name", "options"), AUTHORS)
def test_numbers_are_those_of_the_authors_code(
    key: str, name: str, options: dict[str, Any]
) -> None:
    size = int(key.rpartition("@")[2])
    with torch.device("meta"):
        model = build(name, {"num_classes": 1000, "image_size": size, **options}).eval()
    model.load_state_dict(fill(model.state_dict()), assign=True)
    expected = GOLDEN[key]
    assert num_parameters(model) == expected["parameters"]
    modules = {stage: MODULES.get(stage, stage) for stage in expected["stages"]}
    for stage in expected["stages"]:
        if stage.startswith("stage_"):  # of CMT: its last block
            last = len(list(model.get_submodule(f"blocks_{stage[-1]}").children())) - 1
            modules[stage] = f"blocks_{stage[-1]}.{last}"
    for dtype, limit in ((torch.float32, 2e-4), (torch.float64, 1e-9)):
        x = golden_input(size).to(dtype)
        with torch.no_grad():
            made, seen = watch(model.to(dtype), list(modules.values()), x)
            alone = model(x[:1])
        made, alone = made.reshape(2, -1).double(), alone.reshape(1, -1).double()
        assert (alone - made[:1]).abs().max() < limit
        for i in (0, 1):
            golden = torch.tensor(expected[f"logits{i}"], dtype=torch.float64)
            assert (made[i, : len(golden)] - golden).abs().max() < limit
        assert abs(float(made.norm()) - expected["l2"]) < 100 * limit
        for stage, golden in expected["stages"].items():
            output = seen[modules[stage]].double()
            assert list(output.shape) == golden["shape"]
            near = 1e-4 * golden["std"]  # the stages' numbers are of float32
            assert abs(float(output.mean()) - golden["mean"]) < near, stage
            assert abs(float(output.std()) - golden["std"]) < near, stage
            first = torch.tensor(golden["first"], dtype=torch.float64)
            assert (output.flatten()[:4] - first).abs().max() < near, stage


# Networks that no library has; the depths are those of the variants.
COMPOSED: list[Any] = [
    ("cmt-ti", {"image_size": 64}, cmt, {"depths": (2, 2, 10, 2)}),
    ("cmt-xs", {"image_size": 64, "depths": (1, 1, 2, 1)}, cmt, {"depths": (1, 1, 2, 1)}),
    *[
        pytest.param(f"cmt-{name}", {"image_size": s}, cmt, {"depths": d}, marks=pytest.mark.slow)
        for name, s, d in (("xs", 192, (3, 3, 12, 3)), ("s", 96, (3, 3, 16, 3)),
                           ("b", 64, (4, 4, 20, 4)))
    ],
    ("efficient-vit-published", {"patch_size": 2, "image_size": 64, "width": 64, "depth": 2,
                                 "heads": 2, "hidden": 96}, efficient_vit,
     {"heads": 2, "depth": 2}),
    ("cross-efficient-vit-published", {"small_patch": 2, "large_patch": 16, "image_size": 64,
                                       "depth": 2, "heads": 2, "hidden": 96}, cross_efficient_vit,
     {"heads": 2, "depth": 2}),
    *[
        pytest.param(f"{name}-published", {}, function, {}, marks=pytest.mark.slow)
        for name, function in (("efficient-vit", efficient_vit),
                               ("cross-efficient-vit", cross_efficient_vit))
    ],
]  # fmt: skip


@pytest.mark.parametrize(("name", "options", "function", "words"), COMPOSED)
def test_logits_and_gradients_are_those_of_the_formulas(
    name: str, options: dict[str, Any], function: Callable[..., Any], words: dict[str, Any]
) -> None:
    many = {"num_classes": 10} if name.startswith("cmt") else {}
    model = build(name, {**options, **many}).eval()
    state = fill(model.state_dict())
    model.load_state_dict(state)
    for dtype, limit, slope in ((torch.float32, 2e-4, 1e-3), (torch.float64, 1e-9, 1e-8)):
        model.to(dtype).zero_grad(set_to_none=True)
        learnt = dict(model.named_parameters())
        leaves = {
            k: v.to(dtype, copy=True).requires_grad_(k in learnt) if v.is_floating_point() else v
            for k, v in state.items()
        }
        for batch in (1, 2):
            x = golden_input(int(model.image_size), batch).to(dtype)
            made = model(x)
            expected, _ = function(leaves, x, **words)
            scale = expected.abs().max().clamp_min(1)
            assert (made.reshape(batch, -1) - expected).abs().max() / scale < limit
        made.square().sum().backward()
        expected.square().sum().backward()
        found = {k: p.grad for k, p in learnt.items() if p.grad is not None}
        same_gradients(found, {k: leaves[k].grad for k in found}, slope)  # type: ignore[misc]
        assert {k for k in learnt if leaves[k].grad is not None} <= found.keys()


@pytest.mark.parametrize(
    ("key", "name", "function", "words"),
    [
        ("cmt_ti@160", "cmt-ti", cmt, {"depths": (2, 2, 10, 2)}),
        *[
            pytest.param(f"{key}_b0@224", f"{name}-published", function, {}, marks=pytest.mark.slow)
            for key, name, function in (
                ("efficient_vit", "efficient-vit", efficient_vit),
                ("cross_efficient_vit", "cross-efficient-vit", cross_efficient_vit),
            )
        ],
    ],
)
def test_the_formulas_give_the_authors_numbers_too(
    key: str, name: str, function: Callable[..., Any], words: dict[str, Any]
) -> None:
    size, expected = int(key.rpartition("@")[2]), GOLDEN[key]
    many = {"num_classes": 1000} if name.startswith("cmt") else {}
    with torch.device("meta"):
        model = build(name, {"image_size": size, **many})
    state = {
        k: v.double() if v.is_floating_point() else v for k, v in fill(model.state_dict()).items()
    }
    with torch.no_grad():
        made, _ = function(state, golden_input(size).double(), **words)
    for i in (0, 1):
        golden = torch.tensor(expected[f"logits{i}"], dtype=torch.float64)
        assert (made[i, : len(golden)] - golden).abs().max() < 1e-9


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


CMT_SMALL = {"stem": 8, "width": 16, "depths": (1, 1, 1, 1)}


@pytest.mark.parametrize(("old", "new"), [(64, 128), (160, 64), (100, 75), (32, 224)])
def test_a_cmt_reads_any_size_by_resizing_its_tables(old: int, new: int) -> None:
    model = build("cmt-ti", {**CMT_SMALL, "image_size": old}).eval()
    state = model.state_dict()
    assert all(torch.equal(v, state[k]) for k, v in resize_bias(state, old).items())
    for_good = build("cmt-ti", {**CMT_SMALL, "image_size": new}).eval()
    for_good.load_state_dict(resize_bias(state, new))
    with torch.no_grad():
        made, expected = model(golden_input(new)), for_good(golden_input(new))
        torch.testing.assert_close(made, expected, rtol=1e-5, atol=1e-6)
        assert model(torch.zeros(2, 3, 96, 160)).shape == (2,)


def test_tables_are_resized_by_query_grid_and_key_grid() -> None:
    # A bias that grows with the query's row and falls with the key's column keeps doing so.
    grid, few = torch.arange(16).float(), torch.arange(2).float()
    rows = grid.repeat_interleave(16)[:, None]
    columns = few.repeat(2)[None]
    state = {
        f"relative_pos_{name}": torch.zeros(1, s * s, 4)
        for name, s in zip("abcd", (16, 8, 4, 2), strict=True)
    }
    state["relative_pos_a"] = (rows - columns)[None]
    table = resize_bias(state, 128)["relative_pos_a"].view(32, 32, 4, 4)
    torch.testing.assert_close(table.std((1, 2)), torch.zeros(32, 4), rtol=0, atol=1e-4)
    assert (table[1:, 0, 0, 0] > table[:-1, 0, 0, 0]).all()
    assert (table[0, 0, 0, 1:] < table[0, 0, 0, :-1]).all()


def test_a_cvt_reads_any_size() -> None:
    model = build("cvt-13", {"depths": (1, 1, 1)}).eval()
    with torch.no_grad():
        assert model(torch.zeros(2, 3, 160, 96)).shape == (2,)
