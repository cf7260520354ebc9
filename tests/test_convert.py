"""Published weights come in: names translated, tables resized, and nothing guessed."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import timm
import torch
from fill import fill, golden_input
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CvtConfig, CvtForImageClassification, ViTConfig, ViTForImageClassification

from forensics.checkpoint import load_checkpoint, save_checkpoint
from forensics.convert import convert
from forensics.errors import CheckpointError, ConfigError
from forensics.models import build

Tensors = dict[str, Tensor]


def weights(network: nn.Module) -> Tensors:
    return {k: v.contiguous() for k, v in fill(network.state_dict()).items()}


def stored(path: Path, tensors: Tensors) -> str:
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path)
    return str(path)


def logits(network: nn.Module, size: int = 224) -> Tensor:
    with torch.no_grad():
        made = network.eval()(golden_input(size, 1))
    return made.logits if hasattr(made, "logits") else made


def reference(name: str, **words: Any) -> tuple[nn.Module, Tensors]:
    network = timm.create_model(name, num_classes=1, **words)
    tensors = weights(network)
    network.load_state_dict(tensors)
    return network, tensors


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize(
    ("model", "theirs"),
    [
        ("vit-tiny", "vit_tiny_patch16_224"),
        ("convit-tiny", "convit_tiny"),
        ("efficientnet-b0", "tf_efficientnet_b0"),
        ("efficientnet-b1", "tf_efficientnet_b1"),
    ],
)
def test_weights_of_timm(tmp_path: Path, model: str, theirs: str, suffix: str) -> None:
    network, tensors = reference(theirs)
    mine, card = convert(stored(tmp_path / f"w{suffix}", tensors), model)
    torch.testing.assert_close(logits(mine)[:, None], logits(network), rtol=1e-4, atol=1e-4)
    assert card.model == model


def test_weights_of_efficientnet_pytorch(tmp_path: Path) -> None:
    own = build("efficientnet-b0", {})
    tensors = weights(own)
    own.load_state_dict(tensors)
    theirs = {name.removeprefix("net."): value for name, value in tensors.items()}
    mine, _ = convert(stored(tmp_path / "b0.pth", theirs), "efficientnet-b0")
    assert torch.equal(logits(mine), logits(own))


@pytest.mark.parametrize("legacy", [True, False])
def test_vit_of_transformers_under_both_its_names(tmp_path: Path, legacy: bool) -> None:
    network = ViTForImageClassification(
        ViTConfig(hidden_size=192, num_hidden_layers=12, num_attention_heads=3,
                  intermediate_size=768, num_labels=1)
    )  # fmt: skip
    tensors = weights(network)
    network.load_state_dict(tensors)
    if legacy:
        tensors = {_legacy(name): value for name, value in tensors.items()}
        assert "vit.encoder.layer.3.attention.attention.query.weight" in tensors
    mine, card = convert(stored(tmp_path / "w.safetensors", tensors), "vit-tiny")
    torch.testing.assert_close(logits(mine)[:, None], logits(network), rtol=1e-4, atol=1e-4)
    assert card.options == {"norm_eps": 1e-12}  # transformers' own, a millionth of timm's
    x = golden_input(224, 1).double()
    with torch.no_grad():
        difference = mine.double()(x)[:, None] - network.double()(x).logits
    assert difference.abs().max() < 1e-9


def _legacy(name: str) -> str:
    """transformers 5's name of a ViT parameter -> that of the files on the hub."""
    for old, new in (
        (r"^vit\.layers\.", "vit.encoder.layer."),
        (r"attention\.q_proj", "attention.attention.query"),
        (r"attention\.k_proj", "attention.attention.key"),
        (r"attention\.v_proj", "attention.attention.value"),
        (r"attention\.o_proj", "attention.output.dense"),
        (r"mlp\.fc1", "intermediate.dense"),
        (r"mlp\.fc2", "output.dense"),
    ):
        name = re.sub(old, new, name)
    return name


def test_cvt_of_transformers_and_of_microsoft(tmp_path: Path) -> None:
    network = CvtForImageClassification(
        CvtConfig(embed_dim=[64, 192, 384], depth=[1, 2, 10], num_heads=[1, 3, 6], num_labels=1)
    )
    tensors = weights(network)
    network.load_state_dict(tensors)
    mine, _ = convert(stored(tmp_path / "hf.safetensors", tensors), "cvt-13")
    with_gelu = build("cvt-13", {"activation": "gelu"})
    with_gelu.load_state_dict(mine.state_dict())
    torch.testing.assert_close(logits(with_gelu, 64)[:, None], logits(network, 64), rtol=1e-4,
                               atol=1e-4)  # fmt: skip
    again, _ = convert(stored(tmp_path / "ms.pth", mine.state_dict()), "cvt-13")
    assert torch.equal(logits(again, 64), logits(mine, 64))


