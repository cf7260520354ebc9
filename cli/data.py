"""`deepfake data`: its commands and their options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .terminal import guarded

data = typer.Typer(
    help="Look at training material before it is used.",
    rich_markup_mode="rich",
)


@data.command()
def check(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="A data set as it comes, or a table (CSV).")
    ],
    layout: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Read it as this data set (default: find out)."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="MANIFEST", help="Write the manifest here: .csv or .parquet."),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            metavar="SHARES",
            help="New splits by identity and source: train,val,test (0.8,0.1,0.1), or train,val "
            "(0.85,0.15) beside the test files that the data set has.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the new splits.")] = 0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the finding as JSON (deepfake-data-check/1).")
    ] = False,
) -> int:
    """Say what a data set holds, what is wrong with it, and who is in two splits.

    Known layouts: ffpp, dfd, celebdf, dfdc, dfdc-preview, deeperforensics, wilddeepfake, uadfv,
    crop-folders, csv, real-fake.

    \b
    Examples:
      deepfake data check FaceForensics++/
      deepfake data check clips/ --split 0.8,0.1,0.1 --seed 1 --out manifest.csv

    \b
    Exit status:
      0  read, nothing to complain of
      1  read, and there are problems or leaks; a manifest is written all the same
      2  an error: no known layout, nothing usable in it, or it cannot be written
    """

    def command() -> int:
        from .data_check import run

        return run(folder, layout=layout, out=out, split=split, seed=seed, as_json=as_json)

    return guarded(command)


@data.command()
def preview(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Crops, as `deepfake extract` left them.")
    ],
    out: Annotated[Path, typer.Option(metavar="SHEET", help="Where to write: .png or .jpg.")],
    size: Annotated[
        int, typer.Option(min=16, max=1024, help="Side of the network's input in pixels.")
    ] = 224,
    seed: Annotated[int, typer.Option(min=0, help="Another seed shows other crops.")] = 0,
) -> int:
    """Write a contact sheet of what a network is shown in training.

    Crops as a scan cuts them, augmented versions of each, and self-blended fakes of the reals.

    \b
    Example:
      deepfake data preview crops/ --out sheet.png

    \b
    Exit status:
      0  written
      2  an error: no crops in that folder, or the sheet cannot be written
    """

    def command() -> int:
        from .data_preview import run

        return run(folder, out, size=size, seed=seed)

    return guarded(command)
