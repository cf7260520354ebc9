"""Versions of a file as it would look after a journey: recompressed, shrunk, noisy, cropped.

Every version is a whole H.264 file made by x264 at its default preset from every frame, so that
what is measured is the codec's own effect over time; but without its macroblock tree, whose vector
code gives other files from run to run (docs/log.md). `half`, `noise` and `crop` are stored at CRF
23: compare them with `crf23`.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from forensics.config import Limits
from forensics.errors import ConfigError
from forensics.evaluation.outcome import AS_IT_IS, Unit
from forensics.video import Cancellation, open_video

Pixels = NDArray[np.uint8]
Change = Callable[[Pixels, np.random.Generator], Pixels]

_TICKS = 90_000  # per second: MPEG's own clock
_NOISE_LEVELS = 8.0  # standard deviation, of 255: a phone's sensor in a dim room
_KEPT = 0.8  # of each side, in the middle


def _same(pixels: Pixels, _: np.random.Generator) -> Pixels:
    return pixels


def _half(pixels: Pixels, _: np.random.Generator) -> Pixels:
    height, width = pixels.shape[:2]
    size = max(2, width // 2), max(2, height // 2)
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _noise(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    noisy = pixels + rng.normal(0.0, _NOISE_LEVELS, pixels.shape).astype(np.float32)
    return np.minimum(np.maximum(np.rint(noisy), 0), 255).astype(np.uint8)


def _crop(pixels: Pixels, _: np.random.Generator) -> Pixels:
    height, width = pixels.shape[:2]
    y, x = round(height * (1 - _KEPT) / 2), round(width * (1 - _KEPT) / 2)
    return np.ascontiguousarray(pixels[y : height - y, x : width - x])


# Condition -> what happens to each frame, and x264's constant rate factor.
CONDITIONS: dict[str, tuple[Change, int]] = {
    "crf23": (_same, 23),
    "crf32": (_same, 32),
    "crf40": (_same, 40),
    "half": (_half, 23),
    "half-crf32": (_half, 32),
    "noise": (_noise, 23),
    "crop": (_crop, 23),
}


@contextmanager
def degraded(
    path: Path, unit: Unit, *, limits: Limits, cancellation: Cancellation
) -> Generator[Path]:
    """The file under the unit's condition: itself, or a changed copy while the block lasts.

    Of a file with more than `limits.max_frames` frames that many are taken, evenly spaced. Raises
    what reading it raises, and ConfigError for an unknown condition.
    """
    if unit.condition == AS_IT_IS:
        yield path
        return
    if unit.condition not in CONDITIONS:
        known = ", ".join(CONDITIONS)
        raise ConfigError(f"no condition is called {unit.condition!r}; there are {known}")
    change, crf = CONDITIONS[unit.condition]
    # The same noise for the same file, whoever changes it and when.
    seed = hashlib.sha256(f"{unit.sample.place}\0{unit.condition}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(seed[:8], "big"))
    with tempfile.TemporaryDirectory(prefix="deepfake-") as folder:
        changed = Path(folder) / f"{unit.condition}.mp4"
        _encode(path, changed, lambda pixels: change(pixels, rng), crf, limits, cancellation)
        yield changed


def _encode(
    path: Path,
    target: Path,
    change: Callable[[Pixels], Pixels],
    crf: int,
    limits: Limits,
    cancellation: Cancellation,
) -> None:
    library: Any = av  # its types are incomplete
    with (
        open_video(path, limits=limits, cancellation=cancellation) as session,
        library.open(str(target), "w") as out,
    ):
        info = session.info
        count = max(1, min(info.listed_frames, limits.max_frames))
        positions = np.linspace(info.first_s, info.last_s, count)
        stream: Any = None
        last, size = -1, (0, 0)
        for frame in session.frames(positions):
            cancellation.check()
            pixels = _even(change(frame.pixels))
            if stream is None:
                rate = Fraction(min(max(info.frame_rate, 1.0), 240.0)).limit_denominator(1001)
                options = {"crf": str(crf), "x264-params": "mbtree=0"}
                stream = out.add_stream("libx264", rate=rate, options=options)
                size = pixels.shape[1], pixels.shape[0]
                stream.width, stream.height = size
                stream.pix_fmt = "yuv420p"
                stream.codec_context.thread_count = 1  # the other cores have files of their own
                stream.time_base = stream.codec_context.time_base = Fraction(1, _TICKS)
            elif pixels.shape[:2] != size[::-1]:
                pixels = np.asarray(cv2.resize(pixels, size), dtype=np.uint8)
            pts = round((frame.time_s - info.first_s) * _TICKS)
            if pts <= last:  # two positions that show the same frame
                continue
            last = pts
            picture: Any = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            picture.pts, picture.time_base = pts, Fraction(1, _TICKS)
            out.mux(stream.encode(picture))
        if stream is not None:
            out.mux(stream.encode(None))


def _even(pixels: Pixels) -> Pixels:
    """4:2:0 stores colour for two by two pixels: an odd last row or column is repeated."""
    height, width = pixels.shape[:2]
    return np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