@pytest.mark.parametrize("wrap", ["model", "model_ema", "both", "state_dict", "module."])
def test_wrappers_of_training_scripts_come_off(tmp_path: Path, wrap: str) -> None:
    own = build("cmt-ti", {"image_size": 160})
    tensors = weights(own)
    own.load_state_dict(tensors)
    other = {name: torch.zeros_like(value) for name, value in tensors.items()}
    wrapped: dict[str, Any] = {
        "both": {"model": other, "model_ema": tensors, "epoch": 3},
        "module.": {f"module.{name}": value for name, value in tensors.items()},
    }.get(wrap, {wrap: tensors, "epoch": 3})
    torch.save(wrapped, tmp_path / "cmt.pth")
    mine, _ = convert(str(tmp_path / "cmt.pth"), "cmt-ti", image_size=160)
    assert torch.equal(logits(mine, 160), logits(own, 160))


def test_tables_of_positions_are_resized(tmp_path: Path) -> None:
    _, tensors = reference("vit_tiny_patch16_224")
    mine, card = convert(stored(tmp_path / "v.pth", tensors), "vit-tiny", image_size=160)
    theirs = timm.layers.resample_abs_pos_embed(
        tensors["pos_embed"], [10, 10], num_prefix_tokens=1, antialias=False
    )
    torch.testing.assert_close(mine.get_parameter("pos_embed"), theirs, rtol=1e-5, atol=1e-5)
    assert (card.preprocessing.size, card.options) == (160, {"image_size": 160})
    small = weights(build("cmt-ti", {"image_size": 160}))
    larger, _ = convert(stored(tmp_path / "c.pth", small), "cmt-ti", image_size=224)
    assert larger.image_size == 224
    _, local = reference("convit_tiny")
    assert convert(stored(tmp_path / "l.pth", local), "convit-tiny", image_size=160)[0]


def test_a_classifier_of_things_answers_nothing_until_it_is_trained(tmp_path: Path) -> None:
    network = timm.create_model("vit_tiny_patch16_224", num_classes=1000)
    mine, card = convert(stored(tmp_path / "w.pth", weights(network)), "vit-tiny")
    assert torch.equal(logits(mine), torch.zeros(1))
    assert (card.thresholds.real, card.thresholds.fake) == (0.0, 1.0)
    assert "answers 0" in card.training_data
    save_checkpoint(tmp_path / "mine.safetensors", mine, card)
    assert load_checkpoint(tmp_path / "mine.safetensors").card.model == "vit-tiny"


@pytest.mark.parametrize(
    ("model", "threshold"),
    [("efficient-vit-published", 0.55), ("cross-efficient-vit-published", 0.6)],
)
def test_published_detectors_keep_their_pixels_and_their_head(
    tmp_path: Path, model: str, threshold: float
) -> None:
    tensors = weights(build(model, {}))
    mine, card = convert(stored(tmp_path / "w.pth", tensors), model)
    assert all(torch.equal(value, tensors[name]) for name, value in mine.state_dict().items())
    pixels = card.preprocessing
    assert (pixels.colour_order, pixels.scale, pixels.margin) == ("bgr", 1.0, 1.0)
    assert card.thresholds.fake == threshold


def test_every_problem_is_listed(tmp_path: Path) -> None:
    _, tensors = reference("vit_tiny_patch16_224")
    del tensors["norm.weight"], tensors["blocks.3.attn.qkv.bias"]
    tensors["extra"] = torch.zeros(1)
    tensors["cls_token"] = torch.zeros(1, 1, 7)
    with pytest.raises(CheckpointError) as caught:
        convert(stored(tmp_path / "w.pth", tensors), "vit-tiny")
    for words in ("4 problems", "missing norm.weight", "missing blocks.3.attn.qkv.bias",
                  "unexpected extra", "cls_token is (1, 1, 7), not (1, 1, 192)"):  # fmt: skip
        assert words in str(caught.value)


def test_a_file_that_is_more_than_weights_is_refused_and_nothing_in_it_runs(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "ran",)

    for content in ({"model": Trap()}, {"args": argparse.Namespace(lr=Trap()), "model": {}}):
        torch.save(content, tmp_path / "trap.pth")
        with pytest.raises(CheckpointError, match="holds more than weights"):
            convert(str(tmp_path / "trap.pth"), "vit-tiny")
    assert not (tmp_path / "ran").exists()


