"""Exported detectors carry their card and are scanned with; that each family equals its checkpoint
is part of the contract in `model_contract`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from fill import fill
from model_contract import card
from portraits import portrait, scene
from test_models import SMALL
from torch import Tensor, nn

from forensics import ScanConfig, Scanner
from forensics.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from forensics.errors import CheckpointError, ConfigError
from forensics.export import export_onnx
from forensics.models import build


def checkpoint(folder: Path, name: str, options: dict[str, object], size: int) -> Checkpoint:
    words = {**options, "image_size": size}
    model = build(name, words)
    model.load_state_dict(fill(model.state_dict()))
    path = folder / "made.safetensors"
    save_checkpoint(path, model, card(name, words, size))
    return load_checkpoint(path)


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    path = tmp_path / "small.onnx"
    export_onnx(checkpoint(tmp_path, *SMALL[0]), path)
    return path


def test_a_scan_takes_it_as_its_detector(exported: Path, tmp_path: Path) -> None:
    import cv2

    picture = tmp_path / "face.png"
    cv2.imwrite(str(picture), scene(360, 360, [(portrait(), 50, 50)])[..., ::-1])
    config = ScanConfig(device="cpu")
    with Scanner(exported, config) as one, Scanner(tmp_path / "made.safetensors", config) as two:
        mine, theirs = (scanner.scan(picture).verdict for scanner in (one, two))
    assert mine.label == theirs.label
    assert mine.probability == pytest.approx(theirs.probability, abs=0.02)  # bf16 where there is


def test_a_changed_graph_is_refused(exported: Path) -> None:
    proto = onnx.load(exported)
    weight = proto.graph.initializer[0]
    weight.raw_data = bytes([weight.raw_data[0] ^ 1]) + weight.raw_data[1:]
    onnx.save(proto, exported)
    with pytest.raises(CheckpointError, match="not that of the card"):
        load_checkpoint(exported)


def test_a_graph_without_a_card_is_refused(exported: Path) -> None:
    proto = onnx.load(exported)
    del proto.metadata_props[:]
    onnx.save(proto, exported)
    with pytest.raises(CheckpointError, match="has no card"):
        load_checkpoint(exported)


@pytest.mark.parametrize("content", [b"", b"\xff" * 64, b"PK\x03\x04"])
def test_what_is_no_onnx_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.onnx"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"not a valid ONNX file|has no card"):
        load_checkpoint(path)


def test_a_result_that_differs_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Off(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.full((len(x),), 9.0)

    made = checkpoint(tmp_path, *SMALL[0])
    monkeypatch.setattr("forensics.onnx_file.load", lambda *_: Off())
    with pytest.raises(CheckpointError, match="not written"):
        export_onnx(made, tmp_path / "made.onnx")
    assert not (tmp_path / "made.onnx").exists()


def test_weights_beyond_what_onnx_can_hold_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forensics.export._LARGEST", 10**6)
    with pytest.raises(CheckpointError, match="GB of weights"):
        export_onnx(checkpoint(tmp_path, *SMALL[0]), tmp_path / "made.onnx")
    assert not (tmp_path / "made.onnx").exists()


def test_without_the_extra_one_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = checkpoint(tmp_path, *SMALL[0])
    missing: Any = None
    monkeypatch.setitem(sys.modules, "onnx", missing)
    with pytest.raises(ConfigError, match=r"pip install 'deepfake\[onnx\]'"):
        export_onnx(made, tmp_path / "made.onnx")
