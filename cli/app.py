"""`deepfake`: all commands under one name; what does the work is imported when it runs."""

from __future__ import annotations

import os
import sys
from importlib import metadata
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from .calibrate import calibrate
from .data import data
from .examine import rerun, scan, serve, verify
from .extract import extract
from .measure import compare, evaluate
from .networks import convert, export, models
from .terminal import ERROR, error_line, guarded
from .train import train


class _OneLineErrors(TyperGroup):
    """Usage errors as one line, as every other error; a command's result is the exit status."""

    def main(self, args: Any = None, *rest: Any, standalone_mode: bool = True, **extra: Any) -> Any:
        arguments = list(sys.argv[1:] if args is None else args)
        if not standalone_mode:
            return super().main(arguments, *rest, standalone_mode=False, **extra)
        # Completion comes without arguments, in an environment variable.
        completing = any(key.endswith("_COMPLETE") for key in os.environ)
        try:
            status = super().main(
                arguments if arguments or completing else ["--help"],
                *rest,
                standalone_mode=False,
                **extra,
            )
        except Exception as error:
            # click's usage errors; typer carries its own copy of click, so no class to name here.
            describe = getattr(error, "format_message", None)
            if describe is None:
                raise
            error_line(f"{describe()} Try `deepfake --help`.")
            status = ERROR
        sys.exit(status if isinstance(status, int) else 0)


app = typer.Typer(
    cls=_OneLineErrors,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _command in (scan, verify, rerun, serve, evaluate, compare, extract, train, calibrate):
    app.command()(_command)
app.add_typer(data, name="data")
for _command in (models, convert, export):
    app.command()(_command)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"deepfake {metadata.version('deepfake')}")
        raise typer.Exit


@app.callback()
def deepfake(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_version, is_eager=True),
    ] = False,
) -> None:
    """Deepfake video forensics on your own files: a verdict, or a named abstention.

    Nothing leaves this machine. Results go to stdout, everything else to stderr.

    Example: [bold]deepfake scan video.mp4[/bold]
    """


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> int:
    """Check this installation: versions, devices, decoders, weights, and a timed self-test.

    Paste its output into bug reports: it holds no path of yours and no file name.

    \b
    Example:
      deepfake doctor

    \b
    Exit status:
      0  all checks passed
      2  at least one failed
    """

    def command() -> int:
        from .doctor import run

        return run(as_json=as_json)

    return guarded(command)
