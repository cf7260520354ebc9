"""Where a run stands, in one file: enough to go on as if it had never stopped. No pickles.

A safetensors file: `model.*`, `average.*` and `optimizer.NUMBER.*` are tensors, its metadata one
JSON document. Random numbers need no place in it: every step seeds the generators of Python, NumPy
and PyTorch from (seed, step, process), so their state follows from the step.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import torch
from pydantic import ConfigDict
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file  # pyright: ignore[reportUnknownVariableType]
from torch import Tensor, nn

from forensics.config import load_config
from forensics.errors import ConfigError, TrainingError
from forensics.training.config import TrainConfig

_KEY = "state"
# What changes no number of a run on one machine.
_MAY_CHANGE = ("data.store", "data.workers", "data.max_unreadable", "device", "save_every")


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where a run stands between two steps. `step` counts the steps that are done, and with it the
    place of the sampler; `best_step` is 0 while no validation has been."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    format: Literal["deepfake-training/1"] = "deepfake-training/1"
    step: int
    best_auc: float = -1.0
    best_loss: float = 0.0
    best_step: int = 0
    loss_sum: float = 0.0  # over the steps since the last row of metrics.csv
    loss_steps: int = 0
    config: Mapping[str, Any]
    crops_sha256: str
    scaler: Mapping[str, float | int] = field(default_factory=dict[str, "float | int"])  # of fp16
    unreadable: Mapping[str, str] = field(default_factory=dict[str, str])  # row -> reason


def save_state(
    path: Path,
    standing: Standing,
    model: nn.Module,
    average: nn.Module | None,
    optimizer: torch.optim.Optimizer,
) -> None:
    """Write the file under a temporary name, then rename. Raises TrainingError where that fails;
    the file of before is then still there."""
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    if average is not None:
        tensors |= {f"average.{name}": value for name, value in average.state_dict().items()}
    states = cast("dict[int, dict[str, Any]]", optimizer.state_dict()["state"])
    for number, values in states.items():
        for name, value in values.items():
            if value is not None:
                tensors[f"optimizer.{number}.{name}"] = torch.as_tensor(value)
    # clone: shared or strided memory is refused by safetensors.
    stored = {
        name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, value in tensors.items()
    }
    text = json.dumps(asdict(standing), allow_nan=False)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        save_file(stored, partial, metadata={_KEY: text})
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        way = "none was saved before: make room and start again"
        if path.exists():
            way = "the state saved before is whole: make room and go on with --resume"
        raise TrainingError(f"{path}: the state cannot be written: {reason}; {way}") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def read_standing(path: Path) -> Standing:
    """Raises TrainingError where there is no state, or a damaged one."""
    try:
        with _opened(path) as file:
            metadata: dict[str, str] = file.metadata() or {}
        mapping = json.loads(metadata[_KEY])
        return load_config(Standing, mapping, str(path))
    except FileNotFoundError as error:
        raise TrainingError(
            f"{path}: there is no state to resume from; start the run without --resume"
        ) from error
    except (OSError, SafetensorError, KeyError, ValueError, TypeError, ConfigError) as error:
        raise TrainingError(f"{path}: not the state of a run, or damaged: {error}") from error


def require_same(standing: Standing, config: TrainConfig, crops_sha256: str, path: Path) -> None:
    """Raise ConfigError naming the first setting, or TrainingError, where this is another run."""
    before, now = _flat(standing.config), _flat(json.loads(json.dumps(asdict(config))))
    for key in sorted(before.keys() | now.keys()):
        if key not in _MAY_CHANGE and before.get(key) != now.get(key):
            raise ConfigError(
                f"{path}: the run has {key}={before.get(key)}, not {now.get(key)}; only "
                f"{', '.join(_MAY_CHANGE)} may change when it is resumed"
            )
    if standing.crops_sha256 != crops_sha256:
        raise TrainingError(
            f"{path}: the run began with other crops than those given now; name the same --data"
        )


def _flat(mapping: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in mapping.items():
        if isinstance(value, Mapping) and value:
            result |= _flat(cast("Mapping[str, Any]", value), f"{prefix}{key}.")
        else:
            result[f"{prefix}{key}"] = value
    return result


def restore_state(
    path: Path,
    model: nn.Module,
    average: nn.Module | None,
    optimizer: torch.optim.Optimizer,
) -> None:
    """Put the tensors back where they were, to the bit. Raises TrainingError where they do not
    fit this network."""
    try:
        with _opened(path) as file:
            # No mapping, though it has keys().
            tensors: dict[str, Tensor] = {n: file.get_tensor(n) for n in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise TrainingError(f"{path}: cannot be read: {error}") from error
    try:
        model.load_state_dict(_below("model.", tensors))
        if average is not None:
            average.load_state_dict(_below("average.", tensors))
    except RuntimeError as error:
        raise TrainingError(f"{path}: does not fit this network: {error}") from error
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    states: dict[int, dict[str, Tensor]] = {}
    for name, value in _below("optimizer.", tensors).items():
        number, _, key = name.partition(".")
        parameter = cast(Tensor, parameters[int(number)])
        if value.shape == parameter.shape:
            # In the memory order of its weight, as the optimizer itself lays it out.
            value = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
        states.setdefault(int(number), {})[key] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": states, "param_groups": groups})


def _opened(path: Path) -> Any:  # safetensors' own class has no types
    return safe_open(path, framework="pt")


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
