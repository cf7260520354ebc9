"""ONNX files: written from a network, and run as one. onnx and onnxruntime are optional.

The card travels in the file's metadata, with the hash of the graph it belongs to.
"""

from __future__ import annotations

import copy
import hashlib
import importlib
import io
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from forensics.errors import CheckpointError, ConfigError

CARD_KEY = "deepfake-card"
_OPSET = 18  # has every operator the networks use; onnxruntime reads it from 1.14 on
_INSTALL = "pip install 'deepfake[onnx]'"


class OnnxModel(nn.Module):
    """A network that onnxruntime runs on the CPU: (B, 3, S, S) float32 -> (B,) float32 logits."""

    def __init__(self, graph: bytes, image_size: int) -> None:
        super().__init__()
        runtime = _library("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3  # errors; warnings about the graph are nobody's business
        self._session = runtime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self.image_size = image_size

    def forward(self, x: Tensor) -> Tensor:
        images = x.detach().to("cpu", torch.float32).contiguous().numpy()
        (logits,) = self._session.run(None, {"images": images})
        return torch.as_tensor(logits).to(x.device)


def write(model: nn.Module, size: int) -> bytes:
    """The network as an ONNX graph with a free batch size; input `images`, output `logits`."""
    _library("onnx")  # the exporter would say so late and in its own way
    network = copy.deepcopy(model).to("cpu", torch.float32).eval()
    buffer: Any = io.BytesIO()  # the stub knows paths alone
    with warnings.catch_warnings():
        # The tracer tells of every shape that it takes for constant (they are), and that it will
        # be replaced one day: the other exporter needs one more library and the same operators.
        warnings.simplefilter("ignore")
        exporter: Any = importlib.import_module("torch.onnx")  # partly without types
        exporter.export(
            network,
            (torch.zeros(2, 3, size, size),),
            buffer,
            input_names=["images"],
            output_names=["logits"],
            dynamic_axes={"images": {0: "batch"}, "logits": {0: "batch"}},
            opset_version=_OPSET,
            dynamo=False,
        )
    return buffer.getvalue()


def graph_sha256(data: bytes) -> str:
    """Of everything but the metadata, in which the hash itself stands."""
    proto = _library("onnx").load_model_from_string(data)
    del proto.metadata_props[:]
    return hashlib.sha256(proto.SerializeToString(deterministic=True)).hexdigest()


def with_card(data: bytes, card: str) -> bytes:
    """The file with this text as its card."""
    onnx = _library("onnx")
    proto = onnx.load_model_from_string(data)
    onnx.helper.set_model_props(proto, {CARD_KEY: card})
    return bytes(proto.SerializeToString(deterministic=True))


def card_of(data: bytes, source: str) -> str:
    """The card's text. Raises CheckpointError for what is no ONNX file, or one without a card."""
    onnx = _library("onnx")
    try:
        proto = onnx.load_model_from_string(data)
    except Exception as error:  # protobuf's DecodeError has no public home
        raise CheckpointError(f"{source}: not a valid ONNX file") from error
    for entry in proto.metadata_props:
        if entry.key == CARD_KEY:
            return str(entry.value)
    raise CheckpointError(
        f"{source}: has no card ({CARD_KEY!r} in its metadata), so how to use its weights is "
        "unknown; write it with `deepfake export`"
    )


def load(data: bytes, image_size: int, source: str) -> OnnxModel:
    """Ready to run. Raises CheckpointError where onnxruntime refuses the graph."""
    try:
        return OnnxModel(data, image_size)
    except ConfigError:
        raise
    except Exception as error:  # onnxruntime's own exceptions have no common public base
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{source}: onnxruntime refuses it: {reason}") from error


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(f"{name} is not installed: {_INSTALL}") from error
