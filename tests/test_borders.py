"""What import-linter cannot see: the command line and the recipes stand outside forensics/ here."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
OUTSIDE = ("cli", "configs", "data", "benchmarks", "tests", "forensics.cli", "forensics.configs")


def _imported(module: Path) -> set[str]:
    names: set[str] = set()
    package = module.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            home = ".".join((*above, *filter(None, [node.module])))
            names |= {home, *(f"{home}.{alias.name}" for alias in node.names)}
    return names


def test_the_library_imports_neither_the_command_line_nor_recipes_nor_data() -> None:
    for module in sorted((ROOT / "forensics").rglob("*.py")):
        for name in _imported(module):
            assert not any(name == out or name.startswith(f"{out}.") for out in OUTSIDE), (
                f"{module.relative_to(ROOT)} imports {name}"
            )


def test_no_module_of_a_scan_reads_pickles() -> None:
    """Any of these would; benchmarks and recipes stand outside."""
    for folder in ("forensics", "cli"):
        for module in sorted((ROOT / folder).rglob("*.py")):
            names = {
                node.attr if isinstance(node, ast.Attribute) else node.id
                for node in ast.walk(ast.parse(module.read_text(encoding="utf-8")))
                if isinstance(node, ast.Attribute | ast.Name)
            }
            found = _imported(module)
            where = module.relative_to(ROOT)
            found -= (
                {"pickle"} if module.name == "weight_files.py" else set()
            )  # for its error's name
            assert not {"pickle", "joblib", "dill", "marshal", "shelve"} & found, where
            assert not {"Unpickler", "allow_pickle"} & names, where
            source = module.read_text(encoding="utf-8")
            unsafe = source.replace('torch.load(path, map_location="cpu", weights_only=True)', "")
            assert "torch.load(" not in unsafe, where
            assert "torch.load(" not in source or module.name == "weight_files.py", where
