"""`deepfake train`: its options; `train_run` does the work."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .terminal import guarded


def train(
    config: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="A recipe: efficient-vit, cross-efficient-vit, convit, cvt, cmt, vit, "
            "efficientnet, smoke, default; or a YAML file (default: default).",
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR|FILE",
            help="Crops from `deepfake extract`, a manifest, or a data set as it comes.",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="RUN", help="Folder of the run.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in RUN, exactly.")
    ] = False,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change one setting; may be repeated."),
    ] = None,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print the effective settings, and stop.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress on stderr; errors remain.")
    ] = False,
) -> int:
    """Train a detector: from videos or crops to a checkpoint that `deepfake scan` takes.

    Data without crops are cut first, into RUN/crops. The checkpoint with the best AUC on the
    videos of the split `val` is RUN/best.safetensors. Needs the extra `train` of this package.

    \b
    Examples:
      deepfake train --config smoke --data FaceForensics++/ --out run/
      deepfake train --out run/ --resume
      deepfake train --config vit --set optimizer.lr=1e-4 --set precision=bf16 --print-config
      torchrun --no-python --nproc-per-node 4 deepfake train --data crops/ --out run/

    \b
    Exit status:
      0    trained to the end
      2    an error: wrong setting, missing class or split, full disk, killed loader
      130  interrupted: the state is saved, --resume goes on
    """

    def command() -> int:
        from .train_run import run

        return run(
            config,
            data=data,
            out=out,
            resume=resume,
            settings=settings or [],
            print_config=print_config,
            quiet=quiet,
        )

    return guarded(command)
