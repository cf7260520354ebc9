"""Every row of the table of hostile media ends in the state its last column demands."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import makers
import numpy as np
import pytest

from forensics.config import Limits
from forensics.errors import MediaError
from forensics.structures import DecodeStats, Frame, VideoInfo
from forensics.video import open_video, prestart

FAST_START = {"movflags": "faststart"}


def read(
    path: Path, num: int = 32, decoder: str = "pyav", limits: Limits | None = None
) -> tuple[VideoInfo, list[Frame], DecodeStats]:
    prestart(decoder)
    with open_video(path, decoder=decoder, limits=limits or Limits()) as video:
        info = video.info
        frames = list(video.frames(np.linspace(info.first_s, info.last_s, num)))
        return info, frames, video.stats


def label_of(path: Path, decoder: str = "pyav", limits: Limits | None = None) -> str:
    with pytest.raises(MediaError) as caught:
        read(path, decoder=decoder, limits=limits)
    assert "\n" not in str(caught.value)
    assert path.name[:3] in str(caught.value)
    return caught.value.label


def numbers(frames: list[Frame]) -> list[int]:
    return [makers.read_number(frame.pixels) for frame in frames]


def noisy(number: int, width: int, height: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Numbered, over noise: every frame costs about the same number of bytes."""
    picture = makers.numbered_picture(number, width, height).astype(int)
    noise = np.random.default_rng(number).integers(-25, 25, picture.shape)
    return np.clip(picture + noise, 0, 255).astype(np.uint8)


def test_a_plain_clip_gives_the_frame_shown_at_each_position(tmp_path: Path) -> None:
    path = makers.write_video(tmp_path / "a.mp4")
    info, frames, stats = read(path)
    assert (info.width, info.height, info.listed_frames, info.traits) == (160, 96, 90, ())
    assert info.duration_s == pytest.approx(3.0)
    expected = np.floor(np.linspace(0, 89, 32) + 1e-6).astype(int).tolist()
    assert numbers(frames) == expected
    assert [frame.time_s for frame in frames] == pytest.approx([n / 30 for n in expected])
    assert [frame.index for frame in frames] == list(range(32))
    assert (stats.coverage, stats.decoded_frames, stats.positions_read) == (1.0, 90, 32)


