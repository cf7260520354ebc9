"""Annotated videos: what is drawn, what is kept, and what happens to broken inputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from makers import (
    Picture,
    flip_bytes_in_mdat,
    read_number,
    truncate,
    write_image,
    write_size_change,
    write_video,
)
from makers_report import FakeScanner, judged, person
from typer.testing import CliRunner

import forensics
from forensics.config import Limits, ScanConfig
from forensics.errors import ConfigError, MediaError
from forensics.findings import Report
from forensics.report.overlay import Track, annotate, write_overlay
from forensics.video import VideoSession, open_video, sound

SIZE = (320, 240)
CONFIG = ScanConfig()


def about(path: Path) -> Report:
    """A report on a real clip without people: only words are drawn, at the edges."""
    with open_video(path, limits=Limits()) as session:
        report = judged(str(path), info=session.info)
    return dataclasses.replace(
        report,
        verdict=dataclasses.replace(
            report.verdict, label="no_face", probability=None, thresholds=None, people=()
        ),
    )


def frames_of(path: Path) -> list[tuple[float, Picture]]:
    with av.open(str(path)) as container:
        return [
            (float(frame.time or 0), frame.to_ndarray(format="rgb24"))
            for frame in container.decode(video=0)
        ]


def sound_of(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(audio=0) if packet.size]


def only(folder: Path, *names: str) -> bool:
    return sorted(path.name for path in folder.iterdir()) == sorted(names)


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
def test_every_frame_is_there_at_its_own_time_and_the_sound_is_the_same(
    tmp_path: Path, suffix: str
) -> None:
    times = [0, 1000, 3000, 4000, 9000, 10000, 15000, 30000, 31000, 32000]
    clip = write_video(tmp_path / "in.mp4", frames=10, size=SIZE, times=times, audio=True)
    out = tmp_path / f"out.{suffix}"
    write_overlay(out, about(clip), CONFIG)
    made = frames_of(out)
    assert [read_number(picture) for _, picture in made] == list(range(10))
    # Matroska knows no time before 0, where AAC begins: there both begin 1024 samples later.
    start = 1024 / 48000 if suffix == "mkv" else 0
    assert [time - start for time, _ in made] == pytest.approx([t / 30000 for t in times], abs=2e-3)
    assert sound_of(out) == sound_of(clip)
    assert only(tmp_path, "in.mp4", out.name)


@pytest.mark.parametrize(("rotation", "size"), [(90, (240, 320)), (180, (320, 240))])
def test_a_turned_video_is_annotated_upright(
    tmp_path: Path, rotation: int, size: tuple[int, int]
) -> None:
    clip = write_video(tmp_path / "in.mp4", frames=3, size=SIZE, rotation=rotation)
    write_overlay(tmp_path / "out.mp4", about(clip), CONFIG)
    shown = frames_of(tmp_path / "out.mp4")[1][1]
    assert shown.shape == (size[1], size[0], 3)
    with open_video(clip, limits=Limits()) as session:
        upright = list(session.every_frame())[1].pixels
    middle = (slice(60, -60), slice(60, -60))
    assert np.abs(shown[middle].astype(int) - upright[middle]).mean() < 4


def test_odd_sides_and_changing_sizes_are_fitted(tmp_path: Path) -> None:
    odd = write_video(tmp_path / "odd.mkv", frames=3, size=(321, 239), pix_fmt="yuv444p")
    write_overlay(tmp_path / "odd.mp4", about(odd), CONFIG)
    assert frames_of(tmp_path / "odd.mp4")[0][1].shape == (240, 322, 3)
    changing = write_size_change(tmp_path / "in.webm", (320, 240), (240, 320))
    write_overlay(tmp_path / "changing.mp4", about(changing), CONFIG)
    assert {picture.shape for _, picture in frames_of(tmp_path / "changing.mp4")} == {(240, 320, 3)}


def test_boxes_numbers_and_the_score_so_far_are_drawn_where_the_face_is() -> None:
    report = judged()
    seen = person([0.1, 0.1, 0.99, 0.99], track_id=7)  # at 0, 0.5, 1 and 1.5 s
    boxes = np.array([[100, 100, 200, 200]] * 2 + [[300, 100, 400, 200]] * 2, np.float32)
    track = dataclasses.replace(seen.score.track, boxes=boxes)
    seen = dataclasses.replace(seen, score=dataclasses.replace(seen.score, track=track))
    tracks = [Track(seen)]
    grey = np.full((240, 320, 3), 128, np.uint8)
    early = annotate(grey, 0.25, report, tracks)
    assert early[150, 100].tolist() == [34, 148, 68]  # green: below the threshold for real
    assert np.array_equal(early[150, 110:190], grey[150, 110:190])
    halfway = tracks[0].at(0.75)
    assert halfway is not None
    assert halfway.box.tolist() == [200, 100, 300, 200]
    late = tracks[0].at(1.5)
    assert late is not None
    # Mean of log-odds: two of ln(1/9), two of ln(99).
    assert late.so_far == pytest.approx(1 / (1 + np.exp(-(np.log(1 / 9) + np.log(99)) / 2)))
    assert tracks[0].at(9.0) is None
    assert np.array_equal(annotate(grey, 9.0, report, tracks), annotate(grey, 9.0, report, []))
    assert (grey == 128).all()


def test_a_face_that_was_away_is_not_followed_through_the_gap() -> None:
    seen = person([0.5, 0.5, 0.5, 0.5])
    times = np.array([0.0, 0.5, 1.0, 8.0])
    track = dataclasses.replace(seen.score.track, times_s=times)
    made = Track(dataclasses.replace(seen, score=dataclasses.replace(seen.score, track=track)))
    assert [made.at(time) is not None for time in (0.7, 1.6, 4.0, 7.5, 8.5)] == [
        True, True, False, True, True,
    ]  # fmt: skip


def with_pcm(source: Path, target: Path) -> Path:
    """The same video with sound that MP4 does not take."""
    with av.open(str(source)) as made, av.open(str(target), "w") as out:
        video: Any = out.add_stream_from_template(made.streams.video[0])
        pcm: Any = out.add_stream("pcm_u8", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.full((1, 800), 128, np.uint8), "u8", "mono")
        frame.sample_rate, frame.pts = 8000, 0
        out.mux(pcm.encode(frame))
        for packet in made.demux(video=0):
            if packet.dts is not None:
                packet.stream = video
                out.mux(packet)
    return target


def test_sound_that_the_container_does_not_take_is_told_before_the_work(tmp_path: Path) -> None:
    plain = write_video(tmp_path / "plain.mp4", frames=5, size=SIZE)
    clip = with_pcm(plain, tmp_path / "in.mkv")
    with pytest.raises(MediaError, match=r"cannot be copied into mp4: name the .* \.mkv"):
        write_overlay(tmp_path / "out.mp4", about(clip), CONFIG)
    assert only(tmp_path, "plain.mp4", "in.mkv")
    write_overlay(tmp_path / "out.mkv", about(clip), CONFIG)
    assert sound_of(tmp_path / "out.mkv") == sound_of(clip)


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_a_damaged_video_gives_what_can_be_seen_of_it(tmp_path: Path, damage: str) -> None:
    clip = write_video(
        tmp_path / "in.mp4", frames=60, size=SIZE, audio=True,
        container_options={"movflags": "faststart"},
    )  # fmt: skip
    if damage == "cut":
        truncate(clip, 0.6)
    else:
        flip_bytes_in_mdat(clip, count=20)
    write_overlay(tmp_path / "out.mp4", about(clip), CONFIG)
    made = frames_of(tmp_path / "out.mp4")
    assert 5 < len(made) <= 60
    assert only(tmp_path, "in.mp4", "out.mp4")


def test_a_decoder_that_dies_half_way_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = write_video(tmp_path / "in.mp4", frames=20, size=SIZE)
    (tmp_path / "out.mp4").write_text("old")
    whole = VideoSession.every_frame

    def dying(self: VideoSession) -> Iterator[Any]:
        for frame in whole(self):
            if frame.index == 7:
                raise MediaError("in.mp4: the decoder crashed (signal 11)", label="undecodable")
            yield frame

    monkeypatch.setattr(VideoSession, "every_frame", dying)
    with pytest.raises(MediaError, match="crashed"):
        write_overlay(tmp_path / "out.mp4", about(clip), CONFIG)
    assert (tmp_path / "out.mp4").read_text() == "old"
    assert only(tmp_path, "in.mp4", "out.mp4")


def test_a_child_that_dies_over_the_sound_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = write_video(tmp_path / "in.mp4", frames=3, size=SIZE, audio=True)
    monkeypatch.setattr(sound, "BOOTSTRAP", "import os; os.kill(os.getpid(), 11)")
    with pytest.raises(MediaError, match="copying the sound ended with status -11"):
        write_overlay(tmp_path / "out.mp4", about(clip), CONFIG)
    assert only(tmp_path, "in.mp4")


def test_what_cannot_be_annotated_says_so(tmp_path: Path) -> None:
    picture = write_image(tmp_path / "p.png", "png")
    with pytest.raises(MediaError, match="only videos"):
        write_overlay(tmp_path / "out.mp4", about(picture), CONFIG)
    clip = write_video(tmp_path / "in.mp4", frames=3)
    with pytest.raises(ConfigError, match="is the video itself"):
        write_overlay(clip, about(clip), CONFIG)
    with pytest.raises(ConfigError, match="a name that ends in"):
        write_overlay(tmp_path / "out.gif", about(clip), CONFIG)
    with pytest.raises(MediaError, match="nothing to annotate"):
        write_overlay(tmp_path / "out.mp4", dataclasses.replace(about(clip), info=None), CONFIG)


def test_on_the_command_line_one_video_is_annotated_and_failures_are_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(vars(forensics), "Scanner", FakeScanner)
    monkeypatch.chdir(tmp_path)
    (script,) = metadata.entry_points(group="console_scripts", name="deepfake")

    def scan(*arguments: str) -> tuple[int, str, str]:
        result = CliRunner().invoke(script.load(), ["scan", *arguments])
        return result.exit_code, result.stdout, result.stderr

    write_video(tmp_path / "real.mp4", frames=3, size=SIZE)
    assert scan("real.mp4", "--overlay", "out.mp4")[0] == 0
    assert len(frames_of(tmp_path / "out.mp4")) == 3
    (tmp_path / "no.mp4").touch()
    code, out, err = scan("no.mp4", "--overlay", "out2.mp4")
    assert code == 2
    assert "no_face" in out
    assert err == (
        "deepfake: no.mp4: nothing to annotate: no frame was decoded; no annotated video was "
        "written\n"
    )
    for arguments in (
        ("real.mp4", "no.mp4", "--overlay", "o.mp4"),
        ("real.mp4", "--overlay", "o.txt"),
    ):
        code, out, err = scan(*arguments)
        assert (code, out, len(err.splitlines())) == (2, "", 1)
