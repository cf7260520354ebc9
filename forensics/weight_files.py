"""Where published weights come from: a file, timm, or the Hugging Face hub; read, never run.

Torch files are read with torch's restricted unpickler, `weights_only=True`, and nothing else: a
file that needs more is refused. The one class let through beside tensors and plain values is
argparse.Namespace, in which the official CMT and DeiT training scripts keep their options.
"""

from __future__ import annotations

import argparse
import importlib
import json
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file  # pyright: ignore[reportUnknownVariableType]
from torch import Tensor

from forensics.errors import CheckpointError, ConfigError

# Where training scripts put the weights; the averaged ones first.
_WRAPPERS = ("model_ema", "model", "state_dict")

Triple = tuple[float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """Weights by their published names, and what was published beside them (None: nothing).

    `mean` and `std` apply to RGB in 0..1; `norm_eps` is that of the layer norms."""

    tensors: dict[str, Tensor]
    mean: Triple | None = None
    std: Triple | None = None
    norm_eps: float | None = None


def read_source(source: str) -> Published:
    """A file by its path, `timm:NAME` or `hf:OWNER/NAME`; the last two fetch it over the network.

    Raises CheckpointError where it cannot be had or read, ConfigError where timm or huggingface-hub
    is not installed.
    """
    kind, _, name = source.partition(":")
    if kind == "timm" and name:
        return _from_timm(source, name)
    if kind == "hf" and name:
        return _from_hub(source, name)
    return Published(tensors=read_weights(Path(source)))


def _from_timm(source: str, name: str) -> Published:
    timm = _library("timm")
    try:
        model: Any = timm.create_model(name, pretrained=True)
    except Exception as error:  # of timm, the hub and the network: no common base
        raise _not_fetched(source, error) from error
    mean, std = _pixels(model.pretrained_cfg, "mean", "std")
    return Published(tensors=dict(model.state_dict()), mean=mean, std=std)


def _from_hub(source: str, name: str) -> Published:
    hub = _library("huggingface_hub")
    absent = importlib.import_module("huggingface_hub.errors").EntryNotFoundError

    def fetched(file: str) -> Path | None:
        try:
            return Path(hub.hf_hub_download(name, file))
        except absent:
            return None
        except Exception as error:  # of the hub and the network: no common base
            raise _not_fetched(source, error) from error

    weights = fetched("model.safetensors") or fetched("pytorch_model.bin")
    if weights is None:
        raise CheckpointError(f"{source}: has neither model.safetensors nor pytorch_model.bin")
    about, pixels = (_json(fetched(file)) for file in ("config.json", "preprocessor_config.json"))
    mean, std = _pixels(pixels, "image_mean", "image_std")
    if mean is None or std is None:
        mean, std = _pixels(about.get("pretrained_cfg"), "mean", "std")
    eps = about.get("layer_norm_eps")
    return Published(
        tensors=read_weights(weights),
        mean=mean,
        std=std,
        norm_eps=float(eps) if isinstance(eps, (int, float)) and 0 <= eps < 1 else None,
    )


def _json(path: Path | None) -> Mapping[str, Any]:
    """A JSON object, or an empty one where there is none."""
    try:
        found: object = json.loads(path.read_text(encoding="utf-8")) if path is not None else None
    except (OSError, ValueError):
        return {}
    return cast("Mapping[str, Any]", found) if isinstance(found, dict) else {}


def _pixels(about: Any, mean: str, std: str) -> tuple[Triple | None, Triple | None]:
    """Both or neither: one without the other says nothing."""
    values: list[Triple] = []
    for key in (mean, std):
        try:
            r, g, b = (float(value) for value in about[key])
        except (KeyError, TypeError, ValueError):
            return None, None
        values.append((r, g, b))
    return (values[0], values[1]) if min(values[1]) > 0 else (None, None)


def _not_fetched(source: str, error: Exception) -> CheckpointError:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return CheckpointError(f"{source}: not fetched: {reason}")


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.replace("_", "-")
        raise ConfigError(f"{package} is not installed: pip install {package}") from error


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors or torch file, without the wrappers of training scripts.

    Raises CheckpointError where the file cannot be read, holds anything but tensors and plain
    values, or holds no tensors.
    """
    try:
        with path.open("rb") as file:
            file.read(1)
        if path.suffix == ".safetensors":
            return dict(load_file(str(path)))
        with torch.serialization.safe_globals([argparse.Namespace]):
            found: object = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror or error}") from error
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{path}: not read, because it holds more than weights or is damaged: {reason}"
        ) from error
    for wrapper in _WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(wrapper), Mapping):  # pyright: ignore
            found = cast(Mapping[str, object], found)[wrapper]
            break
    if not isinstance(found, Mapping):
        raise CheckpointError(f"{path}: holds no weights by name")
    named = cast(Mapping[object, object], found)
    tensors = {
        str(name).removeprefix("module."): value
        for name, value in named.items()
        if isinstance(value, Tensor)
    }
    if not tensors:
        raise CheckpointError(f"{path}: holds no weights by name")
    return tensors