def test_interlaced_material_is_decoded_and_has_no_combs(tmp_path: Path) -> None:
    def combed(number: int, width: int, height: int) -> makers.Picture:
        picture = makers.numbered_picture(number, width, height)
        picture[height // 2 :] = 40
        left = 20 + number  # a white bar that the second field shows 12 pixels further right
        picture[height // 2 :: 2, left : left + 30] = 230
        picture[height // 2 + 1 :: 2, left + 12 : left + 42] = 230
        return picture

    options = {"flags": "+ildct+ilme", "x264-params": "tff=1", "crf": "10"}
    path = makers.write_video(tmp_path / "i.mp4", options=options, draw=combed, frames=45)
    info, frames, _ = read(path, 45)
    assert "interlaced" in info.traits
    assert numbers(frames) == list(range(45))
    lower = frames[10].pixels[60:90, :, 1].astype(int)
    assert np.abs(np.diff(lower, axis=0)).mean() < 3


def test_a_wrecked_sample_table_is_undecodable(tmp_path: Path) -> None:
    path = makers.wreck_sample_table(makers.write_video(tmp_path / "w.mp4"))
    assert label_of(path) == "undecodable"


def test_a_truncated_mp4_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    path = makers.write_video(tmp_path / "t.mp4", draw=noisy, container_options=FAST_START)
    info, frames, stats = read(makers.truncate(path, 0.5))
    assert "truncated" in info.traits
    assert info.declared_frames == 90
    assert 30 < info.listed_frames < 60
    # The encoder's number of threads moves the cut inside a group of B-frames: a few frames before
    # it may be missing while a later one, stored earlier, is there.
    assert abs(numbers(frames)[-1] - (stats.decoded_frames - 1)) <= 4
    assert stats.coverage == pytest.approx(stats.decoded_frames / 90, abs=0.03)


def test_a_truncated_avi_is_not_silently_complete(tmp_path: Path) -> None:
    rich = {"b": "4000000"}  # frames large beside the header
    path = makers.write_video(tmp_path / "t.avi", codec="mpeg4", ticks=30, draw=noisy, options=rich)
    info, _, stats = read(makers.truncate(path, 0.15))
    assert info.declared_frames == 90
    assert info.listed_frames < 20
    # Older FFmpeg (PyAV 17) loses the frames that its threads hold when the last packet is cut.
    assert stats.coverage == pytest.approx(info.listed_frames / 90, abs=0.05)
    assert stats.coverage < 0.25


def test_a_truncated_mkv_is_measured_against_its_duration(tmp_path: Path) -> None:
    path = makers.write_video(tmp_path / "t.mkv", draw=noisy)
    info, _, stats = read(makers.truncate(path, 0.5))
    assert "truncated" in info.traits
    assert stats.coverage == pytest.approx(info.listed_frames / 90, abs=0.05)


def test_flipped_bytes_cost_their_frames_and_are_counted(tmp_path: Path) -> None:
    path = makers.write_video(tmp_path / "f.mp4", draw=noisy, gop=6)
    makers.flip_bytes_in_mdat(path, start=0.3, count=3)
    info, frames, stats = read(path, 90)
    assert info.listed_frames == 90
    assert stats.corrupt_packets >= 1
    assert 0.5 < stats.coverage < 1.0
    assert len(frames) == round(stats.coverage * 90)
    assert read(path, 90)[2].coverage == stats.coverage  # threads find the same damage every time
    for frame in frames:  # what is given is whole: its picture is the one of its time
        assert makers.read_number(frame.pixels) == round(frame.time_s * 30)


def test_an_overclaiming_time_table_does_not_move_the_sampling(tmp_path: Path) -> None:
    path = makers.claim_frames(makers.write_video(tmp_path / "s.mp4"), 100_000)
    info, frames, stats = read(path)
    assert info.declared_frames == 100_000
    assert "count_mismatch" in info.traits
    assert len(frames) == 32
    assert stats.coverage == 1.0


@pytest.mark.parametrize(
    ("name", "codec", "ticks"),
    [
        ("a.mkv", "libx264", 30000),
        ("a.webm", "libvpx-vp9", 30000),
        ("a.ts", "libx264", 30000),
        ("a.avi", "libx264", 30),
        ("a.mov", "mpeg4", 30),
        ("a.mpg", "mpeg2video", 30),
        ("a.wmv", "wmv2", 30000),
        ("a.flv", "libx264", 30000),
    ],
)
def test_containers_without_a_count_give_every_frame(
    tmp_path: Path, name: str, codec: str, ticks: int
) -> None:
    path = makers.write_video(tmp_path / name, codec=codec, ticks=ticks, frames=40)
    info, frames, stats = read(path, 40)
    assert info.listed_frames == 40
    assert numbers(frames) == list(range(40))
    times = np.array([frame.time_s for frame in frames])
    assert np.diff(times) == pytest.approx(np.full(39, 1 / 30), abs=0.0011)
    assert stats.coverage == 1.0


@pytest.mark.parametrize("codec", ["mjpeg", "png", "libwebp", "bmp"])
def test_pictures_are_one_frame_whatever_their_name(tmp_path: Path, codec: str) -> None:
    info, frames, stats = read(makers.write_image(tmp_path / "p.mp4", codec))
    assert info.kind == "image"
    assert [(frame.time_s, frame.pixels.shape) for frame in frames] == [(0.0, (96, 160, 3))]
    assert numbers(frames) == [5]
    assert stats.coverage == 1.0


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    path = makers.add_exif_orientation(makers.write_image(tmp_path / "e.jpg", "mjpeg"), orientation)
    _, frames, _ = read(path)
    stored = makers.numbered_picture(5)
    shown = {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.transpose(1, 0, 2),
        6: np.rot90(stored, -1),
        7: np.rot90(stored, -1)[::-1],
        8: np.rot90(stored, 1),
    }[orientation]
    if orientation == 7:
        shown = stored[::-1, ::-1].transpose(1, 0, 2)
    assert frames[0].pixels.shape == shown.shape
    assert np.abs(frames[0].pixels.astype(int) - shown).mean() < 6


def test_an_edit_list_hides_frames_and_shifts_times(tmp_path: Path) -> None:
    path = makers.start_edit_at(makers.write_video(tmp_path / "e.mp4"), 1.0)
    info, frames, stats = read(path, 60)
    assert "edit_list" in info.traits
    assert numbers(frames) == list(range(30, 90))
    assert [frame.time_s for frame in frames] == pytest.approx([n / 30 for n in range(60)])
    assert stats.coverage == 1.0


def test_each_frame_has_its_own_size(tmp_path: Path) -> None:
    path = makers.write_size_change(tmp_path / "s.webm", (160, 96), (320, 192))
    _, frames, stats = read(path, 60)
    assert {frame.pixels.shape for frame in frames} == {(96, 160, 3), (192, 320, 3)}
    assert numbers(frames) == list(range(60))
    assert stats.size_changes == 1


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
@pytest.mark.parametrize("mirrored", [False, True])
def test_rotation_is_applied_as_players_do(tmp_path: Path, degrees: int, mirrored: bool) -> None:
    path = makers.write_video(tmp_path / "r.mp4", rotation=degrees, mirrored=mirrored, frames=3)
    info, frames, _ = read(path, 3)
    shown = np.rot90(makers.numbered_picture(1), degrees // 90)  # FFmpeg counts counterclockwise
    if mirrored:
        shown = shown[:, ::-1]
    assert frames[1].pixels.shape == shown.shape == (info.height, info.width, 3)
    assert np.abs(frames[1].pixels.astype(int) - shown).mean() < 8


@pytest.mark.parametrize(("aspect", "width"), [(Fraction(2), 320), (Fraction(1, 2), 80)])
def test_sample_aspect_ratio_scales_the_width(tmp_path: Path, aspect: Fraction, width: int) -> None:
    info, frames, _ = read(makers.write_video(tmp_path / "a.mp4", aspect=aspect, frames=9), 9)
    assert "anamorphic" in info.traits
    assert (info.width, info.height) == (width, 96)
    assert frames[0].pixels.shape == (96, width, 3)
    assert numbers(frames) == list(range(9))
    bounds = frames[0].pixels[80, width // 2 - 8], frames[0].pixels[80, width // 2 + 8]
    assert bounds[0][0] > 150 > bounds[0][2]  # red left of the middle, blue right of it
    assert bounds[1][2] > 150 > bounds[1][0]


def test_hdr_is_mapped_to_sdr(tmp_path: Path) -> None:
    def pq(stream: Any) -> None:
        stream.codec_context.color_trc = 16
        stream.codec_context.color_primaries = 9
        stream.codec_context.colorspace = 9

    options = {"x265-params": "log-level=0:colorprim=9:transfer=16:colormatrix=9"}
    arguments: dict[str, Any] = {"codec": "libx265", "pix_fmt": "yuv420p10le", "options": options}
    path = makers.write_video(tmp_path / "h.mp4", frames=9, prepare=pq, **arguments)
    info, frames, _ = read(path, 9)
    assert {"hdr", "high_bit_depth"} <= set(info.traits)
    assert numbers(frames) == list(range(9))
    # Grey bars of level 220 and 30 of 255 are 3000 and 1 cd/m2 in PQ: white and near black.
    bars = frames[8].pixels[10:40]
    assert bars.max() > 240
    assert 0 < bars.min() < 40


def test_ten_bit_material_is_read_and_named(tmp_path: Path) -> None:
    info, frames, _ = read(
        makers.write_video(tmp_path / "t.mp4", pix_fmt="yuv420p10le", frames=9), 9
    )
    assert info.traits == ("high_bit_depth",)
    assert numbers(frames) == list(range(9))


def test_times_come_from_timestamps_on_a_variable_rate_clip(tmp_path: Path) -> None:
    times = np.cumsum(np.tile([500, 1500, 1000, 3000], 15))[:60] - 500
    path = makers.write_video(tmp_path / "v.mp4", times=times.tolist(), frames=60)
    positions = np.linspace(0, 3, 200)
    with open_video(path, limits=Limits()) as video:
        assert "variable_frame_rate" in video.info.traits
        frames = list(video.frames(positions))
    expected = np.unique(np.clip(np.searchsorted(times / 30000, positions, "right") - 1, 0, 59))
    assert numbers(frames) == expected.tolist()
    assert [frame.time_s for frame in frames] == pytest.approx((times / 30000)[expected], abs=1e-4)


@pytest.mark.parametrize("name", ["a.mp4", "a.wav"])
def test_sound_alone_is_no_video_stream(tmp_path: Path, name: str) -> None:
    assert label_of(makers.write_audio(tmp_path / name)) == "no_video_stream"


@pytest.mark.parametrize(
    "content",
    [b"", bytes(1000), np.random.default_rng(0).bytes(5000), b"hello, world\n" * 9, b"%PDF-1.7\n"],
    ids=["empty", "zeros", "random", "text", "pdf"],
)
def test_what_is_no_medium_is_undecodable(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "no.mp4"
    path.write_bytes(content)
    assert label_of(path) == "undecodable"


def test_a_missing_moov_is_undecodable(tmp_path: Path) -> None:
    path = makers.truncate(makers.write_video(tmp_path / "m.mp4", frames=20), 0.5)
    assert label_of(path) == "undecodable"


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    assert label_of(tmp_path / "nowhere.mp4") == "undecodable"
    assert label_of(tmp_path) == "undecodable"


@pytest.mark.parametrize("name", ["list.mp4", "list.m3u8"])
@pytest.mark.parametrize("decoder", ["pyav", "decord"])
@pytest.mark.parametrize(
    "text",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nfile://{}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile {}\n",
        "file '{}'\n",
        '<?xml version="1.0"?>\n<MPD><BaseURL>{}</BaseURL></MPD>',
        "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\n",
        "[playlist]\nFile1={}\n",
    ],
    ids=["hls", "ffconcat", "concat", "dash", "sdp", "pls"],
)
def test_playlists_are_refused(tmp_path: Path, name: str, decoder: str, text: str) -> None:
    target = tmp_path / "secret.mp4"
    path = tmp_path / name
    path.write_text(text.format(target))
    assert label_of(path, decoder) == "unsupported"


def test_eight_k_is_scaled_down_while_decoding(tmp_path: Path) -> None:
    path = makers.write_video(
        tmp_path / "8k.mp4", frames=2, size=(4096, 2304), options={"preset": "ultrafast"}
    )
    limits = Limits(delivered_pixels=640 * 360)
    info, frames, _ = read(path, 2, limits=limits)
    assert "scaled_down" in info.traits
    assert (info.width, info.height) == (640, 360)
    assert frames[0].pixels.shape == (360, 640, 3)
    assert numbers(frames) == [0, 1]


@pytest.mark.parametrize("decoder", ["pyav", "decord"])
def test_a_file_name_is_only_a_name(tmp_path: Path, decoder: str) -> None:
    path = makers.write_video(tmp_path / "-rf name;|$(x) é.mp4", frames=9)
    _, frames, _ = read(path, 9, decoder)
    assert numbers(frames) == list(range(9))


def test_cover_art_is_no_video(tmp_path: Path) -> None:
    import av

    cover = makers.write_image(tmp_path / "c.jpg", "mjpeg").read_bytes()
    path = tmp_path / "song.mp4"
    makers.write_audio(path)
    with av.open(str(tmp_path / "cover.mp4"), "w") as out, av.open(str(path)) as source:
        sound: Any = out.add_stream_from_template(source.streams.audio[0])
        art: Any = out.add_stream("mjpeg", rate=1)
        art.width, art.height, art.pix_fmt = 160, 96, "yuvj444p"
        art.disposition = av.stream.Disposition.attached_pic
        for packet in source.demux(audio=0):
            if packet.dts is not None:
                packet.stream = sound
                out.mux(packet)
        picture = av.Packet(cover)
        picture.stream, picture.pts, picture.dts = art, 0, 0
        out.mux(picture)
    assert label_of(tmp_path / "cover.mp4") == "no_video_stream"


def test_colours_follow_the_matrix_the_file_names(tmp_path: Path) -> None:
    def bt709(stream: Any) -> None:
        stream.codec_context.colorspace = 1

    named = makers.write_video(tmp_path / "a.mp4", frames=2, prepare=bt709)
    plain = makers.write_video(tmp_path / "b.mp4", frames=2)
    (_, first, _), (_, second, _) = read(named, 2), read(plain, 2)
    drawn = makers.numbered_picture(0)[60:90, 10:70].astype(int)
    # The encoder's pictures are BT.601 both times: only the file that says nothing gives them back.
    assert np.abs(second[0].pixels[60:90, 10:70] - drawn).mean() < 5
    assert np.abs(first[0].pixels[60:90, 10:70] - drawn).mean() > 5


@pytest.mark.parametrize("name", ["open.mp4", "long.ts"])
def test_long_material_read_by_seeking_gives_the_same_frames(tmp_path: Path, name: str) -> None:
    open_gop = {"x264-params": "open-gop=1:bframes=3", "preset": "ultrafast"}
    path = makers.write_video(tmp_path / name, frames=1600, gop=60, options=open_gop)
    info, frames, stats = read(path, 9)
    assert [makers.read_number(frame.pixels) for frame in frames] == [
        round((frame.time_s - info.first_s) * 30) % 1024 for frame in frames
    ]
    assert (len(frames), stats.coverage) == (9, 1.0)
    assert stats.decoded_frames < 1200  # not all of them


def test_a_stream_cut_in_the_middle_of_a_gop_starts_at_its_first_key_frame(tmp_path: Path) -> None:
    path = makers.write_video(tmp_path / "a.ts", frames=120, gop=50)
    data = path.read_bytes()
    path.write_bytes(data[188 * (len(data) // 188 // 4) :])
    _, frames, stats = read(path, 60)
    shown = numbers(frames)
    assert shown[-1] == 119
    steps = np.diff([frame.time_s for frame in frames]) * 30
    assert np.diff(shown) == pytest.approx(steps, abs=0.01)
    assert 0.6 < stats.coverage < 1.0  # the frames before that key frame are lost
