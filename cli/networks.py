"""The commands about networks and their weights: models, convert, export."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from .terminal import guarded


class ExportFormat(str, Enum):
    onnx = "onnx"


def models(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Show this one with its stages.")
    ] = None,
) -> int:
    """List the networks a detector can be built from, or show one.

    \b
    Examples:
      deepfake models
      deepfake models cvt-13

    \b
    Exit status:
      0  shown
      2  there is no such network
    """

    def command() -> int:
        from .models import run

        return run(name)

    return guarded(command)


def convert(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help="A .safetensors or torch file, timm:NAME, or hf:OWNER/NAME."
        ),
    ],
    model: Annotated[str, typer.Option(metavar="NAME", help="Which network the weights are for.")],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where to write (default: NAME.safetensors)."),
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(min=1, help="Resize tables of positions to this input size in pixels."),
    ] = None,
) -> int:
    """Turn published weights into a checkpoint: names, shapes and pixels translated.

    Torch files are read without running anything in them. A backbone's classifier of things is
    replaced by one that answers nothing until it is trained. timm: and hf: use the network.

    \b
    Examples:
      deepfake convert efficient_vit.pth --model efficient-vit-published
      deepfake convert timm:convit_tiny.fb_in1k --model convit-tiny --out convit.safetensors

    \b
    Exit status:
      0  written
      2  an error: the file cannot be read, does not fit, or cannot be written
    """

    def command() -> int:
        from .convert import run

        return run(source, model, out=out, image_size=image_size)

    return guarded(command)


def export(
    checkpoint: Annotated[
        str, typer.Argument(metavar="CHECKPOINT", help="Shipped detector or checkpoint file.")
    ],
    file_format: Annotated[
        ExportFormat, typer.Option("--format", help="What to write.")
    ] = ExportFormat.onnx,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where to write (default: the name with .onnx)."),
    ] = None,
) -> int:
    """Write a detector for other runtimes, and compare its logits before keeping it.

    The batch size stays free, the card travels along: a scan takes the result as its detector.
    Needs the extra `onnx`: pip install 'deepfake\\[onnx]'.

    \b
    Examples:
      deepfake export default
      deepfake export mine.safetensors --format onnx --out mine.onnx
      deepfake scan video.mp4 --detector mine.onnx

    \b
    Exit status:
      0  written, and equal to the checkpoint
      2  an error: it cannot be read or written, or its logits differ
    """

    def command() -> int:
        from .export import run

        assert file_format is ExportFormat.onnx  # the only one
        return run(checkpoint, out=out)

    return guarded(command)
