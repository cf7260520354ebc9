"""How a run went, as it goes: metrics.csv, TensorBoard, curves, and the crops it could not read."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from forensics.report import write_text
from forensics.training.curves import TensorBoard, draw_curves
from forensics.training.folder import CURVES, METRICS, SKIPPED, TENSORBOARD

COLUMNS = (
    *("step", "epoch", "loss", "lr", "images_per_s", "waiting"),
    *("val_auc", "val_loss", "val_videos", "best_auc"),
)


class Logbook:
    """Rows are added to those up to `step`; what an earlier try wrote beyond is forgotten."""

    def __init__(self, folder: Path, step: int) -> None:
        self._folder = folder
        self._rows = [row for row in read_rows(folder / METRICS) if int(row["step"]) <= step]
        write_text(folder / METRICS, _as_csv(self._rows, header=True))
        self._board = TensorBoard(folder / TENSORBOARD, step)

    def add(self, row: Mapping[str, float | int | str], *, draw: bool) -> None:
        """One row; with `draw` the picture of the curves as well. Raises OSError."""
        texts = {name: _short(row[name]) if name in row else "" for name in COLUMNS}
        with (self._folder / METRICS).open("a", newline="", encoding="utf-8") as file:
            file.write(_as_csv([texts], header=False))
        self._rows.append(texts)
        self._board.add(int(row["step"]), row)
        if draw:
            draw_curves(self._folder / CURVES, self._rows)

    def skipped(self, unreadable: Mapping[str, str], places: Mapping[str, str]) -> None:
        """Write which crops could not be read: their number, place and the reason."""
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("crop", "place", "reason"))
        for row in sorted(unreadable, key=int):
            writer.writerow((row, places[row], unreadable[row]))
        write_text(self._folder / SKIPPED, text.getvalue())

    def close(self) -> None:
        self._board.close()


def read_rows(path: Path) -> list[dict[str, str]]:
    """The whole rows of a metrics file; none where it is absent. A row cut short is left out."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [row for row in rows if row.get("step", "").isdigit() and None not in row.values()]


def _as_csv(rows: list[dict[str, str]], *, header: bool) -> str:
    text = io.StringIO(newline="")
    writer: csv.DictWriter[str] = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _short(value: float | int | str) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