def test_the_options_of_a_training_script_may_lie_beside_the_weights(tmp_path: Path) -> None:
    # As the official CMT training saves them.
    own = build("cmt-ti", {"image_size": 160})
    tensors = weights(own)
    own.load_state_dict(tensors)
    saved = {"model": tensors, "model_ema": None, "epoch": 3, "args": argparse.Namespace(lr=1.0)}
    torch.save(saved, tmp_path / "cmt_tiny.pth")
    mine, _ = convert(str(tmp_path / "cmt_tiny.pth"), "cmt-ti", image_size=160)
    assert torch.equal(logits(mine, 160), logits(own, 160))


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "damaged"), (b"PK\x03\x04" + bytes(64), "damaged"), (None, "No such file")],
)
def test_files_that_are_no_weights(tmp_path: Path, content: bytes | None, words: str) -> None:
    for suffix in (".pth", ".safetensors"):
        path = tmp_path / f"w{suffix}"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(CheckpointError, match=words):
            convert(str(path), "vit-tiny")


def test_what_cannot_be_imported_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="nobody publishes weights for 'efficient-vit'"):
        convert("w.pth", "efficient-vit")
    with pytest.raises(ConfigError, match="'vit' is unknown"):
        convert("w.pth", "vit")
    torch.save({"epoch": 3}, tmp_path / "none.pth")
    with pytest.raises(CheckpointError, match="holds no weights"):
        convert(str(tmp_path / "none.pth"), "vit-tiny")
    for kind, package in (("timm:a", "timm"), ("hf:a/b", "huggingface-hub")):
        monkeypatch.setitem(sys.modules, package.replace("-", "_"), None)
        with pytest.raises(ConfigError, match=f"pip install {package}"):
            convert(kind, "vit-tiny")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """A hub cache in a folder, and no network; calling it adds a repository's snapshot."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))

    def add(name: str, **texts: object) -> Path:
        folder = tmp_path / "hub" / f"models--{name.replace('/', '--')}"
        snapshot = folder / "snapshots" / ("0" * 40)
        snapshot.mkdir(parents=True)
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text("0" * 40)
        for file, content in texts.items():
            (snapshot / f"{file}.json").write_text(json.dumps(content))
        return snapshot

    return add


def test_a_repository_of_the_hub(hub: Callable[..., Path]) -> None:
    network = ViTForImageClassification(
        ViTConfig(hidden_size=192, num_hidden_layers=12, num_attention_heads=3,
                  intermediate_size=768, num_labels=1, layer_norm_eps=1e-3)
    )  # fmt: skip
    tensors = weights(network)
    network.load_state_dict(tensors)
    pixels = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}
    snapshot = hub("owner/vit", config={"layer_norm_eps": 1e-3}, preprocessor_config=pixels)
    stored(snapshot / "model.safetensors", tensors)
    mine, card = convert("hf:owner/vit", "vit-tiny")
    torch.testing.assert_close(logits(mine)[:, None], logits(network), rtol=1e-4, atol=1e-4)
    assert card.options == {"norm_eps": 1e-3}
    assert (card.preprocessing.mean, card.preprocessing.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


@pytest.mark.parametrize("about", [{}, {"layer_norm_eps": "x", "pretrained_cfg": 3}, [1]])
def test_a_repository_with_a_torch_file_alone(hub: Callable[..., Path], about: object) -> None:
    network, tensors = reference("convit_tiny")
    stored(hub("owner/convit", config=about) / "pytorch_model.bin", tensors)
    mine, card = convert("hf:owner/convit", "convit-tiny")
    torch.testing.assert_close(logits(mine)[:, None], logits(network), rtol=1e-4, atol=1e-4)
    assert card.preprocessing.mean == (0.485, 0.456, 0.406)


def test_a_name_of_timm(hub: Callable[..., Path]) -> None:
    tensors = weights(timm.create_model("vit_tiny_patch16_224", num_classes=1000))
    stored(hub("timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k") / "model.safetensors", tensors)
    mine, card = convert("timm:vit_tiny_patch16_224.augreg_in21k_ft_in1k", "vit-tiny")
    assert torch.equal(mine.get_parameter("norm.weight"), tensors["norm.weight"])
    assert card.preprocessing.mean == (0.5, 0.5, 0.5)
    stored(hub("timm/deit_tiny_patch16_224.fb_in1k") / "model.safetensors", tensors)
    _, card = convert("timm:deit_tiny_patch16_224.fb_in1k", "vit-tiny")
    assert card.preprocessing.mean == (0.485, 0.456, 0.406)  # the same network, other pixels


@pytest.mark.parametrize(
    "source",
    ["hf:nobody/nothing", "hf:no owner", "hf:a/b/c", "timm:no_such_model", "timm:resnet18"],
)
def test_what_cannot_be_fetched_is_one_line(hub: Callable[..., Path], source: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        convert(source, "vit-tiny")
    assert str(caught.value).startswith(f"{source}: ")
    assert "\n" not in str(caught.value)
