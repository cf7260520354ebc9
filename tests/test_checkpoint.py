"""forensics.checkpoint: what is saved comes back whole; what is not whole does not come back."""

from __future__ import annotations

import hashlib
import json
import pickle
import struct
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load as parse
from safetensors.torch import save as dump
from torch import nn

from forensics import checkpoint as module
from forensics.calibration import Platt
from forensics.card import Card
from forensics.checkpoint import load_checkpoint, save_checkpoint, shipped, weights_sha256
from forensics.errors import CheckpointError
from forensics.models import MODELS, build
from forensics.preprocess import Preprocessing
from forensics.structures import Thresholds
from forensics.verdict import EvidenceRules

OPTIONS = {"image_size": 64, "width": 32, "depth": 2, "heads": 4}
CARD = Card(
    name="test",
    version="1.0",
    model="efficient-vit",
    options=OPTIONS,
    preprocessing=Preprocessing(
        size=64, margin=1.3, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
    ),
    calibration=Platt(scale=0.8, offset=-0.1),
    thresholds=Thresholds(real=0.2, fake=0.8),
    evidence=EvidenceRules(min_frames=4, min_face_px=48.0),
    training_data="nothing: random weights",
    manifest_sha256="0" * 64,
    metrics={"auc": 0.81, "auc_interval": (0.75, 0.86), "command": "none"},
    licence="Apache-2.0",
)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def model() -> nn.Module:
    """Random weights with logits like a detector's: batch norms that have seen images, and a last
    layer scaled so that probabilities spread over 0..1."""
    torch.manual_seed(0)
    model = build("efficient-vit", OPTIONS)
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = 1.0
    with torch.no_grad():
        model.train()(images(16))
        logits = model.eval()(images(16))
        model.head.weight *= 2.0 / logits.std()
        model.head.bias.copy_(-(2.0 / logits.std()) * (logits.mean() - model.head.bias))
    return model


