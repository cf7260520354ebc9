"""EfficientNet B0 to B7 equal efficientnet-pytorch and timm, at any size, whole or cut anywhere."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from efficientnet_pytorch import EfficientNet
from fill import fill, golden_input
from model_contract import compare, num_parameters

from forensics.config import load_config
from forensics.errors import ConfigError
from forensics.models import build
from forensics.models.efficientnet import Extractor, efficientnet, shape_after
from forensics.models.hybrid import Hybrid
from forensics.training.config import DataConfig, ModelConfig
from forensics.training.network import build_network


# Version and size: 224 and its neighbours that strides do not divide, and the 380 of B4.
@pytest.mark.parametrize(
    ("version", "size"),
    [
        (0, 64), (0, 100), (0, 75), (1, 33),
        *[pytest.param(v, 64, marks=pytest.mark.slow) for v in range(2, 8)],
        *[pytest.param(v, size, marks=pytest.mark.slow)
          for v, size in ((0, 224), (0, 256), (4, 224), (4, 380))],
    ],
)  # fmt: skip
def test_equals_efficientnet_pytorch(version: int, size: int) -> None:
    name = f"efficientnet-b{version}"
    theirs = EfficientNet.from_name(name, image_size=size, num_classes=10, dropout_rate=0.0)
    mine = build(name, {"image_size": size, "num_classes": 10, "dropout": 0.0})
    compare(mine, theirs, size=size, rename=lambda n: f"net.{n}", tolerance=2e-5)


@pytest.mark.parametrize(
    ("version", "size"),
    [
        (0, 96), (1, 75),
        *[pytest.param(v, 100, marks=pytest.mark.slow) for v in range(2, 8)],
        *[pytest.param(v, size, marks=pytest.mark.slow)
          for v in (0, 4) for size in (224, 256, 380)],
    ],
)  # fmt: skip
def test_equals_timm(version: int, size: int) -> None:
    theirs = timm.create_model(f"tf_efficientnet_b{version}", num_classes=10)
    mine = build(f"efficientnet-b{version}", {"image_size": size, "num_classes": 10})
    # Both list their parameters in the order of execution.
    names = dict(zip(theirs.state_dict(), mine.state_dict(), strict=True))
    # In training mode mine drops residuals, as the paper does; timm's is built without.
    compare(mine, theirs, size=size, rename=names.__getitem__, tolerance=2e-5, statistics=False)


@pytest.mark.parametrize("size", [64, 75, 100, 33])
def test_each_block_can_be_the_last(size: int) -> None:
    whole = efficientnet("efficientnet-b0", size, include_top=False).eval()
    state = fill(whole.state_dict())
    whole.load_state_dict(state)
    x = golden_input(size)
    maps: list[torch.Tensor] = []
    hooks = [b.register_forward_hook(lambda _m, _i, out: maps.append(out)) for b in whole._blocks]
    with torch.no_grad():
        last = whole.extract_features(x)
        for hook in hooks:
            hook.remove()
        for cut, expected in [*enumerate(maps), (None, last)]:
            extractor = Extractor("efficientnet-b0", size, cut).eval()
            own = {k: state[k.removeprefix("net.")] for k in extractor.state_dict()}
            extractor.load_state_dict(own)
            made = extractor(x)
            assert made.shape[1:] == (extractor.channels, extractor.side, extractor.side)
            assert torch.equal(made, expected), cut
    assert len(maps) == 16


@pytest.mark.parametrize("version", range(8))
def test_every_cut_of_every_version_says_what_it_gives(version: int) -> None:
    name, size = f"efficientnet-b{version}", 75
    with torch.device("meta"):
        net: Any = efficientnet(name, size)
        x = net._bn0(net._conv_stem(torch.empty(1, 3, size, size)))
        for cut, block in enumerate(net._blocks):
            x = block(x)
            channels, side = shape_after(net, cut, size)
            assert x.shape == (1, channels, side, side)


def test_what_lies_behind_the_cut_is_not_built() -> None:
    whole, cut = (num_parameters(Extractor("efficientnet-b0", 64, c)) for c in (None, 5))
    assert cut < whole / 10


# Behind an extractor cut anywhere, and alone on pixels.
SMALL: dict[str, Any] = {"width": 16, "depth": 2, "heads": 2}
BEHIND: dict[str, dict[str, Any]] = {
    "vit": SMALL,
    "convit": {**SMALL, "local_depth": 1},
    "cvt": SMALL,
    "cmt": SMALL,
}
ALONE: dict[str, dict[str, Any]] = {
    "vit": SMALL,
    "convit": {**SMALL, "local_depth": 1},
    "cvt": {"widths": (16, 24), "depths": (1, 1), "heads": (1, 2), "kv_strides": (2, 2),
            "mlp_ratios": (2, 2)},
    "cmt": {"stem": 8, "width": 8, "depths": (1, 1, 1, 1)},
}  # fmt: skip


@pytest.mark.parametrize("transformer", BEHIND)
@pytest.mark.parametrize(("cut", "size"), [(None, 100), (15, 33), (10, 75), (7, 100), (3, 50)])
def test_any_transformer_goes_behind_any_cut(transformer: str, cut: int | None, size: int) -> None:
    words = {"cut": cut, "transformer": transformer, "options": BEHIND[transformer]}
    model = build("hybrid", {**words, "image_size": size})
    model(golden_input(size)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("extractor", ["efficientnet-b0", "none"])
@pytest.mark.parametrize("transformer", BEHIND)
def test_a_run_chooses_both_in_its_configuration(extractor: str, transformer: str) -> None:
    options = {"extractor": extractor, "transformer": transformer,
               "options": (ALONE if extractor == "none" else BEHIND)[transformer]}  # fmt: skip
    config = load_config(ModelConfig, {"name": "hybrid", "options": options}, "run.yaml")
    network = build_network(config, DataConfig(size=64), seed=0).network
    assert isinstance(network, Hybrid)
    assert (network.extractor is None) == (extractor == "none")
    assert network(golden_input(64)).shape == (2,)


@pytest.mark.parametrize("transformer", ALONE)
@pytest.mark.parametrize("size", [64, 96])
def test_any_transformer_goes_alone(transformer: str, size: int) -> None:
    words = {"extractor": "none", "transformer": transformer, "options": ALONE[transformer]}
    model = build("hybrid", {**words, "image_size": size})
    assert model(golden_input(size)).shape == (2,)
    assert not any(isinstance(module, EfficientNet) for module in model.modules())


@pytest.mark.parametrize(
    "version", [1, 2, *[pytest.param(v, marks=pytest.mark.slow) for v in range(3, 8)]]
)
def test_any_version_carries_any_transformer(version: int) -> None:
    with torch.device("meta"):
        for transformer, words in BEHIND.items():
            for cut in (None, 6):
                model = build("hybrid", {"extractor": f"efficientnet-b{version}", "cut": cut,
                                         "transformer": transformer, "options": words})  # fmt: skip
                assert model(torch.empty(2, 3, 224, 224)).shape == (2,)


def test_a_size_below_one_place_is_refused() -> None:
    for name in ("efficientnet-b0", "hybrid", "efficient-vit", "cross-efficient-vit"):
        with pytest.raises(ConfigError, match="at least 32, not 31"):
            build(name, {"image_size": 31})


def test_activations_leave_their_input_alone_where_gradients_are_wanted() -> None:
    net: Any = efficientnet("efficientnet-b0", 32).eval()
    seen: list[torch.Tensor] = []
    net._bn0.register_forward_hook(lambda _m, _i, out: seen.extend((out, out.clone())))
    net(torch.randn(1, 3, 32, 32)).sum().backward()
    assert torch.equal(seen[0], seen[1])
