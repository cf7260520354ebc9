"""A file is written whole or not at all: under a temporary name beside it, then renamed."""

from __future__ import annotations

import os
import secrets
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


@contextmanager
def whole_file(path: Path) -> Generator[BinaryIO]:
    """A new file that becomes `path` when the block ends; after an error nothing has changed.

    Raises OSError with the name `path`, not with that of the temporary file, which is gone.
    """
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        # O_EXCL: never through a link somebody else laid; 0o666: the user's umask decides.
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        with os.fdopen(descriptor, "w+b") as file:
            yield file
            file.flush()
            # Without it a full disk or a crash can still leave an empty file under the final name.
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        # The number chooses the class again.
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        with suppress(OSError):  # also where the folder itself is missing or read-only
            temporary.unlink(missing_ok=True)
