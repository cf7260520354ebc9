"""Settings of a training: defaults, what is refused and how, and what the shipped recipes build."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from typer.testing import CliRunner

from forensics.config import load_config
from forensics.errors import ConfigError
from forensics.models import build
from forensics.training.config import TrainConfig

(SCRIPT,) = metadata.entry_points(group="console_scripts", name="deepfake")
RECIPES = sorted(Path(__file__).parents[1].joinpath("configs").glob("*.yaml"))
FAMILIES = "cmt convit cross-efficient-vit cvt default efficient-vit efficientnet smoke vit"


def train(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(SCRIPT.load(), ["train", *arguments], prog_name="deepfake")
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"optimizer": {"lrr": 1}}, r"f.yaml: optimizer.lrr: .*; did you mean lr\?"),
        ({"lr": 1}, r"f.yaml: lr: .*; did you mean optimizer.lr\?"),
        ({"optimiser": {}}, r"f.yaml: optimiser: .*; did you mean optimizer\?"),
        ({"loss": {"zzz": 1}}, r"f.yaml: loss.zzz: .*; known: label_smoothing, rank"),
        ({"precision": 16}, "f.yaml: precision: .*bf16"),
        ({"data": {"balance": ["class", "class"]}}, "balance names a key twice"),
        ({"data": {"self_blended": 0, "reconstructed": 0.5}}, "a share of the pairs"),
        ({"data": {"degraded": 0.9, "tilt": 1.0}}, "at most 1.5"),
        ({"optimizer": {"name": "sam"}, "precision": "fp16"}, "use precision bf16 or 32"),
        ({"optimizer": {"lr": float("nan")}}, "lr must be a number"),
        ({"epochs": 0}, "epochs must be a whole number"),
    ],
)
def test_a_wrong_setting_is_refused_by_file_and_key(mapping: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(TrainConfig, mapping, "f.yaml")


def test_every_family_has_a_recipe() -> None:
    assert [path.stem for path in RECIPES] == FAMILIES.split()


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_builds_its_network_at_its_size(path: Path) -> None:
    config = load_config(TrainConfig, yaml.safe_load(path.read_text()), path.name)
    with torch.device("meta"):
        model = build(config.model.name, {**config.model.options, "image_size": config.data.size})
    assert model.image_size == config.data.size


def test_print_config_shows_what_would_run_and_is_a_configuration(tmp_path: Path) -> None:
    code, out, err = train(
        *("--config", "smoke", "--data", "crops: a", "--print-config"),
        *("--set", "optimizer.lr=2e-4", "--set", "data.balance=[class]"),
        *("--set", "validation.every=7"),
    )
    assert (code, err) == (0, "")
    config = load_config(TrainConfig, yaml.safe_load(out), "stdout")
    assert (config.optimizer.lr, config.data.balance) == (2e-4, ("class",))
    assert (config.validation.every, config.data.store, config.data.size) == (7, "crops: a", 128)
    file = tmp_path / "mine.yaml"
    file.write_text(out)
    assert train("--config", str(file), "--print-config")[1] == out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config", "smok"], "no recipe called 'smok'; did you mean smoke?"),
        (["--config", "absent.yaml"], "absent.yaml: the configuration cannot be read"),
        (["--set", "optimizer.lrr=1"], "command line: optimizer.lrr"),
        (["--set", "lr"], "--set lr: expected KEY=VALUE"),
        (["--set", "seed=[1"], "--set seed=[1: the value is not valid YAML"),
        (["--set", "data=3"], "command line: data: "),
    ],
)
def test_a_wrong_option_is_one_line(arguments: list[str], message: str) -> None:
    code, out, err = train(*arguments, "--print-config")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err


def test_a_mistake_in_a_file_bears_its_name(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("data:\n  worker: 3\n")
    code, _, err = train("--config", str(file), "--print-config")
    assert code == 2
    assert f"{file}: data.worker: Unexpected keyword argument; did you mean workers?" in err