@pytest.fixture(scope="module")
def saved(model: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoints") / "test.safetensors"
    save_checkpoint(path, model, CARD)
    return path


def images(count: int) -> torch.Tensor:
    return torch.randn(count, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def rewritten(
    saved: Path,
    target: Path,
    *,
    card: Callable[[dict[str, Any]], object] | None = None,
    tensors: Callable[[dict[str, torch.Tensor]], object] | None = None,
    honest: bool = True,
) -> Path:
    """A copy of a checkpoint with its card or weights changed; `honest` corrects the hash."""
    data = saved.read_bytes()
    weights = parse(data)
    length = struct.unpack("<Q", data[:8])[0]
    mapping = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["card"])
    if card is not None:
        card(mapping)
    if tensors is not None:
        tensors(weights)
    if honest and "weights_sha256" in mapping:
        mapping["weights_sha256"] = weights_sha256(weights)
    target.write_bytes(dump(weights, metadata={"card": json.dumps(mapping)}))
    return target


def refusal(path: str | Path) -> str:
    """The error of loading `path`, which is one line that names the file."""
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    text = str(caught.value)
    assert "\n" not in text
    assert str(path) in text
    return text


# What is saved comes back


def test_a_saved_checkpoint_rebuilds_its_network_and_card(model: nn.Module, saved: Path) -> None:
    loaded = load_checkpoint(saved)
    assert replace(loaded.card, weights_sha256="") == CARD
    assert loaded.path == saved
    assert not loaded.model.training
    for name, tensor in model.state_dict().items():
        other = loaded.model.state_dict()[name]
        assert other.dtype == tensor.dtype, name
        torch.testing.assert_close(other, tensor, rtol=1e-3, atol=1e-4)


def test_float16_storage_moves_a_tracks_probability_by_less_than_half_a_percent(
    model: nn.Module, saved: Path
) -> None:
    loaded = load_checkpoint(saved).model
    with torch.inference_mode():
        before, after = model(images(128)), loaded(images(128))  # (128,) logits
    frames = (before.sigmoid() - after.sigmoid()).abs()
    tracks = before.view(4, 32).mean(1).sigmoid() - after.view(4, 32).mean(1).sigmoid()
    assert before.sigmoid().std() > 0.2  # else the comparison says nothing
    assert tracks.abs().max() < 0.005
    # One frame of random weights moves by up to 0.0076 (256 images, 4 seeds), 0.0013 on average.
    assert frames.max() < 0.015
    assert frames.mean() < 0.005


def test_float32_storage_changes_no_bit(model: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "full.safetensors"
    save_checkpoint(path, model, CARD, half=False)
    for name, tensor in load_checkpoint(path).model.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name


def test_matrices_are_stored_as_float16_and_vectors_and_counts_as_they_are(saved: Path) -> None:
    for name, tensor in parse(saved.read_bytes()).items():
        if name.endswith("num_batches_tracked"):
            assert tensor.dtype == torch.int64
            assert int(tensor) == 1
        else:
            assert tensor.dtype == (torch.float16 if tensor.ndim > 1 else torch.float32), name


def test_saving_leaves_the_model_as_it_was(model: nn.Module, tmp_path: Path) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.train()
    save_checkpoint(tmp_path / "x.safetensors", model, CARD)
    assert model.training
    model.eval()
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_both_hashes_are_reported_and_can_be_recomputed(saved: Path) -> None:
    loaded = load_checkpoint(saved)
    assert loaded.sha256 == hashlib.sha256(saved.read_bytes()).hexdigest()
    digest = hashlib.sha256()
    for name, tensor in sorted(parse(saved.read_bytes()).items()):
        values = tensor.numpy()
        shape = ",".join(str(side) for side in values.shape)
        digest.update(f"{name}\0{values.dtype}\0{shape}\0".encode() + values.tobytes())
    assert loaded.card.weights_sha256 == digest.hexdigest()


def test_equal_input_gives_equal_files(model: nn.Module, saved: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.safetensors"
    save_checkpoint(again, model, CARD)
    assert again.read_bytes() == saved.read_bytes()


def test_a_loaded_checkpoint_can_be_saved_again_unchanged(saved: Path, tmp_path: Path) -> None:
    loaded, again = load_checkpoint(saved), tmp_path / "again.safetensors"
    save_checkpoint(again, loaded.model, loaded.card)
    assert load_checkpoint(again).sha256 == loaded.sha256


def test_loading_does_not_touch_the_random_generators(saved: Path) -> None:
    before = torch.get_rng_state()
    load_checkpoint(saved)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_loaded_network_can_be_trained_on(saved: Path) -> None:
    network = load_checkpoint(saved).model.train()
    network(images(2)).sum().backward()
    assert all(p.grad is not None for p in network.parameters())


# Where a checkpoint is looked for


def test_a_shipped_detector_is_found_by_name(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tiny.safetensors").write_bytes(saved.read_bytes())
    monkeypatch.setattr(module.resources, "files", lambda _: tmp_path)
    assert shipped() == {"tiny": tmp_path / "tiny.safetensors"}
    assert load_checkpoint("tiny").card.name == "test"
    assert "neither a file nor a shipped detector (shipped: tiny)" in refusal("nowhere")


def test_every_shipped_detector_loads_and_is_small() -> None:
    for name, path in shipped().items():
        assert load_checkpoint(name).path == path
        assert path.stat().st_size <= 25e6


@pytest.mark.parametrize("name", ["nowhere.safetensors", "x" * 5000, ".", "a/b/c"])
def test_what_does_not_exist_is_named(name: str) -> None:
    assert "neither a file nor a shipped detector" in refusal(name)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".ckpt", ".pkl", ".PTH"])
def test_pickles_are_never_loaded(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(pickle.dumps(CARD.name))
    assert "pickles are never loaded" in refusal(path)


def test_loading_never_unpickles(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("something was unpickled")

    for target, name in ((torch, "load"), (pickle, "load"), (pickle, "loads")):
        monkeypatch.setattr(target, name, refuse)
    load_checkpoint(saved)
    source = Path(module.__file__).read_text()
    assert "torch.load" not in source
    assert "pickle." not in source


# Files that are no checkpoints


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"short",
        b"PK\x03\x04" + bytes(100),
        pickle.dumps({"a": 1}),
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 200) + b"{}",
        struct.pack("<Q", 4) + b"nope",
        struct.pack("<Q", 2) + b"[]",
    ],
    ids=["empty", "short", "zip", "pickle", "huge header", "long header", "no json", "list"],
)
def test_a_file_that_is_no_safetensors_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    assert "not a valid safetensors file" in refusal(path)


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [4], "data_offsets": [0, 1600]},
        {"dtype": "F32", "shape": [400], "data_offsets": [0, 16]},
        {"dtype": "F32", "shape": [4], "data_offsets": [16, 0]},
        {"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 16]},
        {"dtype": "F99", "shape": [4], "data_offsets": [0, 16]},
    ],
    ids=["beyond the end", "too small", "backwards", "overflow", "dtype"],
)
def test_lying_offsets_are_refused(tmp_path: Path, entry: dict[str, Any]) -> None:
    header = json.dumps({"a": entry}).encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(16))
    assert "not a valid safetensors file" in refusal(path)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(position=st.floats(0, 1), bit=st.integers(0, 7), header=st.booleans())
