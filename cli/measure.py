"""The commands that measure detectors: evaluate, compare."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from .terminal import guarded


class Engine(str, Enum):
    local = "local"
    ray = "ray"


def evaluate(
    dataset: Annotated[
        str,
        typer.Argument(
            metavar="DATASET",
            help="A layout (ffpp, celebdf, dfdc, dfdc-preview, real-fake, ...), or a manifest.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="RUN", help="Folder of the run.")],
    root: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Where the files are; with a manifest also an address (s3://, gs://, memory://).",
        ),
    ] = None,
    detector: Annotated[
        str, typer.Option(metavar="NAME|PATH", help="Shipped detector or checkpoint file.")
    ] = "default",
    split: Annotated[
        str | None, typer.Option(help="train, val or test only (default: all files).")
    ] = None,
    frames: Annotated[
        int | None, typer.Option(help="How many frames to look at, evenly spaced (default: 32).")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Files examined at once (default: one per core).")
    ] = None,
    engine: Annotated[
        Engine, typer.Option(help="This machine, or a cluster through Ray.")
    ] = Engine.local,
    ray_address: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="The cluster's (default: one is started here)."),
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Also examine again what failed before.")
    ] = False,
    robustness: Annotated[
        bool,
        typer.Option(
            "--robustness", help="Also recompressed, at half size, with noise, cropped: 7 x longer."
        ),
    ] = False,
    allow_leak: Annotated[
        bool,
        typer.Option("--allow-leak", help="Score people seen in training; every table says so."),
    ] = False,
    from_csv: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Score these predictions (file, probability) instead."),
    ] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress on stderr; errors remain.")
    ] = False,
) -> int:
    """Measure a detector on a data set, the way the literature does. Needs the extra `evaluate`.

    Every file's result is kept as it finishes: interrupted or killed, the same command goes on.
    RUN gets summary.json, summary.md, plots, the worst mistakes, tables in Parquet, submission.csv.

    \b
    Examples:
      deepfake evaluate ffpp --root FaceForensics++ --split test --out runs/ffpp
      deepfake evaluate manifest.csv --root s3://bucket/videos --out runs/cloud --engine ray
      deepfake evaluate dfdc --root DFDC/test --from-csv theirs.csv --out runs/theirs

    \b
    Exit status:
      0    finished, every file has an answer (an abstention is one)
      1    finished, but files failed: --retry-failed examines them again
      2    an error: wrong usage, a leak, a run of something else in RUN
      130  interrupted; the same command goes on where it stopped
    """

    def command() -> int:
        from .evaluate import run

        return run(
            dataset,
            out=out,
            root=root,
            detector=detector,
            split=split,
            frames=frames,
            workers=workers,
            engine=engine.value,
            ray_address=ray_address,
            retry_failed=retry_failed,
            robustness=robustness,
            allow_leak=allow_leak,
            from_csv=from_csv,
            quiet=quiet,
        )

    if ray_address is not None and engine is not Engine.ray:
        raise typer.BadParameter("--ray-address needs --engine ray.")
    if from_csv is not None and robustness:
        raise typer.BadParameter("--from-csv and --robustness exclude each other.")
    return guarded(command)


def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN", help="Folders written by deepfake evaluate, two or more."),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print the comparison as JSON.")] = False,
) -> int:
    """Compare detectors on the files that all of them judged, with p-values.

    Each difference is measured on the same bootstrap draws of whole clusters of files.

    \b
    Example:
      deepfake compare runs/mine runs/theirs

    \b
    Exit status:
      0  compared
      2  an error: not a run, or nothing in common
    """

    def command() -> int:
        from .compare import run

        return run(runs, as_json=as_json)

    return guarded(command)
