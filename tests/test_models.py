"""Every family keeps the contract; sizes, hybrids and a user's own network."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from model_contract import check, num_parameters
from torch import Tensor, nn

from forensics.errors import ConfigError
from forensics.models import MODELS, build
from forensics.models.layers import PatchEmbed

# Small members of each family: name, options, image size.
SMALL: list[tuple[str, dict[str, object], int]] = [
    ("efficient-vit", {"width": 32, "depth": 2, "heads": 4}, 64),
    ("vit-tiny", {"depth": 2, "patch_size": 8}, 32),
    ("convit-tiny", {"depth": 3, "local_depth": 2, "patch_size": 8}, 32),
    ("cvt-13", {"widths": (16, 24, 32), "depths": (1, 1, 2), "heads": (1, 2, 2)}, 32),
    ("cvt-13", {"projection": "avg", "widths": (16, 32), "depths": (1, 1), "heads": (1, 2),
                "kv_strides": (2, 1), "mlp_ratios": (2, 3.5)}, 64),
    ("cvt-13", {"projection": "linear", "activation": "gelu", "widths": (16,), "depths": (1,),
                "heads": (1,), "kv_strides": (1,), "mlp_ratios": (2,)}, 32),
    ("cmt-ti", {"stem": 8, "width": 16, "depths": (1, 1, 2, 1), "reductions": (4, 2, 1, 1)}, 64),
    ("efficientnet-b0", {}, 64),
    ("cross-efficient-vit", {"large_patch": 4, "depth": 1, "small_width": 32, "large_width": 48,
                             "hidden": 64}, 64),
    ("efficient-vit-published",
     {"patch_size": 2, "width": 32, "depth": 1, "heads": 1, "hidden": 32}, 64),
    ("cross-efficient-vit-published",
     {"small_patch": 2, "large_patch": 16, "depth": 1, "heads": 1, "hidden": 32,
      "small_width": 16, "large_width": 24}, 64),
    *[("hybrid", {"transformer": name, "options": {"width": 32, "depth": 2, "heads": 2, **more}},
       64) for name, more in (("vit", {}), ("convit", {"local_depth": 1}), ("cvt", {}),
                              ("cmt", {}))],
    ("hybrid", {"cut": 10, "transformer": "vit",
                "options": {"width": 32, "depth": 1, "heads": 2, "patch_size": 2}}, 64),
    ("hybrid", {"cut": 7, "transformer": "cmt",
                "options": {"width": 32, "depth": 1, "heads": 2, "reduction": 2}}, 100),
    ("efficient-vit", {"patch_size": 2, "width": 32, "depth": 1, "heads": 4}, 100),
    ("hybrid", {"extractor": "none", "transformer": "convit",
                "options": {"patch_size": 16, "depth": 2, "local_depth": 1}}, 64),
]  # fmt: skip


@pytest.mark.parametrize(("name", "options", "size"), SMALL)
def test_the_contract(name: str, options: dict[str, object], size: int, tmp_path: Path) -> None:
    check(name, options, size, tmp_path)


# Parameters with a head of one logit: architectures as published, counted by their references.
COUNTS = {
    "vit-tiny": 5_524_609,
    "vit-small": 21_666_049,
    "vit-base": 85_799_425,
    "vit-base-p32": 87_456_001,
    "vit-large": 303_302_657,
    "vit-huge": 630_766_081,
    "convit-tiny": 5_517_705,
    "convit-small": 27_344_755,
    "convit-base": 85_771_809,
    "cmt-ti": 8_425_827,
    "cmt-xs": 14_100_089,
    "cmt-s": 24_976_441,
    "cmt-b": 44_231_957,
    "cvt-13": 19_612_865,
    "cvt-21": 31_238_081,
    "cvt-w24": 276_172_417,
    **{
        f"efficientnet-b{i}": count
        for i, count in enumerate(
            # The counts for 1000 classes, less 999 rows of the last layer.
            n - 999 * (width + 1)
            for n, width in (
                (5_288_548, 1280),
                (7_794_184, 1280),
                (9_109_994, 1408),
                (12_233_232, 1536),
                (19_341_616, 1792),
                (30_389_784, 2048),
                (43_040_704, 2304),
                (66_347_960, 2560),
            )
        )
    },
    "efficient-vit-published": 109_447_781,
    "cross-efficient-vit-published": 101_377_610,
}


@pytest.mark.parametrize("name", sorted(COUNTS))
def test_parameters_are_those_of_the_reference(name: str) -> None:
    with torch.device("meta"):
        assert num_parameters(build(name, {})) == COUNTS[name]


@pytest.mark.parametrize(
    ("name", "options", "count"),
    [
        ("cmt-ti", {"num_classes": 1000, "image_size": 160}, 9_492_426),
        ("cmt-xs", {"num_classes": 1000, "image_size": 192}, 15_247_208),
        ("cmt-b", {"num_classes": 1000, "image_size": 256}, 45_715_076),
        ("cvt-13", {"num_classes": 1000, "projection": "avg"}, 19_855_976),
        ("efficient-vit-published", {"extractor": "efficientnet-b7"}, 234_732_473),
    ],
)
def test_parameters_of_other_forms(name: str, options: dict[str, object], count: int) -> None:
    with torch.device("meta"):
        assert num_parameters(build(name, options)) == count


def test_every_name_has_a_count_or_a_contract() -> None:
    tested = {name for name, _, _ in SMALL} | COUNTS.keys()
    assert set(MODELS) <= tested


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("vit-tiny", {"patch_size": 15}, "not divisible by patch_size 15"),
        ("vit-tiny", {"heads": 5}, "not divisible by 5 heads"),
        ("convit-tiny", {"local_depth": 12}, "local_depth"),
        ("cvt-13", {"widths": (64, 192)}, "differ in length"),
        ("cvt-13", {"projection": "conv"}, "dw_bn, avg, linear"),
        ("cvt-13", {"activation": "relu"}, "quickgelu, gelu"),
        ("cmt-ti", {"image_size": 30}, "leaves stage a a grid of 7"),
        ("cmt-ti", {"reductions": (57, 4, 2, 1)}, "grid of 56, less than its reduction of 57"),
        ("cmt-ti", {"reductions": (0, 4, 2, 1)}, "reductions must be above 0"),
        ("vit-tiny", {"depth": 10**9}, "depth must be at most 1000"),
        ("cvt-13", {"depths": (1, 2, 10**9)}, "depths must be at most 1000"),
        ("vit-tiny", {"num_classes": 0}, "num_classes must be above 0"),
        ("vit-tiny", {"mlp_ratio": float("nan")}, "mlp_ratio must be above 0"),
        ("hybrid", {"cut": -1}, "cut must be at least 0"),
        ("hybrid", {"options": {"width": -8}}, "width must be above 0"),
        ("vit-tiny", {"width": "wide"}, "vit-tiny"),
        ("convit-tiny", {"image_size": 10**20}, "convit-tiny"),
        ("cvt-13", {"widths": 64}, "cvt-13"),
        ("cmt-ti", {"depths": {}}, "cmt-ti"),
        ("efficientnet-b0", {"image_size": 31}, "at least 32"),
        ("efficientnet-b0", {"extractor": "b0"}, "efficientnet-b7"),
        ("hybrid", {"transformer": "swin"}, "vit, convit, cvt, cmt"),
        ("hybrid", {"cut": 16}, "0 to 15"),
        ("hybrid", {"extractor": "none", "cut": 3}, "cut needs an extractor"),
        ("hybrid", {"transformer": "cmt", "options": {"reduction": 8}}, "1..7, the grid, not 8"),
        ("hybrid", {"options": {"colour": 1}}, "colour"),
        ("vit-tiny", {"colour": 1}, "colour"),
    ],
)
def test_what_does_not_fit_is_named(name: str, options: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build(name, options)


@pytest.mark.parametrize("name", ["vit-tiny", "convit-tiny", "efficientnet-b0"])
def test_another_size_is_refused(name: str) -> None:
    model = build(name, {"image_size": 64})
    with pytest.raises(ValueError, match="64 px"):
        model(torch.zeros(1, 3, 32, 32))


class MeanColour(nn.Module):
    """A user's network: as the door of the builder asks for it."""

    def __init__(self, *, image_size: int, gain: float = 1.0) -> None:
        super().__init__()
        self.image_size = image_size
        self.gain = nn.Parameter(torch.tensor(gain))

    def forward(self, x: Tensor) -> Tensor:
        return self.gain * x.mean((1, 2, 3))


def test_a_network_of_ones_own_is_built_from_its_class() -> None:
    model = build(MeanColour, {"image_size": 8, "gain": 2.0})
    assert torch.equal(model(torch.ones(2, 3, 8, 8)), torch.full((2,), 2.0))
    with pytest.raises(ConfigError, match=r"MeanColour.*colour"):
        build(MeanColour, {"image_size": 8, "colour": 1})


@pytest.mark.parametrize("side", [1, 4, 8])
def test_patches_are_embedded_as_a_convolution_embeds_them_in_bfloat16_too(side: int) -> None:
    torch.manual_seed(side)
    embed = PatchEmbed(24, side, 48).eval()
    x = torch.randn(7, 24, 16, 16)
    with torch.no_grad():
        expected = embed.proj(x).flatten(2).transpose(1, 2)
        torch.testing.assert_close(embed(x), expected, rtol=1e-5, atol=1e-5)
        with torch.autocast("cpu", torch.bfloat16):
            half = embed(x)
    assert half.dtype == torch.bfloat16
    assert (half.float() - expected).abs().max() < 0.02 * expected.abs().max()
