"""What every command shares: one line per error, data on stdout, and how a run ends.

Exit statuses beside a command's own: 2 an error, 130 interrupted, 141 the reader of stdout left.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

ERROR = 2
INTERRUPTED = 130  # 128 + SIGINT, as shells count
BROKEN_PIPE = 141  # 128 + SIGPIPE; not 1, which means that a fake was found


def error_line(message: str) -> None:
    """`deepfake: message` on stderr, on one line whatever the message holds."""
    from forensics.report import printable  # numpy comes with it: not before there is an error

    print(f"deepfake: {printable(' '.join(message.split()))}", file=sys.stderr, flush=True)


def emit(text: str) -> None:
    """Data on stdout, now: a full disk or a closed pipe shows here and not at exit."""
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        # A terminal that cannot show a name's letter gets its escape instead of a traceback.
        reconfigure(errors="backslashreplace")
    sys.stdout.write(text)
    sys.stdout.flush()


def guarded(command: Callable[[], int]) -> int:
    """Run a command; whatever goes wrong becomes one line on stderr and an exit status."""
    from forensics.errors import ForensicsError

    try:
        return command()
    except ForensicsError as error:
        error_line(str(error))
    except KeyboardInterrupt:
        error_line("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        _forget_stdout()
        return BROKEN_PIPE
    except OSError as error:
        _forget_stdout()
        where = f"{error.filename}: " if error.filename is not None else ""
        error_line(f"{where}{error.strerror or error}; nothing was written half")
    except Exception as error:
        if interrupted(error):
            error_line("interrupted")
            return INTERRUPTED
        error_line(f"unexpected {type(error).__name__}: {error}; `deepfake doctor` may tell why")
    return ERROR


def interrupted(error: BaseException | None) -> bool:
    """Whether `error` came up while a Ctrl-C was being cleaned up after: that must not hide it."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__context__
    return False


def _forget_stdout() -> None:
    """Keep the interpreter from flushing a stdout that has failed once more on its way out."""
    try:
        descriptor = sys.stdout.fileno()
    except (OSError, ValueError):  # not backed by a file: nothing will be flushed
        return
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, descriptor)
    os.close(null)