def test_a_flipped_bit_is_always_noticed(
    saved: Path, tmp_path: Path, position: float, bit: int, header: bool
) -> None:
    data = bytearray(saved.read_bytes())
    span = 8 + struct.unpack("<Q", data[:8])[0] if header else len(data)
    data[min(int(position * span), span - 1)] ^= 1 << bit
    path = tmp_path / "flipped.safetensors"
    path.write_bytes(data)
    try:
        loaded = load_checkpoint(path)
    except CheckpointError:
        return
    # A flip inside a text of the card can pass; the weights are the same to the last bit, then.
    before = load_checkpoint(saved).model.state_dict()
    assert all(torch.equal(before[name], w) for name, w in loaded.model.state_dict().items())
    assert loaded.sha256 != hashlib.sha256(saved.read_bytes()).hexdigest()


def test_a_truncated_file_is_refused(saved: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(saved.read_bytes()[:-1000])
    assert "not a valid safetensors file" in refusal(path)


# Cards that cannot be used


def test_weights_without_a_card_are_refused(saved: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(dump(parse(saved.read_bytes())))
    assert "has no card" in refusal(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not valid JSON"),
        ("[]", "must be a JSON object"),
        ("null", "must be a JSON object"),
        ('{"version": NaN}', "NaN is not a finite number"),
        ('{"version": 1e999}', "1e999 is not a finite number"),
        ("[" * 100_000, "not valid JSON"),
        ("{}", "card: name"),
    ],
)
def test_a_card_that_is_not_one_is_refused(
    saved: Path, tmp_path: Path, text: str, words: str
) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(dump(parse(saved.read_bytes()), metadata={"card": text}))
    assert words in refusal(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"colour": "rgb"}, "colour: Unexpected keyword"),
        ({"format": "deepfake-checkpoint/9"}, "format: Input should be 'deepfake-checkpoint/1'"),
        ({"model": "vgg"}, "model 'vgg' is unknown; known: "),
        ({"options": {**OPTIONS, "patch": 1}}, "model 'efficient-vit'"),
        ({"options": {**OPTIONS, "depth": "two"}}, "model 'efficient-vit'"),
        ({"labels": {"0": "fake", "1": "real"}}, "labels must be"),
        ({"aggregation": "vote"}, "aggregation: Input should be 'mean'"),
        ({"calibration": {"scale": -1.0, "offset": 0.0}}, "scale above 0"),
        ({"thresholds": {"real": 0.9, "fake": 0.1}}, "0 <= real <= fake <= 1"),
        ({"evidence": {"min_frames": 0, "min_face_px": 1}}, "min_frames must be at least 1"),
        ({"evidence": {"min_frames": 1, "min_face_px": 1, "x": 1}}, "evidence.x: Unexpected"),
        ({"metrics": {"auc": {"val": 1}}}, "metrics.auc"),
        ({"weights_sha256": 3}, "weights_sha256"),
    ],
)
def test_a_card_with_a_wrong_entry_names_it(
    saved: Path, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    path = rewritten(
        saved,
        tmp_path / "x.safetensors",
        card=lambda card: card.update(change),
        honest="weights_sha256" not in change,
    )
    assert words in refusal(path)


@pytest.mark.parametrize("key", ["preprocessing", "calibration", "evidence", "licence", "model"])
def test_a_card_that_lacks_an_entry_names_it(saved: Path, tmp_path: Path, key: str) -> None:
    path = rewritten(saved, tmp_path / "x.safetensors", card=lambda card: card.pop(key))
    assert f"card: {key}: " in refusal(path)


def test_crops_of_another_size_than_the_networks_are_refused(saved: Path, tmp_path: Path) -> None:
    path = rewritten(
        saved,
        tmp_path / "x.safetensors",
        card=lambda card: card["preprocessing"].update(size=96),
    )
    assert "crops of 96 px for a network that takes 64 px" in refusal(path)


# Weights that do not belong to their card


def test_changed_weights_are_refused(saved: Path, tmp_path: Path) -> None:
    path = rewritten(
        saved,
        tmp_path / "x.safetensors",
        tensors=lambda weights: weights["head.bias"].add_(1e-3),
        honest=False,
    )
    assert "weights are not those of the card" in refusal(path)


def test_a_card_without_a_hash_is_refused(saved: Path, tmp_path: Path) -> None:
    path = rewritten(
        saved, tmp_path / "x.safetensors", card=lambda card: card.pop("weights_sha256")
    )
    assert "the card says none" in refusal(path)


def test_the_hash_covers_names_dtypes_and_shapes() -> None:
    ones = torch.ones(4, dtype=torch.float16)
    variants = [
        {"a": ones},
        {"b": ones},
        {"a": ones.view(2, 2)},
        {"a": ones.view(torch.int16)},
        {"a": ones, "b": ones},
        {"a": ones.new_ones(())},
        {},
    ]
    assert len({weights_sha256(variant) for variant in variants}) == len(variants)


def test_missing_weights_are_listed(saved: Path, tmp_path: Path) -> None:
    path = rewritten(saved, tmp_path / "x.safetensors", tensors=lambda w: w.pop("head.bias"))
    assert "missing: head.bias" in refusal(path)


def test_unexpected_weights_are_listed_but_not_by_the_hundred(saved: Path, tmp_path: Path) -> None:
    extra = {f"zz.{index}": torch.ones(1) for index in range(9)}
    path = rewritten(saved, tmp_path / "x.safetensors", tensors=lambda w: w.update(extra))
    assert "unexpected: zz.0, zz.1, zz.2, zz.3, zz.4 and 4 more" in refusal(path)


@pytest.mark.parametrize("wrong", [torch.zeros(2), torch.zeros(1, dtype=torch.int64)])
def test_a_weight_of_another_shape_or_kind_is_named(
    saved: Path, tmp_path: Path, wrong: torch.Tensor
) -> None:
    path = rewritten(
        saved, tmp_path / "x.safetensors", tensors=lambda w: w.update({"head.bias": wrong})
    )
    text = refusal(path)
    assert "head.bias is torch." in text
    assert "expected torch.float32 (1,)" in text


def test_a_card_that_asks_for_a_giant_network_costs_no_memory(saved: Path, tmp_path: Path) -> None:
    giant = {**OPTIONS, "width": 2**20}  # 2**40 weights in each projection
    path = rewritten(
        saved, tmp_path / "x.safetensors", card=lambda card: card.update(options=giant)
    )
    assert "do not fit the card's network" in refusal(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_neither_saved_nor_loaded(
    model: nn.Module, saved: Path, tmp_path: Path, value: float
) -> None:
    path = rewritten(
        saved, tmp_path / "x.safetensors", tensors=lambda w: w["head.weight"].fill_(value)
    )
    assert "head.weight holds values that are not finite" in refusal(path)
    broken = build("efficient-vit", OPTIONS)
    broken.load_state_dict(model.state_dict())
    nn.init.constant_(broken.head.weight, value)
    with pytest.raises(CheckpointError, match="not finite"):
        save_checkpoint(tmp_path / "y.safetensors", broken, CARD)
    assert not (tmp_path / "y.safetensors").exists()


def test_a_weight_beyond_float16_is_refused_instead_of_stored_as_infinity(
    model: nn.Module, tmp_path: Path
) -> None:
    broken = build("efficient-vit", OPTIONS)
    broken.load_state_dict(model.state_dict())
    nn.init.constant_(broken.head.weight, 1e6)
    with pytest.raises(CheckpointError, match="above float16's 65504"):
        save_checkpoint(tmp_path / "x.safetensors", broken, CARD)
    save_checkpoint(tmp_path / "x.safetensors", broken, CARD, half=False)


class WithHiddenBuffer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("grid", torch.ones(1), persistent=False)


def test_a_network_with_state_outside_its_state_dict_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MODELS, "hidden", (WithHiddenBuffer, {}))
    with pytest.raises(CheckpointError, match="keeps grid outside its state dict"):
        save_checkpoint(
            tmp_path / "x.safetensors",
            WithHiddenBuffer(),
            replace(CARD, model="hidden", options={}),
        )


# Writing


def test_a_network_the_card_does_not_describe_is_not_written(
    model: nn.Module, tmp_path: Path
) -> None:
    path = tmp_path / "x.safetensors"
    with pytest.raises(CheckpointError, match="do not fit the card's network"):
        save_checkpoint(path, model, replace(CARD, options={**OPTIONS, "depth": 3}))
    assert list(tmp_path.iterdir()) == []


def test_a_card_that_is_no_json_is_not_written(model: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    with pytest.raises(CheckpointError, match="cannot be written as JSON"):
        save_checkpoint(path, model, replace(CARD, options={**OPTIONS, "dropout": np.float32(0)}))
    with pytest.raises(CheckpointError, match="cannot be written as JSON"):
        save_checkpoint(path, model, replace(CARD, metrics={"auc": float("nan")}))
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file_and_no_other(
    model: nn.Module, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(CheckpointError, match="cannot be written: No space left on device"):
        save_checkpoint(path, model, CARD)
    assert [entry.read_bytes() for entry in tmp_path.iterdir()] == [b"old"]


def test_a_missing_folder_is_named(model: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere.*cannot be written: No such file"):
        save_checkpoint(tmp_path / "nowhere" / "x.safetensors", model, CARD)


def test_only_safetensors_are_written(model: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"ends in \.safetensors"):
        save_checkpoint(tmp_path / "x.pth", model, CARD)


def test_a_cards_json_says_everything_about_using_the_weights(saved: Path) -> None:
    card = asdict(load_checkpoint(saved).card)
    assert set(card) == {
        "bfloat16",
        "format",
        "name",
        "version",
        "model",
        "options",
        "preprocessing",
        "labels",
        "aggregation",
        "calibration",
        "thresholds",
        "evidence",
        "training_data",
        "manifest_sha256",
        "training_manifest",
        "metrics",
        "licence",
        "weights_sha256",
    }
