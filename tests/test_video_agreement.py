"""PyAV and decord give the same frames at the same times, or decord refuses by name."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import makers
import numpy as np
import pytest

from forensics.config import Limits
from forensics.errors import MediaError
from forensics.structures import Frame
from forensics.video import open_video, prestart

decord = pytest.importorskip("decord", reason="decord has no wheel for this platform")

VARIABLE = np.cumsum(np.tile([500, 1500, 1000, 3000], 15))[:60].tolist()
SAME: dict[str, Callable[[Path], Path]] = {
    "h264": lambda d: makers.write_video(d / "a.mp4", frames=60),
    "b-frames, long gop": lambda d: makers.write_video(
        d / "a.mp4", frames=60, gop=60, options={"bf": "3"}
    ),
    "hevc": lambda d: makers.write_video(
        d / "a.mp4", frames=60, codec="libx265", options={"x265-params": "log-level=0"}
    ),
    "mkv": lambda d: makers.write_video(d / "a.mkv", frames=60),
    "webm vp9": lambda d: makers.write_video(d / "a.webm", frames=60, codec="libvpx-vp9"),
    "mov mpeg4": lambda d: makers.write_video(d / "a.mov", frames=60, codec="mpeg4", ticks=30),
    "avi mpeg4": lambda d: makers.write_video(d / "a.avi", frames=60, codec="mpeg4", ticks=30),
    "wmv": lambda d: makers.write_video(d / "a.wmv", frames=60, codec="wmv2"),
    "flv": lambda d: makers.write_video(d / "a.flv", frames=60),
    "variable rate": lambda d: makers.write_video(d / "a.mp4", frames=60, times=VARIABLE),
    "rotated 90": lambda d: makers.write_video(d / "a.mp4", frames=60, rotation=90),
    "rotated 180": lambda d: makers.write_video(d / "a.mp4", frames=60, rotation=180),
    "rotated 270": lambda d: makers.write_video(d / "a.mp4", frames=60, rotation=270),
    "with sound": lambda d: makers.write_video(d / "a.mp4", frames=60, audio=True),
    "odd size": lambda d: makers.write_video(d / "a.mp4", frames=60, size=(162, 98)),
    "bt709": lambda d: makers.write_video(d / "a.mp4", frames=60, prepare=_bt709),
    "long": lambda d: makers.write_long_video(d / "a.mp4", seconds=60),
}
REFUSED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "edit list": (
        lambda d: makers.start_edit_at(makers.write_video(d / "a.mp4"), 1.0),
        "edit_list",
    ),
    "size change": (
        lambda d: makers.write_size_change(d / "a.webm", (160, 96), (320, 192)),
        "size",
    ),
    "interlaced": (
        lambda d: makers.write_video(d / "a.mp4", options={"flags": "+ildct+ilme"}),
        "interlaced",
    ),
    "anamorphic": (lambda d: makers.write_video(d / "a.mp4", aspect=Fraction(2)), "anamorphic"),
    "10 bit": (
        lambda d: makers.write_video(d / "a.mp4", pix_fmt="yuv420p10le"),
        "high_bit_depth",
    ),
    "overclaiming": (
        lambda d: makers.claim_frames(makers.write_video(d / "a.mp4"), 100_000),
        "count_mismatch",
    ),
    "truncated": (
        lambda d: makers.truncate(
            makers.write_video(d / "a.mp4", container_options={"movflags": "faststart"}), 0.7
        ),
        "truncated|count_mismatch",
    ),
    "corrupt": (
        lambda d: makers.flip_bytes_in_mdat(makers.write_video(d / "a.mp4", options={"crf": "1"})),
        "cannot decode|corrupt",
    ),
    "picture": (lambda d: makers.write_image(d / "a.mp4", "mjpeg"), "videos only"),
    "ts": (lambda d: makers.write_video(d / "a.ts"), "ts files"),
    "mirrored": (lambda d: makers.write_video(d / "a.mp4", mirrored=True), "mirrored"),
}


def _bt709(stream: Any) -> None:
    stream.codec_context.colorspace = 1


def read(path: Path, decoder: str, num: int) -> tuple[list[Frame], int]:
    prestart(decoder)
    with open_video(path, decoder=decoder, limits=Limits()) as video:
        frames = list(video.frames(np.linspace(video.info.first_s, video.info.last_s, num)))
        return frames, video.stats.positions_read


@pytest.mark.parametrize("name", SAME)
def test_both_readers_agree(tmp_path: Path, name: str) -> None:
    path = SAME[name](tmp_path)
    num = 32
    ours, our_count = read(path, "pyav", num)
    theirs, their_count = read(path, "decord", num)
    assert [frame.time_s for frame in theirs] == [frame.time_s for frame in ours]
    assert their_count == our_count == num
    for one, other in zip(ours, theirs, strict=True):
        assert one.pixels.shape == other.pixels.shape
        assert np.abs(one.pixels.astype(int) - other.pixels).mean() < 1.5


@pytest.mark.parametrize("name", REFUSED)
def test_decord_refuses_by_name_what_it_gets_wrong(tmp_path: Path, name: str) -> None:
    make, words = REFUSED[name]
    with pytest.raises(MediaError, match=words) as caught:
        read(make(tmp_path), "decord", 32)
    assert caught.value.label == "unsupported"
    assert "--decoder pyav" in str(caught.value)
