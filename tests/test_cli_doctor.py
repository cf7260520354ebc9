"""`deepfake doctor`, with the shipped detector replaced by a tiny one."""

from __future__ import annotations

import hashlib
import json
import shutil
from importlib import metadata
from pathlib import Path

import pytest
from typer.testing import CliRunner

from forensics import checkpoint

(SCRIPT,) = metadata.entry_points(group="console_scripts", name="deepfake")


def doctor(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(SCRIPT.load(), ["doctor", *arguments], env={"COLUMNS": "120"})
    return result.exit_code, result.stdout


@pytest.fixture
def shipped(
    tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Path]:
    weights = {"default": tmp_path / "default.safetensors"}
    shutil.copy(tiny_checkpoint, weights["default"])
    monkeypatch.setattr(checkpoint, "shipped", lambda: weights)
    return weights


def test_a_sound_installation_passes_every_check(shipped: dict[str, Path]) -> None:
    code, out = doctor("--json")
    document = json.loads(out)
    failed = [finding for finding in document["findings"] if finding["ok"] is False]
    assert (code, failed) == (0, [])
    assert document["schema"] == "deepfake-doctor/1"
    checked = {(finding["topic"], finding["name"]) for finding in document["findings"]}
    assert {
        ("version", "torch"),
        ("version", "ffmpeg in av"),
        ("device", "auto"),
        ("decoder", "pyav"),
        ("decoder", "decord"),
        ("weights", "default"),
        ("self-test", "scan"),
    } <= checked
    (detail,) = (one["detail"] for one in document["findings"] if one["topic"] == "weights")
    # As reports name it.
    assert hashlib.sha256(shipped["default"].read_bytes()).hexdigest() in detail


def test_damaged_weights_are_found_and_named(shipped: dict[str, Path]) -> None:
    data = bytearray(shipped["default"].read_bytes())
    data[-1] ^= 0x01
    shipped["default"].write_bytes(data)
    code, out = doctor()
    assert code == 2
    (line,) = (line for line in out.splitlines() if line.startswith("weights"))
    assert "FAILED" in line
    assert "the weights are not those of the card" in " ".join(out.split())


def test_missing_weights_are_named_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "shipped", dict[str, Path])
    code, out = doctor()
    assert code == 2
    assert "reinstall the package" in " ".join(out.split())
