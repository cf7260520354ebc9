"""The live bar of a long command: on stderr, and only where that is a terminal."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress, ProgressColumn


def progress_bar(
    *columns: ProgressColumn, quiet: bool, speed_estimate_period: float = 30.0
) -> Progress:
    """A bar that leaves no trace; `disable` is set where it will not be seen.

    `speed_estimate_period`: seconds looked back for the speed.
    """
    console = Console(stderr=True, highlight=False)
    # stdout is never redirected: it carries the result, wherever it leads.
    return Progress(
        *columns,
        console=console,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
        disable=quiet or not console.is_terminal,
        speed_estimate_period=speed_estimate_period,
    )


@contextmanager
def paused(bar: Progress) -> Generator[None]:
    """Take the bar off the terminal while something else is written there."""
    bar.stop()
    try:
        yield
    finally:
        bar.start()
