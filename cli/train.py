"""`deepfake train`: a configuration and a data set become a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from forensics.config import load_config, nearest
from forensics.errors import ConfigError
from forensics.training.config import TrainConfig

from .settings import parse_yaml, read_yaml, with_settings
from .terminal import emit


def run(
    config: str,
    *,
    data: Path | None,
    settings: Sequence[str],
    print_config: bool,
) -> int:
    """Train as configured; the result is the exit status."""
    chosen = effective_config(config, data, settings)
    if print_config:
        emit(as_yaml(chosen))
        return 0
    raise ConfigError("not built yet")


def effective_config(config: str, data: Path | None, settings: Sequence[str]) -> TrainConfig:
    """Defaults, then the recipe's or file's keys, then `--data` and each `--set`.

    Raises ConfigError naming the recipe, file or option at fault.
    """
    mapping, source = _recipe(config)
    load_config(TrainConfig, mapping, source)  # so that its own mistakes bear its name
    given = [*settings] if data is None else [*settings, f"data.store={json.dumps(str(data))}"]
    return load_config(TrainConfig, with_settings(mapping, given), "command line")


def as_yaml(config: TrainConfig) -> str:
    """The configuration as a file that `--config` takes."""
    # Through JSON: YAML would write tuples as something of Python's own.
    plain: dict[str, Any] = json.loads(json.dumps(asdict(config)))
    return yaml.safe_dump(plain, sort_keys=False)


def _recipe(config: str) -> tuple[dict[str, Any], str]:
    """The keys of a shipped recipe, by name, or of a file; and what to call it in errors."""
    folder = resources.files("forensics.configs")
    names = sorted(
        entry.name.removesuffix(".yaml")
        for entry in folder.iterdir()
        if entry.name.endswith(".yaml")
    )
    if config in names:
        text = folder.joinpath(f"{config}.yaml").read_text(encoding="utf-8")
        return parse_yaml(text, f"recipe {config}"), f"recipe {config}"
    path = Path(config)
    if path.suffix in (".yaml", ".yml") or path.exists():
        return read_yaml(path), str(path)
    raise ConfigError(f"there is no recipe called {config!r}{nearest(config, names)}")
