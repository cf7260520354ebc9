"""Heat maps: of every family of networks, and pointing at what a network learned to look for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from efficientnet_pytorch import EfficientNet
from torch import Tensor, nn
from torch.nn import functional as F

from forensics.models import MODELS, build
from forensics.models.published import first_position
from forensics.saliency import heat_maps, method_of
from forensics.trace import Trace, recorded

pytestmark = pytest.mark.usefixtures("one_thread")

# Small forms of every family; each has at least 4 x 4 places.
HEADS = {"width": 32, "depth": 2, "heads": 2}
FAMILIES: dict[str, tuple[str, Mapping[str, Any]]] = {
    "vit": ("vit-tiny", {"image_size": 32, "patch_size": 4, **HEADS}),
    "convit": (
        "convit-tiny",
        {"image_size": 32, "patch_size": 4, "width": 64, "depth": 3, "local_depth": 1, "heads": 4},
    ),
    "cvt": ("cvt-13", {"image_size": 64, "widths": (16, 32), "depths": (1, 2), "heads": (1, 2),
                       "kv_strides": (2, 2), "mlp_ratios": (2.0, 2.0)}),
    "cmt": ("cmt-ti", {"image_size": 64, "stem": 8, "width": 16, "depths": (1, 1, 1, 1)}),
    "efficientnet": ("efficientnet-b0", {"image_size": 128, "dropout": 0.0}),
    "efficient-vit": ("efficient-vit", {"image_size": 128, "dropout": 0.0, **HEADS}),
    "cross": (
        "cross-efficient-vit",
        {"image_size": 128, "small_width": 32, "large_width": 32, "depth": 1, "heads": 2,
         "small_depth": 1, "large_depth": 1, "rounds": 1, "hidden": 64, "dropout": 0.0},
    ),
    "published": (
        "efficient-vit-published",
        {"image_size": 128, "patch_size": 4, "width": 32, "depth": 1, "heads": 1, "hidden": 32,
         "dropout": 0.0},
    ),
    "cross-published": (
        "cross-efficient-vit-published",
        {"image_size": 128, "small_patch": 4, "large_patch": 32, "small_width": 32,
         "large_width": 32, "depth": 1, "small_depth": 1, "large_depth": 1, "rounds": 1, "heads": 1,
         "hidden": 32, "dropout": 0.0},
    ),
    **{
        f"hybrid-{name}": (
            "hybrid",
            {"image_size": 64, "cut": 2, "transformer": name, "options": {**HEADS, **more}},
        )
        for name, more in (
            ("vit", {"patch_size": 2}), ("convit", {"patch_size": 2, "local_depth": 1}),
            ("cvt", {}), ("cmt", {}),
        )
    },
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_a_map_of_the_size_of_its_input(family: str) -> None:
    name, options = FAMILIES[family]
    torch.manual_seed(3)
    model = build(name, options).eval()
    side = options["image_size"]
    x = torch.randn(2, 3, side, side)
    before = model(x)
    heat = heat_maps(model, x)
    assert heat.shape == (2, side, side)
    assert heat.dtype == torch.float32
    assert float(heat.min()) >= 0
    assert heat.amax((1, 2)).tolist() == pytest.approx([1.0, 1.0])
    assert float(heat.std()) > 0
    assert torch.equal(model(x), before)  # nothing was left behind in the network
    assert all(parameter.grad is None for parameter in model.parameters())
    alone = torch.cat([heat_maps(model, image[None]) for image in x])
    torch.testing.assert_close(alone, heat, rtol=1e-2, atol=1e-3)


def test_attention_in_the_open_gives_the_logits_of_fused_attention() -> None:
    for name, options in (FAMILIES["convit"], FAMILIES["cvt"], FAMILIES["cmt"]):
        model = build(name, options).eval()
        x = torch.randn(1, 3, options["image_size"], options["image_size"])
        trace = Trace()
        with recorded(model, trace):
            torch.testing.assert_close(model(x), model(x), rtol=1e-4, atol=1e-5)
            opened = model(x)
        torch.testing.assert_close(opened, model(x), rtol=1e-4, atol=1e-5)
        assert trace.attended


@pytest.mark.parametrize("name", sorted(MODELS))
def test_every_network_by_name_can_be_explained(name: str) -> None:
    with torch.device("meta"):
        assert method_of(build(name, {})) is not None


def test_a_hybrid_without_an_extractor_is_explained_as_its_transformer() -> None:
    options = {key: value for key, value in FAMILIES["cvt"][1].items() if key != "image_size"}
    words = {"image_size": 64, "extractor": "none", "transformer": "cvt", "options": options}
    torch.manual_seed(3)
    hybrid: Any = build("hybrid", words).eval()
    x = torch.randn(2, 3, 64, 64)
    assert method_of(hybrid) == method_of(hybrid.transformer)
    torch.testing.assert_close(heat_maps(hybrid, x), heat_maps(hybrid.transformer, x))


def test_a_network_from_elsewhere_is_named_as_such() -> None:
    assert method_of(nn.Identity()) is None
    with pytest.raises(ValueError, match="no heat maps of a network of type Identity"):
        heat_maps(nn.Identity(), torch.zeros(1, 3, 8, 8))


def deletion_insertion(
    answer: Callable[[Tensor], Tensor], x: Tensor, heat: Tensor, reference: Tensor, steps: int = 16
) -> tuple[Tensor, Tensor]:
    """How much the answer hangs on what a heat map shows: (deletion, insertion), (B,) each.

    The mean of `answer` (B,) while the hottest places of `x` (B, 3, S, S) are replaced by those of
    `reference`, and while they are put into it, over `steps` equal parts of the picture. A good
    map has a low deletion and a high insertion (Petsiuk, Das and Saenko, BMVC 2018).
    """
    batch, _, height, width = x.shape
    hottest = heat.flatten(1).argsort(dim=1, descending=True, stable=True)
    rank = hottest.argsort(dim=1).view(batch, 1, height, width).to(x.device)
    deleted: list[Tensor] = []
    inserted: list[Tensor] = []
    for step in range(steps + 1):
        first = rank < round(step / steps * height * width)
        with torch.no_grad():
            deleted.append(answer(torch.where(first, reference, x)))
            inserted.append(answer(torch.where(first, x, reference)))
    return torch.stack(deleted).mean(0), torch.stack(inserted).mean(0)


def toy(count: int, side: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Smooth pictures (N, 3, S, S), half of them "manipulated": labels, and where (N, S, S).

    The manipulation is a checkered square, a quarter of the side large, at a random place.
    """
    random = np.random.default_rng(seed)
    coarse = torch.from_numpy(random.normal(0, 0.6, (count, 3, 4, 4)).astype(np.float32))
    x = F.interpolate(coarse, (side, side), mode="bicubic", align_corners=False)
    labels = torch.arange(count) % 2
    where = torch.zeros(count, side, side)
    size = side // 4
    cell = max(1, side // 32)
    square = (torch.arange(size) // cell % 2 * 2 - 1).float()
    for i in range(count):
        row, column = random.integers(0, side - size, 2).tolist()
        if labels[i]:
            place = (slice(row, row + size), slice(column, column + size))
            x[(i, slice(None), *place)] += square[:, None] * square[None]
            where[(i, *place)] = 1
    return x, labels.float(), where


def learned(
    name: str,
    options: Mapping[str, Any],
    *,
    seed: int = 1,
    extractor: Mapping[str, Tensor] | None = None,
) -> nn.Module:
    """A network that tells the toy's fakes; `extractor` are weights to start from.

    Deep extractors learn the toy in a minute, the transformers behind them within seconds once they
    have, and not at all beside them.
    """
    torch.manual_seed(seed)
    model = build(name, options).train()
    frozen: list[nn.Module] = []
    if extractor is not None:
        frozen = [part for part in model.modules() if isinstance(part, EfficientNet)]
        for part in frozen:
            part.load_state_dict(extractor, strict=False)
            part.requires_grad_(False)
    optimiser = torch.optim.AdamW(
        [parameter for parameter in model.parameters() if parameter.requires_grad], lr=1e-3
    )
    right = 0
    for step in range(1000):
        for part in frozen:
            part.eval()
        x, labels, _ = toy(16, options["image_size"], seed=step)
        loss = F.binary_cross_entropy_with_logits(logits := model(x), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        good = bool(((logits > 0) == (labels > 0.5)).all()) and float(loss.detach()) < 0.1
        right = right + 1 if good else 0
        if right >= 8:
            break
    # Batch norms whose running statistics lag behind a short training would answer otherwise.
    if not frozen:
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.reset_running_stats()
                module.momentum = None
        with torch.no_grad():
            for step in range(8):
                model(toy(16, options["image_size"], seed=10_000 + step)[0])
    return model.eval()


@pytest.fixture(scope="module")
def extractor() -> Mapping[str, Tensor]:
    """Weights of an EfficientNet that tells the toy's fakes, without its classifier."""
    model: Any = learned(*FAMILIES["efficientnet"])
    state: Mapping[str, Tensor] = model.net.state_dict()
    return {key: value for key, value in state.items() if not key.startswith("_fc")}


WHOLE = ("efficient-vit", "cross", "published", "cross-published")  # behind a whole extractor


@pytest.mark.parametrize(
    ("family", "seed"),
    [
        *[
            pytest.param(name, 1, marks=() if name == "vit" else pytest.mark.slow)
            for name in FAMILIES
        ],
        # Networks to which gradients by their sign point away from what they look for.
        *[
            pytest.param(name, seed, marks=pytest.mark.slow)
            for name, seed in (("cvt", 2), ("cross", 3), ("published", 2))
        ],
    ],
)
def test_a_map_points_at_the_region_that_the_network_learned_to_look_for(
    family: str, seed: int, request: pytest.FixtureRequest
) -> None:
    name, options = FAMILIES[family]
    start = request.getfixturevalue("extractor") if family in WHOLE else None
    model = learned(name, options, seed=seed, extractor=start)
    side = options["image_size"]
    count = 96 if side <= 64 else 48
    x, labels, where = toy(count, side, seed=99_999)
    with first_position(model), torch.no_grad():
        right = ((model(x) > 0) == (labels > 0.5)).float().mean()
    assert right > 0.9, f"the toy was not learned: {right:.2f}"
    x, where = x[labels > 0.5], where[labels > 0.5]
    heat = heat_maps(model, x)
    share = float(where.mean())  # what a map that knows nothing has inside
    inside = ((heat * where).sum((1, 2)) / heat.sum((1, 2)).clamp_min(1e-9)).mean()
    plain = toy(count, side, seed=99_999)[0]
    reference = F.interpolate(
        F.interpolate(plain[labels > 0.5], (8, 8), mode="area"), plain.shape[2:], mode="bilinear"
    )
    with first_position(model):
        deleted, inserted = deletion_insertion(model, x, heat, reference)
    random = torch.rand(heat.shape, generator=torch.Generator().manual_seed(1))
    # As coarse as a real map: single pixels would only add noise of their own.
    random = F.interpolate(F.avg_pool2d(random[:, None], 8), heat.shape[1:], mode="bilinear")[:, 0]
    with first_position(model):
        random_deleted, random_inserted = deletion_insertion(model, x, random, reference)
    assert inside > 1.1 * share  # the coarsest maps have 4 x 4 places
    assert float(inserted.mean()) > float(deleted.mean())
    assert float(deleted.mean()) < float(random_deleted.mean())
    assert float(inserted.mean()) > float(random_inserted.mean())
