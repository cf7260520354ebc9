"""forensics.models.efficient_vit: the corrected Efficient ViT, against its two parents."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from efficientnet_pytorch import EfficientNet
from timm.models.vision_transformer import Block as TimmBlock
from torch import Tensor

from forensics.errors import ConfigError
from forensics.models import MODELS, build
from forensics.models.efficient_vit import Block, EfficientViT
from forensics.models.layers import as_patches

SMALL: dict[str, Any] = {"image_size": 64, "width": 32, "depth": 2, "heads": 4}


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def model() -> EfficientViT:
    """In eval mode, with batch norms that have seen images: fresh ones drown every difference."""
    torch.manual_seed(0)
    model = EfficientViT(**SMALL)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model.train()(images(8))
    return model.eval()


def images(count: int, size: int = 64) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def test_gives_one_logit_per_image(model: EfficientViT) -> None:
    with torch.inference_mode():
        assert model(images(3)).shape == (3,)
        assert model(images(1)).shape == (1,)


def test_different_images_get_different_logits(model: EfficientViT) -> None:
    with torch.inference_mode():
        assert len(set(model(images(4)).tolist())) == 4


def test_a_logit_does_not_depend_on_the_place_in_the_batch(model: EfficientViT) -> None:
    # The published code indexed positions by place in the batch: one image, four logits.
    image, others = images(1), images(5)[1:]
    with torch.inference_mode():
        repeated = model(image.repeat(4, 1, 1, 1))
        alone = model(image)
        last = model(torch.cat((others, image)))[-1:]
    torch.testing.assert_close(repeated, alone.repeat(4), rtol=0, atol=1e-5)
    torch.testing.assert_close(last, alone, rtol=0, atol=1e-5)


def test_a_batch_may_hold_more_than_the_published_32(model: EfficientViT) -> None:
    with torch.inference_mode():
        assert model(images(33)).shape == (33,)


def test_every_position_of_the_feature_map_is_a_token() -> None:
    default = build("efficient-vit", {"width": 64, "depth": 1, "heads": 4})
    assert isinstance(default, EfficientViT)
    with torch.inference_mode():
        assert default.eval().features(images(1, 224)).shape == (1, 1280, 7, 7)
    assert default.position.shape == (1, 49 + 1, 64)


@pytest.mark.parametrize(
    ("size", "patch", "tokens"), [(64, 2, 1), (100, 1, 16), (100, 2, 4), (224, 7, 1), (75, 3, 1)]
)
def test_a_patch_takes_several_places(size: int, patch: int, tokens: int) -> None:
    words = {"image_size": size, "patch_size": patch, "width": 32, "depth": 1, "heads": 4}
    model = build("efficient-vit", words).eval()
    assert isinstance(model, EfficientViT)
    assert model.position.shape == (1, tokens + 1, 32)
    assert model.embed.in_features == patch**2 * 1280
    with torch.inference_mode():
        assert model(images(2, size)).shape == (2,)


def test_a_patch_is_read_place_by_place() -> None:
    x = torch.arange(2 * 3 * 4 * 4).reshape(2, 3, 4, 4)
    patches = as_patches(x, 2)
    assert patches.shape == (2, 4, 12)
    second = x[1, :, 0:2, 2:4]  # of the upper row
    assert patches[1, 1].tolist() == [int(second[c, i, j]) for i in (0, 1) for j in (0, 1)
                                      for c in range(3)]  # fmt: skip


def test_several_classes_are_several_logits() -> None:
    model = EfficientViT(**SMALL, num_classes=5).eval()
    with torch.inference_mode():
        assert model(images(2)).shape == (2, 5)


def test_positions_belong_to_tokens(model: EfficientViT) -> None:
    moved = copy.deepcopy(model)
    with torch.no_grad():
        moved.position[:, 1:] = moved.position[:, 1:].flip(1)
    with torch.inference_mode():
        assert not torch.equal(moved(images(1)), model(images(1)))


def test_parameters_number_what_the_parts_add_up_to() -> None:
    width, hidden, tokens = 1024, 2048, 50
    features = 5_288_548 - 1_281_000  # EfficientNet-B0 less its classifier
    block = (
        2 * 2 * width  # two norms
        + 3 * (width * width + width)  # qkv
        + width * width + width  # projection
        + width * hidden + hidden + hidden * width + width  # mlp
    )  # fmt: skip
    head = 2 * width + width + 1
    expected = features + (1280 * width + width) + width + tokens * width + 6 * block + head
    with torch.device("meta"):
        model = build("efficient-vit", {})
    assert sum(p.numel() for p in model.parameters()) == expected


def test_features_are_those_of_efficientnet_pytorch_at_224() -> None:
    torch.manual_seed(0)
    model = EfficientViT(width=32, depth=1, heads=4).eval()
    reference = EfficientNet.from_name("efficientnet-b0").eval()
    missing = reference.load_state_dict(model.extractor.state_dict(), strict=False)
    assert set(missing.missing_keys) == {"_fc.weight", "_fc.bias"}
    assert missing.unexpected_keys == []
    x = images(2, 224)
    with torch.inference_mode():
        torch.testing.assert_close(model.features(x), reference.extract_features(x))


def test_a_block_is_the_vit_block_of_timm() -> None:
    torch.manual_seed(0)
    ours = Block(width=32, heads=4, mlp_ratio=2.0, dropout=0.0).eval()
    theirs = TimmBlock(32, 4, mlp_ratio=2.0, qkv_bias=True).eval()
    state = {
        name.replace("mlp.0", "mlp.fc1").replace("mlp.2", "mlp.fc2"): value
        for name, value in ours.state_dict().items()
    }
    theirs.load_state_dict(state, strict=True)
    x = torch.randn(2, 5, 32)
    with torch.inference_mode():
        torch.testing.assert_close(ours(x), theirs(x))


def test_gradients_reach_every_parameter(model: EfficientViT) -> None:
    model = copy.deepcopy(model).train()
    model(images(2)).sum().backward()
    starved = [name for name, p in model.named_parameters() if p.grad is None]
    assert starved == []


def test_dropout_is_silent_in_eval_mode(model: EfficientViT) -> None:
    with torch.inference_mode():
        torch.testing.assert_close(model(images(2)), model(images(2)), rtol=0, atol=0)


def test_an_image_of_another_size_is_refused(model: EfficientViT) -> None:
    with pytest.raises(ValueError, match="expected 64 px squares"):
        model(images(1, 96))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"extractor": "resnet-50"}, "extractor 'resnet-50' is unknown; known: efficientnet-b0"),
        ({"image_size": 31}, "at least 32, not 31"),
        ({"image_size": 0}, "image_size must be above 0"),
        ({"width": 30, "heads": 4}, "width 30 is not divisible by 4 heads"),
        ({"patch_size": 3}, "image_size 7 is not divisible by patch_size 3"),
        ({"colour": 1}, "colour"),
    ],
)
def test_options_that_cannot_work_are_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match="model 'efficient-vit'") as caught:
        build("efficient-vit", options)
    assert words in str(caught.value)


def test_an_unknown_model_name_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError) as caught:
        build("vgg", {})
    assert "'vgg' is unknown" in str(caught.value)
    assert all(name in str(caught.value) for name in MODELS)
