"""Whether the frames that were read can be trusted as pictures of different moments."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from forensics.structures import Frame

_BLACK = 24  # video black is 16 in limited range, 0 in RGB; noise adds a few levels
_SAME = 2  # levels: what rounding between colour spaces may differ by


class Pictures:
    """Whether the frames differ at all: broken decoders deliver black or repeated pictures
    without an error (an interlaced H.264 file through OpenCV 4.14 and 5.0 is all black)."""

    def __init__(self) -> None:
        self._first: NDArray[np.int16] | None = None
        self._count, self._brightest, self._difference = 0, 0, 0

    def add(self, frames: Iterable[Frame]) -> None:
        for frame in frames:
            height, width = frame.pixels.shape[:2]
            sample = frame.pixels[:: height // 64 + 1, :: width // 64 + 1].astype(np.int16)
            self._count += 1
            self._brightest = max(self._brightest, int(sample.max()))
            if self._first is None:
                self._first = sample
            elif sample.shape != self._first.shape:
                self._difference = 255
            else:
                change = int(np.abs(sample - self._first).max())
                self._difference = max(self._difference, change)

    @property
    def still(self) -> bool:
        """Whether several frames were read and all show the same picture."""
        return self._count > 1 and self._difference <= _SAME

    def doubts(self) -> tuple[str, ...]:
        """Sentences for the verdict's reasons."""
        if self._count and self._brightest <= _BLACK:
            return ("Every frame read is black: the file or its decoding may be damaged.",)
        if self.still:
            return (
                "Every frame read shows the same picture: a still, or a decoder that repeats itself"
                "; it counts as one look, not as many.",
            )
        return ()
