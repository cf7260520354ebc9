"""`deepfake models`: the networks by name, their sizes and where weights for them come from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from difflib import get_close_matches
from io import StringIO
from typing import cast

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from forensics.checkpoint import load_checkpoint, shipped
from forensics.errors import ConfigError
from forensics.models import MODELS, build
from forensics.models.catalogue import ORIGINS

from .terminal import emit


def run(name: str | None) -> int:
    """Show all networks, or one with its stages; the result is the exit status."""
    emit(_all() if name is None else _one(name))
    return 0


def _all() -> str:
    table = Table(box=None, pad_edge=False)
    for title, justify in (
        ("model", "left"),
        ("parameters", "right"),
        ("input", "right"),
        ("reference weights", "left"),
        ("their licence", "left"),
    ):
        table.add_column(title, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for name in sorted(MODELS):
        model = _drawn(name)
        origin = ORIGINS[type(model).__name__]
        table.add_row(
            name, f"{_count(model):,}", f"{model.image_size} px", origin.weights, origin.licence
        )
    lines = [_printed(table), "", "Detectors inside this package:"]
    for detector in shipped():
        card = load_checkpoint(detector).card
        size = f"{card.preprocessing.size} px"
        lines.append(f"  {detector}  {card.model}, {size}, version {card.version}; {card.licence}")
    return "\n".join(lines) + "\n"


def _one(name: str) -> str:
    if name not in MODELS:
        near = get_close_matches(name, MODELS, n=1)
        hint = f"; did you mean {near[0]}?" if near else "; `deepfake models` lists them"
        raise ConfigError(f"model {name!r} is unknown{hint}")
    model = _drawn(name)
    origin = ORIGINS[type(model).__name__]
    table = Table(box=None, pad_edge=False)
    for title in ("stage", "layer"):
        table.add_column(title)
    table.add_column("parameters", justify="right")
    table.add_column("output of an image")
    parts = list(_parts(model, ""))
    shapes = _output_shapes(model, [path for path, _, _ in parts])
    for path, depth, module in parts:
        indent, shape = "  " * depth, shapes.get(path, "")
        table.add_row(f"{indent}{path}", type(module).__name__, f"{_count(module):,}", shape)
    words = ", ".join(f"{key}={value}" for key, value in MODELS[name][1].items()) or "defaults"
    return (
        f"{name}: {_count(model):,} parameters, input {model.image_size} px, one logit\n"
        f"options: {words}\npaper: {origin.paper}\n"
        f"reference weights: {origin.weights} ({origin.licence})\n\n{_printed(table)}\n"
    )


def _parts(module: nn.Module, prefix: str, depth: int = 0) -> Iterator[tuple[str, int, nn.Module]]:
    """Path, depth and module of whatever has weights, down to the blocks of each stage."""
    for name, child in module.named_children():
        if not _count(child):
            continue
        path = f"{prefix}{name}"
        yield path, depth, child
        if any(isinstance(part, nn.ModuleList) for part in child.modules()):
            yield from _parts(child, f"{path}.", depth + 1)


def _output_shapes(model: nn.Module, paths: list[str]) -> dict[str, str]:
    """What each part gives for one image, as sides; a list of blocks is not called itself."""
    shapes: dict[str, str] = {}

    def keep(path: str) -> Callable[[nn.Module, object, object], None]:
        def hook(_module: nn.Module, _inputs: object, output: object) -> None:
            tensor: object = output
            if isinstance(output, tuple):
                tensor = cast("tuple[object, ...]", output)[0]
            if isinstance(tensor, Tensor):
                shapes[path] = " x ".join(str(side) for side in tensor.shape[1:])

        return hook

    for path in paths:
        model.get_submodule(path).register_forward_hook(keep(path))
    size = cast(int, model.image_size)
    with torch.device("meta"), torch.no_grad():
        model.eval()(torch.empty(1, 3, size, size))
    return shapes


def _drawn(name: str) -> nn.Module:
    """The network without memory for its weights."""
    with torch.device("meta"):
        return build(name, {})


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _printed(table: Table) -> str:
    stream = StringIO()
    Console(file=stream, width=140).print(table)
    return "\n".join(line.rstrip() for line in stream.getvalue().rstrip("\n").split("\n"))
