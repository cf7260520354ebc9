"""Which moments of a video to look at; pure arithmetic in seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from forensics.config import SamplingConfig
from forensics.errors import MediaError
from forensics.structures import VideoInfo


def choose_times(
    config: SamplingConfig, info: VideoInfo, *, max_frames: int, source: Path
) -> NDArray[np.float64]:
    """`sample_times` of one file, at least one, checked against the limit before they are made.

    Raises MediaError, which begins with `source`: `limit_exceeded` where more than `max_frames`
    were asked for, `unsupported` where the range starts behind the end.
    """
    length = info.last_s - info.first_s
    span = min(length, config.end_s or length) - (config.start_s or 0.0)
    asked = span * config.fps + 1 if config.fps else config.frames
    if not asked <= max_frames:
        raise MediaError(
            f"{source}: {asked:.0f} frames to look at, the limit is {max_frames}; ask for fewer",
            label="limit_exceeded",
        )
    times = sample_times(config, info.first_s, info.last_s, info.listed_frames)
    if len(times) == 0:
        where = f"the range starts at {config.start_s} s, the video is {length:.1f} s long"
        raise MediaError(f"{source}: nothing to look at: {where}", label="unsupported")
    return times


def sample_times(
    config: SamplingConfig, first_s: float, last_s: float, listed_frames: int
) -> NDArray[np.float64]:
    """Positions to read, in seconds, ascending, each inside [first_s, last_s].

    Evenly spaced from the first shown frame to the last, both included, as the field's
    `linspace(0, N - 1, n)` does over indices; with `fps`, one position every 1/fps seconds.
    `start_s` and `end_s` count from the first shown frame. A video with fewer listed frames than
    asked gets one position per frame. The result is empty where `start_s` lies behind the end.
    """
    start = first_s + (config.start_s or 0.0)
    end = last_s if config.end_s is None else min(last_s, first_s + config.end_s)
    if start > last_s:
        return np.empty(0)
    if config.fps is not None:
        # The last step may land a rounding error behind the end: 3 * 0.1 > 0.3.
        return np.minimum(np.arange(start, end + 1e-9, 1.0 / config.fps), end)
    count = min(config.frames, max(listed_frames, 1))
    if count == 1:
        return np.array([(start + end) / 2])
    return np.linspace(start, end, count)
