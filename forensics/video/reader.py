"""What a reader is, and the readers there are. Readers run inside the decoder child only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from forensics.errors import ConfigError
from forensics.structures import DecodeStats, Frame, VideoInfo
from forensics.video.sniff import HEAD_BYTES, Sniffed, sniff
from forensics.video.wire import Budget


class Reader(Protocol):
    """One open medium. `read` may be called once; `stats` is known when its iterator has ended.

    `read(positions)` takes (N,) float64 seconds, ascending, and yields for each the frame shown at
    that time: the last one presented at or before it, the first frame for earlier positions. The
    same frame is never given twice. Pixels are valid until the next frame is asked for.
    """

    @property
    def info(self) -> VideoInfo: ...

    @property
    def times_s(self) -> NDArray[np.float64]:
        """(N,) presentation times of all shown frames, ascending."""
        ...

    def read(self, positions: NDArray[np.float64]) -> Iterator[Frame]: ...

    def stats(self) -> DecodeStats: ...

    def close(self) -> None: ...


def _pyav(file: BinaryIO, sniffed: Sniffed, budget: Budget) -> Reader:
    from forensics.video.pyav_reader import PyAVReader

    return PyAVReader(file, sniffed, budget)


def _decord(file: BinaryIO, sniffed: Sniffed, budget: Budget) -> Reader:
    from forensics.video.decord_reader import DecordReader

    return DecordReader(file, sniffed, budget)


READERS: dict[str, Callable[[BinaryIO, Sniffed, Budget], Reader]] = {
    "pyav": _pyav,
    "decord": _decord,
}


def check_decoder(name: str) -> None:
    """Raise ConfigError, listing the readers, for a name that is none of them."""
    if name not in READERS:
        raise ConfigError(f"unknown decoder {name!r}: choose one of {', '.join(READERS)}")


def open_reader(file: BinaryIO, decoder: str, budget: Budget) -> Reader:
    """Open `file` with the named reader; raises MediaError with one of the four labels."""
    check_decoder(decoder)
    file.seek(0)
    return READERS[decoder](file, sniff(file.read(HEAD_BYTES)), budget)
