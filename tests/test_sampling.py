"""Sampling: evenly spaced moments inside the shown part of a video."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forensics.config import FacesConfig, Limits, SamplingConfig, ScanConfig, load_config
from forensics.errors import ConfigError, MediaError
from forensics.sampling import choose_times, sample_times
from forensics.structures import VideoInfo


@pytest.mark.parametrize(
    ("config", "first_s", "last_s", "listed", "expected"),
    [
        pytest.param(SamplingConfig(frames=5), 0.0, 8.0, 200, [0, 2, 4, 6, 8], id="even"),
        pytest.param(SamplingConfig(frames=3), 1.5, 3.5, 60, [1.5, 2.5, 3.5], id="late start"),
        pytest.param(SamplingConfig(frames=1), 0.0, 8.0, 200, [4.0], id="one asked"),
        pytest.param(SamplingConfig(), 0.0, 0.0, 1, [0.0], id="an image"),
        pytest.param(SamplingConfig(), 2.0, 2.0, 0, [2.0], id="none listed"),
        pytest.param(SamplingConfig(), 0.0, 0.2, 3, [0, 0.1, 0.2], id="fewer than asked"),
        pytest.param(SamplingConfig(fps=2.0), 0.0, 1.9, 50, [0, 0.5, 1, 1.5], id="fps"),
        pytest.param(SamplingConfig(fps=2.0), 0.0, 2.0, 50, [0, 0.5, 1, 1.5, 2], id="fps to end"),
        pytest.param(SamplingConfig(fps=0.1), 0.0, 5.0, 50, [0], id="slow fps"),
        pytest.param(
            SamplingConfig(frames=3, start_s=1.0, end_s=2.0), 0.0, 8.0, 200, [1, 1.5, 2], id="part"
        ),
        pytest.param(
            SamplingConfig(frames=3, start_s=1.0), 10.0, 13.0, 90, [11, 12, 13], id="from start"
        ),
        pytest.param(
            SamplingConfig(frames=3, end_s=99.0), 0.0, 4.0, 100, [0, 2, 4], id="end behind end"
        ),
        pytest.param(
            SamplingConfig(fps=1.0, start_s=0.5, end_s=2.6),
            0.0,
            9.0,
            99,
            [0.5, 1.5, 2.5],
            id="fps part",
        ),
        pytest.param(SamplingConfig(start_s=9.0), 0.0, 8.0, 200, [], id="start behind end"),
        pytest.param(SamplingConfig(start_s=9.0, fps=5.0), 0.0, 8.0, 200, [], id="fps behind end"),
    ],
)
def test_positions_are_as_drawn(
    config: SamplingConfig, first_s: float, last_s: float, listed: int, expected: list[float]
) -> None:
    times = sample_times(config, first_s, last_s, listed)
    np.testing.assert_allclose(times, expected)
    assert times.dtype == np.float64


def test_rounding_never_puts_a_position_behind_the_last_frame() -> None:
    times = sample_times(SamplingConfig(fps=10.0), 0.0, 0.3, 10)
    assert len(times) == 4
    assert times.max() <= 0.3


def test_defaults_ask_for_32_frames_from_first_to_last() -> None:
    times = sample_times(SamplingConfig(), 0.04, 9.96, 249)
    assert len(times) == 32
    assert (times[0], times[-1]) == (0.04, 9.96)


@given(
    frames=st.integers(1, 64),
    fps=st.none() | st.floats(0.1, 60),
    first_s=st.floats(-5, 100),
    length_s=st.floats(0, 60),
    start_s=st.none() | st.floats(0, 80),
    part_s=st.none() | st.floats(0.01, 80),
    listed=st.integers(0, 2000),
)
def test_positions_ascend_inside_the_video_and_never_outnumber_what_was_asked(
    frames: int,
    fps: float | None,
    first_s: float,
    length_s: float,
    start_s: float | None,
    part_s: float | None,
    listed: int,
) -> None:
    end_s = None if part_s is None else (start_s or 0.0) + part_s
    config = SamplingConfig(frames=frames, fps=fps, start_s=start_s, end_s=end_s)
    last_s = first_s + length_s
    times = sample_times(config, first_s, last_s, listed)
    assert (np.diff(times) >= 0).all()
    assert ((times >= first_s) & (times <= last_s)).all()
    if fps is None:
        assert len(times) <= min(frames, max(listed, 1))


@pytest.mark.parametrize(
    ("cls", "values", "said"),
    [
        (
            SamplingConfig,
            {"frames": 0},
            "frames must be a whole number from 1 to 2147483647, not 0",
        ),
        (SamplingConfig, {"frames": True}, "frames must be a whole number .*, not True"),
        (SamplingConfig, {"fps": "fast"}, "fps must be a number from 0.0001 to 1e.12, not 'fast'"),
        (Limits, {"wall_s": math.nan}, "wall_s must be a number from 0.001 to 1e.07, not nan"),
        (FacesConfig, {"min_face_px": -3}, "min_face_px must be .* from 1 to 65536, not -3"),
        (Limits, {"max_pixels": None}, "max_pixels .* number from 1 to 2147483647, not None"),
    ],
)
def test_a_refused_setting_is_told_its_range(cls: type, values: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        cls(**values)


@pytest.mark.parametrize(
    ("cls", "values"),
    [
        (SamplingConfig, {"frames": 0}),
        (SamplingConfig, {"frames": -1}),
        (SamplingConfig, {"fps": math.nan}),
        (SamplingConfig, {"fps": math.inf}),
        (SamplingConfig, {"fps": 0.0}),
        (SamplingConfig, {"start_s": math.nan}),
        (SamplingConfig, {"start_s": -1.0}),
        (SamplingConfig, {"start_s": math.inf}),
        (SamplingConfig, {"start_s": 2.0, "end_s": 2.0}),
        (SamplingConfig, {"end_s": math.nan}),
        (SamplingConfig, {"end_s": math.inf}),
        (Limits, {"wall_s": math.nan}),
        (Limits, {"memory_mb": 0}),
        (Limits, {"max_pixels": -5}),
        (Limits, {"max_seconds": math.inf}),
        (FacesConfig, {"longest_side": 0}),
        (FacesConfig, {"min_face_px": math.nan}),
        (ScanConfig, {"batch_size": 0}),
        (ScanConfig, {"threshold": math.nan}),
        (ScanConfig, {"threshold": 1.0}),
        (SamplingConfig, {"frames": 2.5}),
        (SamplingConfig, {"frames": 10**10}),
        (SamplingConfig, {"fps": 1e-320}),
        (SamplingConfig, {"start_s": 1e308}),
        (Limits, {"wall_s": -1.0}),
        (Limits, {"wall_s": 1e300}),  # no clock holds it
        (Limits, {"cpu_s": 1e300}),
        (Limits, {"memory_mb": 10**15}),
        (Limits, {"max_pixels": 10**14}),  # FFmpeg takes an int of 32 bits
        (Limits, {"delivered_pixels": 10**14}),
        (Limits, {"max_frames": 0.5}),
        (FacesConfig, {"longest_side": 19}),
        (FacesConfig, {"batch_frames": 10**20}),
    ],
)
def test_nonsense_is_refused_by_name(cls: type, values: dict[str, float]) -> None:
    names = "|".join(name.removesuffix("_s") for name in values)
    with pytest.raises(ValueError, match=names):
        cls(**values)
    with pytest.raises(ConfigError, match=names):
        load_config(cls, values, "settings.yaml")


@pytest.mark.parametrize(
    ("config", "label", "words"),
    [
        (SamplingConfig(frames=9), "limit_exceeded", "9 frames to look at, the limit is 8"),
        (SamplingConfig(fps=10.0), "limit_exceeded", "41 frames to look at, the limit is 8"),
        (SamplingConfig(frames=4, start_s=5.0), "unsupported", "video is 4.0 s long"),
    ],
)
def test_what_cannot_be_looked_at_is_refused_with_the_files_name(
    config: SamplingConfig, label: str, words: str
) -> None:
    with pytest.raises(MediaError, match=f"^clip.mp4: .*{words}") as caught:
        choose_times(config, four_seconds(), max_frames=8, source=Path("clip.mp4"))
    assert caught.value.label == label


def test_a_short_range_of_many_frames_a_second_stays_within_the_limit() -> None:
    config = SamplingConfig(fps=10.0, start_s=1.0, end_s=1.7)
    times = choose_times(config, four_seconds(), max_frames=8, source=Path("clip.mp4"))
    assert times == pytest.approx([3 + i / 10 for i in range(8)])


def four_seconds() -> VideoInfo:
    return VideoInfo(
        kind="video",
        container="mp4",
        codec="h264",
        width=64,
        height=48,
        first_s=2.0,
        last_s=6.0,
        duration_s=4.04,
        frame_rate=25.0,
        declared_frames=101,
        listed_frames=101,
    )
