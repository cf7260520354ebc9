"""What ends up in the wheel, and what the library shows to the outside."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import forensics

if sys.version_info >= (3, 11):
    import tomllib
else:  # setuptools carries it for the last Python without it
    from setuptools._vendor import tomli as tomllib

ROOT = Path(__file__).parents[1]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
HOMES = {"forensics": "forensics", "cli": "forensics.cli", "configs": "forensics.configs"}


def test_every_package_is_listed_so_that_none_is_missing_from_the_wheel() -> None:
    found = {
        ".".join((home, *init.parent.relative_to(ROOT / folder).parts))
        for folder, home in HOMES.items()
        for init in (ROOT / folder).rglob("__init__.py")
    }
    assert found == set(SETTINGS["tool"]["setuptools"]["packages"])


def test_every_folder_of_modules_is_a_package() -> None:
    for folder in HOMES:
        for module in (ROOT / folder).rglob("*.py"):
            assert (module.parent / "__init__.py").exists(), module


def test_folders_at_the_top_are_mapped_below_the_import_name() -> None:
    assert SETTINGS["tool"]["setuptools"]["package-dir"] == {
        home: folder for folder, home in HOMES.items()
    }


def test_the_door_shows_exactly_what_it_promises() -> None:
    assert sorted(forensics.__all__) == [
        "ForensicsError",
        "Report",
        "ScanConfig",
        "Scanner",
        "Verdict",
        "load_checkpoint",
        "scan",
    ]
    assert set(forensics.__all__) <= set(dir(forensics))
    assert all(getattr(forensics, name) is not None for name in forensics.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = forensics.nothing


@pytest.mark.slow
def test_a_wheel_installs_one_import_name_and_runs_from_another_folder(tmp_path: Path) -> None:
    def run(*command: str, **environment: str) -> str:
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    # Built from a copy: setuptools leaves a `build` folder, whose stale files reach the next wheel.
    source = tmp_path / "source"
    for folder in HOMES:
        shutil.copytree(
            ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__")
        )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    run(
        *(sys.executable, "-m", "build", "--wheel", "--no-isolation"),
        *("--outdir", str(tmp_path), str(source)),
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {"forensics/report/schema.json", "forensics/py.typed"} <= set(names)
    page = ("page.html", "article.html", "style.css", "page.js")
    assert {f"forensics/report/{name}" for name in page} <= set(names)
    assert "forensics/serve/static/page.js" in names
    site = tmp_path / "site"
    run(
        *(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"),
        *("--target", str(site), str(wheel)),
    )
    installed = {path.name for path in site.iterdir()} - {"bin"}
    assert installed == {"forensics", f"deepfake-{SETTINGS['project']['version']}.dist-info"}
    script = site / "bin" / "deepfake"
    assert "scan" in run(str(script), "--help", PYTHONPATH=str(site))
    # The copy in site-packages must be the one that answers, not the editable one of this checkout.
    where = run(
        sys.executable, "-c", "import forensics; print(forensics.__file__)", PYTHONPATH=str(site)
    )
    assert where.startswith(str(site))
