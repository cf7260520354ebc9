"""A run before the run: cheaper, from the same data, whose best weights the run starts from.

Small pictures cost half and teach most of what there is to learn; the last of it needs large ones.
With both in one configuration a detector follows from one command and its seeds. The run before may
have one before it in turn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

from forensics.config import load_config
from forensics.training.config import TrainConfig
from forensics.training.folder import BEST

FOLDER = "first"  # within that of the run


def first_of(config: TrainConfig) -> TrainConfig | None:
    """The settings of the run before, or None where there is none.

    They are those of `config` with its `first` laid over them. Raises ConfigError, which begins
    with "first", for what is no setting.
    """
    if not config.first:
        return None
    below: dict[str, Any] = {**asdict(config), "first": {}}  # all the rest is inherited
    return load_config(TrainConfig, _over(below, config.first), "first")


def all_of(config: TrainConfig) -> list[TrainConfig]:
    """The settings of the run, of the run before it, and so on. Raises ConfigError."""
    runs = [config]
    while before := first_of(runs[-1]):
        runs.append(before)
    return runs


def started(config: TrainConfig, out: Path) -> TrainConfig:
    """The run itself, from the weights that the run before it left in its folder within `out`."""
    best = (out / FOLDER / BEST).resolve()
    return replace(config, model=replace(config.model, init=str(best)))


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`below` with the values of `above`, key by key."""
    result = dict(below)
    for key, value in above.items():
        known = result.get(key)
        if isinstance(known, Mapping) and isinstance(value, Mapping):
            value = _over(cast("Mapping[str, Any]", known), cast("Mapping[str, Any]", value))
        result[key] = value
    return result
