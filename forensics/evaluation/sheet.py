"""The worst mistakes as one picture: the faces that misled the detector most."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forensics.config import Limits
from forensics.crops import face_crop
from forensics.datasets.manifest import Sample
from forensics.errors import ForensicsError
from forensics.evaluation.ledger import Results
from forensics.evaluation.pictures import face_track
from forensics.evaluation.plots import plot_library
from forensics.evaluation.storage import stored
from forensics.evaluation.tables import Items
from forensics.report import printable
from forensics.video import open_video
from forensics.whole_file import whole_file

NAME = "worst_mistakes.png"
_PER_CLASS = 12  # two rows of six
_MOST_COLUMNS = 6
_SIDE, _MARGIN = 160, 1.6  # more of the scene than the detector's own crop: one wants to recognise


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """A file on the wrong side of 0.5, with its probability of fake."""

    sample: Sample
    probability: float


def worst_mistakes(items: Items, *, most: int = _PER_CLASS) -> tuple[list[Mistake], list[Mistake]]:
    """Reals taken for fakes and fakes taken for reals, the most certain first."""
    rows = sorted(
        (
            Mistake(sample=sample, probability=probability)
            for sample, probability in zip(items.samples, items.probabilities.tolist(), strict=True)
        ),
        key=lambda row: (-row.probability, row.sample.place),
    )
    reals = [row for row in rows if row.sample.label == "real" and row.probability > 0.5]
    fakes = [row for row in rows if row.sample.label == "fake" and row.probability < 0.5]
    return reals[:most], fakes[::-1][:most]


def draw_sheet(folder: Path, items: Items, location: Callable[[Sample], str]) -> Path | None:
    """Write the contact sheet of a run; None where there is no mistake to show.

    `location` says where a sample's file is. A file that cannot be read again is a grey tile.
    """
    reals, fakes = worst_mistakes(items)
    if not reals and not fakes:
        return None
    library = plot_library()
    columns = min(_MOST_COLUMNS, max(3, len(reals), len(fakes)))  # three: room for the titles
    lines = [-(-len(rows) // columns) for rows in (reals, fakes)]
    figure: Any = library["figure"].Figure(
        figsize=(columns * 1.75, 2.15 * sum(lines) + 0.5 * sum(map(bool, lines))),
        layout="constrained",
    )
    parts: Any = figure.subfigures(
        sum(map(bool, lines)), 1, squeeze=False, height_ratios=[line for line in lines if line]
    )
    titled = [
        ("Real, taken for fake", reals, "#0072B2"),
        ("Fake, taken for real", fakes, "#D55E00"),
    ]
    with Results(folder) as results:
        for part, (title, rows, colour) in zip(
            parts[:, 0], (entry for entry in titled if entry[1]), strict=True
        ):
            part.suptitle(title, fontsize=10, color=colour, fontweight="bold")
            grid: Any = part.subplots(-(-len(rows) // columns), columns, squeeze=False)
            for axes in grid.flat:
                axes.set_axis_off()
            for axes, row in zip(grid.flat, rows, strict=False):
                axes.imshow(_face(row, results, location(row.sample)))
                axes.set_title(_caption(row), fontsize=6)
    target = folder / NAME
    with whole_file(target) as file:
        figure.savefig(file, format="png", dpi=130)
    return target


def _caption(row: Mistake) -> str:
    sample = row.sample
    kind = " ".join(part for part in (sample.method, sample.compression) if part)
    lines = [f"{row.probability:.3f}", _short(kind or sample.dataset), _short(sample.place)]
    # A dollar sign would begin mathematics.
    return "\n".join(printable(line).replace("$", r"\$") for line in lines)


def _short(text: str, most: int = 26) -> str:
    return text if len(text) <= most else f"...{text[3 - most :]}"


def _face(row: Mistake, results: Results, location: str) -> NDArray[np.uint8]:
    """The frame that misled most of the person who decided, (S, S, 3) uint8 RGB."""
    grey = np.full((_SIDE, _SIDE, 3), 200, dtype=np.uint8)
    frames = results.deciding_frames(row.sample.place)
    if not frames:
        return grey
    sign = 1 if row.sample.label == "real" else -1
    frame, time_s, box, _ = max(frames, key=lambda found: sign * found[3])
    try:
        with stored(location) as path:
            if row.sample.kind != "video":
                track = face_track(path, row.sample, frames=len(frames), size=_SIDE)
                return track.crops[min(frame, len(track.crops) - 1)]
            with open_video(path, limits=Limits()) as session:
                (picture,) = session.frames(np.array([time_s]))
            corners = np.array(box, dtype=np.float32)
            return face_crop(picture.pixels, corners, margin=_MARGIN, size=_SIDE)
    except (ForensicsError, OSError, ValueError):
        return grey
