"""The folder of a run: what it was asked, where it ran, how it went. Every file is whole or absent.

config.yaml      the effective settings, as `--config` takes them
environment.json versions, device, git revision, the crops and their hash
metrics.csv      one row per ten steps and per validation
tensorboard/     the same for TensorBoard
curves.png       the same as a picture
trained_on.csv   the rows of the crops, where no manifest.csv lies here
skipped.csv      crops that could not be read, and why
best.safetensors the checkpoint with the best validation AUC so far, for `deepfake scan --detector`
last.safetensors where the run stands, for `--resume`
autoencoders/    what fakes were drawn again by, where the settings ask for such fakes
first/           the run before, where the settings have one
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from forensics.errors import TrainingError
from forensics.report import write_text
from forensics.report.facts import software_versions
from forensics.training.config import TrainConfig

CONFIG, ENVIRONMENT, METRICS = "config.yaml", "environment.json", "metrics.csv"
BEST, LAST, SKIPPED, CURVES = "best.safetensors", "last.safetensors", "skipped.csv", "curves.png"
TENSORBOARD, AUTOENCODERS = "tensorboard", "autoencoders"


def as_yaml(config: TrainConfig) -> str:
    """The configuration as a file that `--config` takes."""
    # Through JSON: YAML would write tuples as something of Python's own.
    plain: dict[str, Any] = json.loads(json.dumps(asdict(config)))
    return yaml.safe_dump(plain, sort_keys=False)


def announce(folder: Path, config: TrainConfig) -> None:
    """Make the folder with its settings alone: what is to be done there, before its run begins.
    Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / CONFIG, as_yaml(config))


def start_folder(folder: Path, config: TrainConfig, facts: Mapping[str, Any]) -> None:
    """Make the folder with its settings and environment. Raises TrainingError where a run is in it
    already, and OSError."""
    require_free(folder)
    announce(folder, config)
    environment = {**facts, "git_revision": git_revision(), "software": software_versions()}
    write_text(folder / ENVIRONMENT, json.dumps(environment, indent=1) + "\n")


def require_free(folder: Path) -> None:
    """Raises TrainingError where a run is in the folder already."""
    if (folder / LAST).exists():
        raise TrainingError(
            f"{folder}: holds a run already; go on with it (--resume), or choose another --out"
        )
    if (folder / BEST).exists():  # ended before its first state was saved
        raise TrainingError(
            f"{folder}: holds a checkpoint, but no state to go on from; move {BEST} elsewhere, or"
            " choose another --out"
        )


def git_revision() -> str:
    """The commit of the checkout this code runs from, "-dirty" behind it where files differ."""
    here = Path(__file__).parent
    try:
        done = subprocess.run(
            [
                "git",
                "-C",
                str(here),
                "describe",
                "--always",
                "--dirty",
                "--abbrev=40",
                "--exclude=*",
            ],
            capture_output=True,
            text=True,
            check=True,
            timeout=20,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.SubprocessError):
        return "not a git checkout"
    return done.stdout.strip()
