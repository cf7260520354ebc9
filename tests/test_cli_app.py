"""The command itself: help, version, completion, and what it does not import."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from forensics.checkpoint import load_checkpoint
from forensics.models import MODELS, build

(SCRIPT,) = metadata.entry_points(group="console_scripts", name="deepfake")
COMMANDS = ("scan", "doctor", "models", "convert", "export", "serve", "train", "calibrate")
DEEPFAKE = Path(sys.executable).with_name("deepfake")


def invoke(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(SCRIPT.load(), list(arguments), prog_name="deepfake")
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_help_lists_every_command(arguments: list[str]) -> None:
    code, out, _ = invoke(*arguments)
    assert code == 0
    assert all(command in out for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_shows_an_example_and_its_exit_status(command: str) -> None:
    code, out, _ = invoke(command, "--help")
    assert code == 0
    assert f"deepfake {command}" in out
    assert "Exit status" in out


def test_models_lists_every_network_with_its_size() -> None:
    code, out, err = invoke("models")
    assert (code, err) == (0, "")
    rows = {line.split()[0]: line for line in out.splitlines() if line.strip()}
    assert set(MODELS) < rows.keys()
    assert "19,612,865" in rows["cvt-13"]
    assert "224 px" in rows["cvt-13"]
    assert "MIT" in rows["cvt-13"]


def test_models_shows_one_with_its_stages() -> None:
    code, out, _ = invoke("models", "cvt-13")
    assert code == 0
    assert "2103.15808" in out
    rows = {row[0]: row[1:] for line in out.splitlines() if (row := line.split())}
    assert rows["stage1"] == ["Stage", "1,013,568", "192", "x", "28", "x", "28"]
    assert rows["stage2.blocks.9"] == ["ConvBlock", "1,787,136", "197", "x", "384"]
    _, out, _ = invoke("models", "hybrid")
    assert "320 x 7 x 7" in next(line for line in out.splitlines() if "_blocks.15 " in line)


def test_an_unknown_model_is_one_line_with_the_nearest_name() -> None:
    code, out, err = invoke("models", "cvt13")
    assert (code, out) == (2, "")
    assert err == "deepfake: model 'cvt13' is unknown; did you mean cvt-13?\n"


def test_convert_writes_a_checkpoint_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(build("cvt-13", {}).state_dict(), "w.pth")
    code, out, err = invoke("convert", "w.pth", "--model", "cvt-13")
    assert (code, err) == (0, "")
    assert out.startswith("cvt-13.safetensors: cvt-13, 224 px.")
    assert load_checkpoint(tmp_path / "cvt-13.safetensors").card.model == "cvt-13"
    code, _, err = invoke("convert", "w.pth", "--model", "cvt-13")
    assert (code, err.count("\n")) == (2, 1)
    assert "exists already" in err
    code, _, err = invoke("convert", "absent.pth", "--model", "cvt-13", "--out", "b.safetensors")
    assert (code, err) == (2, "deepfake: absent.pth: No such file or directory\n")
    assert not Path("b.safetensors").exists()


def test_the_version_is_that_of_the_package() -> None:
    assert invoke("--version") == (0, f"deepfake {metadata.version('deepfake')}\n", "")


def test_an_unknown_command_is_one_line() -> None:
    code, out, err = invoke("scna")
    assert (code, out) == (2, "")
    assert err.startswith("deepfake: No such command 'scna'")
    assert len(err.splitlines()) == 1


def test_help_imports_neither_torch_nor_numpy_nor_a_decoder() -> None:
    code = (
        "import sys\n"
        "from importlib import metadata\n"
        "(script,) = metadata.entry_points(group='console_scripts', name='deepfake')\n"
        "try:\n"
        "    script.load()(['scan', '--help'])\n"
        "except SystemExit:\n"
        "    pass\n"
        "heavy = {'torch', 'numpy', 'cv2', 'av', 'decord', 'yaml'} & sys.modules.keys()\n"
        "print(sorted(heavy), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stderr == "[]\n"


def test_importing_the_library_does_not_import_torch() -> None:
    code = "import sys, forensics; forensics.ScanConfig; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "False\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_completion_script_is_shown_for_each_shell(
    shell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    code, out, _ = invoke("--show-completion", shell)
    assert code == 0
    assert "_DEEPFAKE_COMPLETE" in out


def test_completion_offers_commands_and_options() -> None:
    for words, count, offered in (("deepfake sc", 1, "scan"), ("deepfake scan --thr", 2, "--thr")):
        environment = {
            **os.environ,
            "_DEEPFAKE_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(count),
        }
        done = subprocess.run(
            [DEEPFAKE], env=environment, capture_output=True, text=True, check=False, timeout=60
        )
        assert offered in done.stdout
        assert done.stderr == ""


def test_completion_installs_itself_below_the_home_folder(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "HOME": str(tmp_path),
        "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1",
    }
    done = subprocess.run(
        [DEEPFAKE, "--install-completion", "bash"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0
    assert "deepfake" in (tmp_path / ".bashrc").read_text()
