"""Media facts for a report: tags, sound and sizes as the file gives them, and what they hint at."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import av
import pytest
from makers import numbered_picture, read_number, write_audio, write_image, write_video
from makers_report import judged

from forensics.config import Limits
from forensics.report.origin import bit_rate, bits_per_pixel, recompression_hints
from forensics.structures import VideoInfo
from forensics.video import open_video


def info_of(path: Path) -> VideoInfo:
    with open_video(path, limits=Limits()) as session:
        return session.info


def described(**changes: Any) -> VideoInfo:
    info = judged().info
    assert info is not None
    return dataclasses.replace(info, **changes)


def test_a_file_is_described_by_profile_pixels_sound_key_frames_and_bytes(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "a.mp4", frames=30, gop=10, audio=True)
    info = info_of(clip)
    assert (info.profile, info.pixel_format, info.sound) == ("High", "yuv420p", "aac")
    assert info.key_frames == 3
    with av.open(str(clip)) as container:
        assert info.stream_bytes == sum(packet.size for packet in container.demux(video=0))
    assert bit_rate(info) == pytest.approx(8 * info.stream_bytes / info.duration_s)
    assert info_of(write_video(tmp_path / "b.mp4", frames=3)).sound is None
    still = info_of(write_image(tmp_path / "c.png", "png"))
    assert (bit_rate(still), still.sound) == (None, None)


def test_tags_of_a_stranger_are_cut_to_a_bearable_size(tmp_path: Path) -> None:
    target = tmp_path / "tags.mkv"
    with av.open(str(target), "w") as out:
        out.metadata.update({f"TAG{n:03}": "x" * 5000 for n in range(200)})
        stream: Any = out.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
        frame = av.VideoFrame.from_ndarray(numbered_picture(1), format="rgb24")
        out.mux(stream.encode(frame.reformat(format="yuv420p")))
        out.mux(stream.encode(None))
    tags = info_of(target).tags
    assert len(tags) == 64
    assert max(len(value) for _, value in tags) == 300


def test_every_frame_of_a_session_comes_once_and_in_order(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "a.mp4", frames=40)
    with open_video(clip, limits=Limits(max_frames=4)) as session:
        numbers = [read_number(frame.pixels) for frame in session.every_frame()]
        with pytest.raises(RuntimeError, match="read once"):
            session.every_frame()
    assert numbers == list(range(40))


def test_sound_alone_has_no_facts_of_a_video(tmp_path: Path) -> None:
    from forensics.errors import MediaError

    with pytest.raises(MediaError, match="no video stream"):
        info_of(write_audio(tmp_path / "a.mp4"))


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ((("encoder", "Lavf60.16.100"),), "FFmpeg's libraries (Lavf60.16.100)"),
        ((("video.handler_name", "ISO Media file produced by Google Inc."),), "Google"),
        ((("comment", "vid:v24044gl0000"),), "TikTok"),
        ((("com.apple.quicktime.model", "iPhone 14"),), "name a camera (iPhone 14)"),
        ((("com.android.version", "14"),), "a phone's camera"),
    ],
)
def test_tags_hint_at_who_wrote_the_file(tags: Any, said: str) -> None:
    (hint,) = recompression_hints(described(tags=tags))
    assert said in hint


def test_strong_compression_is_noticed_by_bits_per_pixel_and_nothing_says_little() -> None:
    pixels = 640 * 360 * 250
    coarse = described(stream_bytes=pixels // 400, tags=())
    assert bits_per_pixel(coarse) == pytest.approx(0.02, rel=0.01)
    (hint,) = recompression_hints(coarse)
    assert "0.020 bits per pixel" in hint
    assert recompression_hints(described(stream_bytes=pixels // 40, tags=())) == ()
