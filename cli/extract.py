"""`deepfake extract`: its options, its progress and what it has to say in the end."""

from __future__ import annotations

import os
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .terminal import error_line, guarded

if TYPE_CHECKING:
    from rich.progress import Progress

ALL_CUT, SOME_SKIPPED = 0, 1


class Picture(str, Enum):
    jpg = "jpg"
    png = "png"


def extract(
    manifest: Annotated[
        Path,
        typer.Argument(metavar="MANIFEST", help="From `deepfake data check --out`: CSV, Parquet."),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the crops: new, or begun.")],
    frames: Annotated[
        int | None, typer.Option(help="Per video, evenly spaced (default: 32).")
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option(help="Side of a crop over the face's (default: 1.8; a scan cuts at 1.3)."),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(help="Largest side in pixels; small faces are not enlarged (default: 320)."),
    ] = None,
    picture: Annotated[
        Picture | None, typer.Option("--format", help="How to store crops (default: jpg).")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Processes, about 1 GB each (default: one per core)."),
    ] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress on stderr; errors remain.")
    ] = False,
) -> int:
    """Cut the faces of a manifest's videos into shards for training.

    Decodes, detects, tracks and cuts as a scan does, only wider. Killed or interrupted, it goes on
    where it was when the same command is given again. Shards are WebDataset tars. Rows without
    crops are listed in DIR/skipped.csv with the reason; to try one again, remove the file in
    DIR/index that names it.

    \b
    Examples:
      deepfake data check FaceForensics++/ --out manifest.csv
      deepfake extract manifest.csv --out crops/
      deepfake extract manifest.csv --out crops/ --frames 16 --format png --workers 8

    \b
    Exit status:
      0    every row has crops
      1    finished, but some rows have none: DIR/skipped.csv says why
      2    an error: wrong manifest, other settings than before, full disk, killed worker
      130  interrupted; the same command goes on
    """
    given: dict[str, Any] = {
        "frames": frames,
        "margin": margin,
        "size": size,
        "picture": picture and picture.value,
    }

    def command() -> int:
        return _run(manifest, out, given, workers=workers or _cores(), quiet=quiet)

    return guarded(command)


def _cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def _run(manifest: Path, out: Path, given: dict[str, Any], *, workers: int, quiet: bool) -> int:
    from forensics.config import ExtractionConfig, load_config
    from forensics.datasets.extraction import extract as cut

    from .terminal import emit

    settings = {name: value for name, value in given.items() if value is not None}
    config = load_config(ExtractionConfig, settings, "command line")
    with _progress(quiet=quiet) as bar:
        task = bar.add_task("cutting", total=None)

        def on_progress(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        summary = cut(manifest, out, config, workers=workers, on_progress=on_progress)
    emit(f"{out}: {summary.crops} crops of {summary.rows} rows, {summary.cut} of them cut now\n")
    if not summary.skipped:
        return ALL_CUT
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(summary.skipped.items()))
    error_line(f"{sum(summary.skipped.values())} rows have no crops: {reasons}; {out}/skipped.csv")
    return SOME_SKIPPED


def _progress(*, quiet: bool) -> Progress:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from .progress import progress_bar

    return progress_bar(
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        quiet=quiet,
        speed_estimate_period=120,  # seconds looked back: videos differ in length
    )
