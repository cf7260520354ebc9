"""A run's curves: as a picture, and for TensorBoard."""

from __future__ import annotations

import importlib
import importlib.util
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from forensics.checkpoint import write_whole
from forensics.errors import ConfigError

_INSTALL = "pip install 'deepfake[train]'"
_PANELS = (("loss", "val_loss"), ("val_auc", "best_auc"), ("lr",), ("images_per_s",))


def draw_curves(path: Path, rows: Sequence[Mapping[str, str]]) -> None:
    """Loss, AUC, learning rate and speed over steps, from the rows of metrics.csv, as a PNG."""
    figure: Any = library("matplotlib.figure").Figure(figsize=(10, 6), layout="constrained")
    for axes, names in zip(figure.subplots(2, 2).flat, _PANELS, strict=True):
        for name in names:
            points = [(int(row["step"]), float(row[name])) for row in rows if row.get(name)]
            if points:
                axes.plot(
                    *zip(*points, strict=True), label=name, marker="." if len(points) < 50 else ""
                )
        axes.set_xlabel("step")
        axes.set_title(" and ".join(names))
        axes.grid(alpha=0.3)
        if len(names) > 1 and axes.has_data():
            axes.legend()
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=100)
    write_whole(path, picture.getvalue())


class TensorBoard:
    """Scalars for TensorBoard; what an interrupted run wrote beyond `step` is purged."""

    def __init__(self, folder: Path, step: int) -> None:
        self._writer: Any = library("torch.utils.tensorboard").SummaryWriter(
            log_dir=str(folder), purge_step=step + 1
        )

    def add(self, step: int, row: Mapping[str, float | int | str]) -> None:
        for name, value in row.items():
            if name not in ("step", "epoch") and not isinstance(value, str):
                self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


def require_libraries() -> None:
    """Raises ConfigError where a library of the extra `train` is missing: now, not after hours."""
    for name in ("lightning_fabric", "matplotlib", "tensorboard"):
        if importlib.util.find_spec(name) is None:
            raise ConfigError(f"{name.replace('_', '-')} is not installed: {_INSTALL}")


def library(name: str) -> Any:
    """A module of the extra `train`, which is imported only where it is used."""
    return importlib.import_module(name)
