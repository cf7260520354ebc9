"""`deepfake calibrate`: its options; `calibrate_run` does the work."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from .terminal import guarded


class Method(str, Enum):
    temperature = "temperature"
    platt = "platt"
    isotonic = "isotonic"


def calibrate(
    checkpoint: Annotated[
        str, typer.Argument(metavar="CHECKPOINT", help="Shipped detector or checkpoint file.")
    ],
    manifest: Annotated[
        Path,
        typer.Option(metavar="MANIFEST", help="Labelled videos it was not trained on."),
    ],
    max_fpr: Annotated[
        float,
        typer.Option(
            "--max-fpr", help="Share of the reals that may be called likely_fake, at most."
        ),
    ] = 0.05,
    method: Annotated[
        Method,
        typer.Option(
            help="One number, two (platt), or any shape that never falls, for hundreds of videos."
        ),
    ] = Method.temperature,
    split: Annotated[
        str,
        typer.Option(help="Which rows; all of them where the manifest has no splits."),
    ] = "val",
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a new file (default: replace CHECKPOINT)."),
    ] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress on stderr; errors remain.")
    ] = False,
) -> int:
    """Make a detector's probabilities and thresholds fit labelled videos.

    Scans them as `deepfake scan` does, fits a calibration, sets the thresholds of likely_fake and
    likely_real to the wanted share of errors, and writes both into the checkpoint's card, with the
    expected calibration error before and after. The weights stay as they are, bit for bit.

    \b
    Examples:
      deepfake calibrate run/best.safetensors --manifest run/manifest.csv --max-fpr 0.05
      deepfake calibrate default --manifest mine.csv --method platt --out mine.safetensors

    \b
    Exit status:
      0    written
      1    written; some videos could not be judged, and are named
      2    an error: one class is missing, or fakes do not score above reals
      130  interrupted
    """

    def command() -> int:
        from .calibrate_run import run

        return run(
            checkpoint,
            manifest,
            max_fpr=max_fpr,
            method=method.value,
            split=split,
            out=out,
            quiet=quiet,
        )

    return guarded(command)
