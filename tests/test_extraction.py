"""Crops out of videos: cut as a scan cuts, nothing lost, nothing twice, whatever is killed."""

from __future__ import annotations

import csv
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from makers import read_number, truncate, write_audio, write_video
from makers_datasets import write_tar
from makers_extract import (
    FACES_XYXY,
    SIZE,
    DeadlyFaces,
    DrawnFaces,
    black,
    content,
    one_face,
    write_clips,
    write_sequences,
)

from forensics.config import ExtractionConfig, Limits, SamplingConfig
from forensics.crops import square_box
from forensics.datasets import extraction
from forensics.datasets.extraction import Summary, extract, plan
from forensics.datasets.manifest import Sample
from forensics.datasets.manifest_file import read_manifest, write_manifest
from forensics.datasets.shards import CropStore
from forensics.errors import ForensicsError, ManifestError
from forensics.observations import observe
from forensics.sampling import sample_times
from forensics.structures import Face
from forensics.tracking import link
from forensics.video import open_video

CONFIG = ExtractionConfig(frames=4, size=64)


@pytest.fixture(autouse=True)
def small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extraction, "_UNIT_CROPS", (8, 8))


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manifest of six clips; the fifth shows no face."""
    return write_clips(tmp_path_factory.mktemp("clips") / "in", 6)


@pytest.fixture(scope="module")
def cut_clips(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Their crops."""
    out = tmp_path_factory.mktemp("cut") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extraction, "_UNIT_CROPS", (8, 8))
        run(clips, out, ExtractionConfig(frames=4, size=96, picture="png"))
    return out


@pytest.fixture(scope="module")
def sequences(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manifest of twelve folders of pictures."""
    return write_sequences(tmp_path_factory.mktemp("sequences") / "in", 12)


def run(manifest: Path, out: Path, config: ExtractionConfig = CONFIG, workers: int = 1) -> Summary:
    return extract(
        manifest,
        out,
        config,
        workers=workers,
        on_progress=lambda *_: None,
        make_detector=DrawnFaces,
    )


def test_every_face_of_every_sampled_frame_is_cut_with_its_facts(cut_clips: Path) -> None:
    store = CropStore.open(cut_clips)
    assert len(store) == 2 * 8 + 3 * 4  # clips 0 and 2 show two people, 1, 3 and 5 one
    for i in range(len(store)):
        pixels, facts = store.read(i)
        face = np.array(FACES_XYXY[0 if store.rows.frame_xyxy[i][0] < 80 else 1], np.float32)
        window = square_box(face, 1.8, (0, 0, *SIZE))
        side = window[2] - window[0]
        assert pixels.shape == (min(96, side), min(96, side), 3)
        assert np.array_equal(store.rows.frame_xyxy[i], face)
        scale = len(pixels) / side
        box = (face - np.tile(window[:2], 2)) * scale
        assert np.abs(facts.box_xyxy - box).max() < 0.01
        # The landmarks lie in the box where the detector put them in the frame.
        relative = (facts.landmarks - box[:2]) / (box[2:] - box[:2])
        assert np.abs(relative[0] - [0.3, 0.35]).max() < 0.01
        assert facts.label == int(store.names["method"][store.rows.method[i]] == "paint")
    first = store.where(video="000.mp4")
    assert store.rows.track[first].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert np.allclose(store.rows.time_s[first][:4], np.linspace(0, 5 / 30, 4), atol=1 / 30)


def test_the_person_seen_most_is_told_from_others(cut_clips: Path) -> None:
    store = CropStore.open(cut_clips)
    for video in ("000.mp4", "001.mp4"):
        rows = store.where(video=video)
        assert store.rows.main[rows].sum() == 4
        assert len(set(store.rows.track[rows][store.rows.main[rows]].tolist())) == 1


def test_box_and_landmarks_shrink_with_the_crop(clips: Path, tmp_path: Path) -> None:
    write_manifest(read_manifest(clips)[1:2], clips.with_name("shrunk.csv"))
    run(clips.with_name("shrunk.csv"), tmp_path / "out", ExtractionConfig(frames=1, size=48))
    pixels, facts = CropStore.open(tmp_path / "out").read(0)
    assert pixels.shape == (48, 48, 3)
    assert np.allclose(facts.box_xyxy, np.array([24, 20, 64, 76]) / 2, atol=0.01)
    relative = (facts.landmarks - facts.box_xyxy[:2]) / [20, 28]
    assert np.allclose(relative[[0, 4]], [[0.3, 0.35], [0.65, 0.75]], atol=0.01)


def test_crops_show_the_pixels_of_their_frame(cut_clips: Path) -> None:
    store = CropStore.open(cut_clips)
    pixels, facts = store.read(int(store.where(video="001.mp4")[0]))
    x0, y0, x1, y1 = (round(float(value)) for value in facts.box_xyxy)
    inside = pixels[y0:y1, x0:x1]
    expected = one_face(10, *SIZE)[20:76, 24:64]
    assert inside.shape == expected.shape
    assert np.abs(inside.astype(int) - expected).mean() < 6


def test_tracks_and_boxes_are_those_of_a_scan(cut_clips: Path, clips: Path) -> None:
    """The same stages by hand, in the order in which the pipeline runs them."""
    with open_video(clips.parent / "002.mp4", limits=Limits()) as session:
        info = session.info
        times = sample_times(
            SamplingConfig(frames=4), info.first_s, info.last_s, info.listed_frames
        )
        frames = list(session.frames(times))
    faces = DrawnFaces().detect([frame.pixels for frame in frames])
    tracks = link(observe(frames, faces, margin=1.3, size=224))
    store = CropStore.open(cut_clips)
    rows = store.where(video="002.mp4")
    for track in tracks:
        mine = rows[store.rows.track[rows] == track.id]
        assert np.array_equal(store.rows.frame_xyxy[mine], track.boxes)
        assert np.allclose(store.rows.time_s[mine], track.times_s)


def test_rows_without_faces_are_listed_not_dropped(cut_clips: Path) -> None:
    with (cut_clips / "skipped.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    expected = {"row": "5", "path": "004.mp4", "reason": "no_face"}
    assert rows == [{**expected, "detail": "no face in 4 frames"}]


def test_a_small_face_is_not_enlarged_and_jpeg_keeps_its_colours(
    clips: Path, tmp_path: Path
) -> None:
    write_manifest(read_manifest(clips)[1:2], clips.with_name("one.csv"))
    run(clips.with_name("one.csv"), tmp_path / "out", ExtractionConfig(frames=1, size=320))
    pixels, facts = CropStore.open(tmp_path / "out").read(0)
    assert pixels.shape == (96, 96, 3)  # the whole height: 1.8 x 56 px is more than there is
    y = round(float(facts.box_xyxy[3])) - 6
    # A red of one pixel beside another colour survives only without chroma subsampling.
    assert np.abs(pixels[y, 10].astype(int) - [200, 30, 30]).max() < 20


def test_odd_media_end_in_crops_or_in_a_reason(tmp_path: Path) -> None:
    write_video(tmp_path / "one_frame.MP4", frames=1, draw=one_face)
    write_audio(tmp_path / "sound.mp4")
    (tmp_path / "text.mp4").write_text("not a video")
    truncate(write_video(tmp_path / "half.avi", codec="mpeg4", draw=one_face), 0.5)
    write_video(tmp_path / "dark.mp4", frames=3, draw=black)
    names = ["one_frame.MP4", "sound.mp4", "text.mp4", "half.avi", "dark.mp4"]
    samples = [Sample(path=name, label="real", kind="video", dataset="odd") for name in names]
    write_manifest(samples, tmp_path / "m.csv")
    summary = run(tmp_path / "m.csv", tmp_path / "out")
    assert dict(summary.skipped) == {"no_face": 1, "no_video_stream": 1, "undecodable": 1}
    store = CropStore.open(tmp_path / "out")
    assert len(store.where(video="one_frame.MP4")) == 1
    assert len(store.where(video="half.avi")) >= 1
    index = sorted((tmp_path / "out/index").iterdir())
    lines = [json.loads(line) for file in index for line in file.read_text().splitlines()]
    half = next(line for line in lines if line["path"] == "half.avi")
    assert half["coverage"] < 0.9
    assert str(tmp_path) not in "".join(line["detail"] for line in lines)


def test_what_is_cut_already_passes_through_byte_for_byte(tmp_path: Path) -> None:
    def write(path: Path, number: int, options: tuple[int, ...] = ()) -> bytes:
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), one_face(number, *SIZE)[:, :, ::-1], options)
        return path.read_bytes()

    jpeg = write(tmp_path / "a.jpg", 1, (cv2.IMWRITE_JPEG_QUALITY, 60))
    write(tmp_path / "b.webp", 2, (cv2.IMWRITE_WEBP_QUALITY, 101))
    sequence = {f"{n}.png": write(tmp_path / f"seq/{n}.png", n) for n in range(3, 13)}
    tar = write_tar(
        tmp_path / "t.tar.gz", {f"7/fake/1/{name}": data for name, data in sequence.items()}
    )
    cv2.imwrite(str(tmp_path / "huge.jpg"), np.zeros((16, 2100, 3), np.uint8))
    (tmp_path / "broken.png").write_bytes(b"\x89PNG broken")
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pipe.png")  # whoever opens it waits for ever
    write_manifest(
        [
            Sample(path="a.jpg", label="real", kind="crop", dataset="d"),
            Sample(path="b.webp", label="fake", kind="crop", dataset="d", method="m"),
            Sample(path="seq", label="real", kind="sequence", dataset="d"),
            Sample(path=tar.name, label="fake", kind="sequence", dataset="d", member="7/fake/1"),
            Sample(path="huge.jpg", label="real", kind="crop", dataset="d"),
            Sample(path="broken.png", label="real", kind="crop", dataset="d"),
            Sample(path="empty", label="real", kind="sequence", dataset="d"),
            Sample(path="pipe.png", label="real", kind="crop", dataset="d"),
        ],
        tmp_path / "m.csv",
    )
    summary = run(tmp_path / "m.csv", tmp_path / "out")
    assert dict(summary.skipped) == {"limit_exceeded": 1, "undecodable": 3}
    store = CropStore.open(tmp_path / "out")
    assert store.encoded(int(store.where(video="a.jpg")[0])) == jpeg
    webp = store.where(video="b.webp")
    assert store.encoded(int(webp[0]))[:4] == b"\x89PNG"
    assert np.abs(store.read(int(webp[0]))[0].astype(int) - one_face(2, *SIZE)).max() <= 3
    for video in ("seq", "t.tar.gz/7/fake/1"):
        crops = store.where(video=video)
        # Four of ten, evenly spaced; 10.png comes after 9.png.
        assert store.rows.time_s[crops].tolist() == [0, 3, 6, 9]
        assert store.encoded(int(crops[3])) == sequence["12.png"]
        assert np.array_equal(store.rows.box_xyxy[crops[0]], np.float32(FACES_XYXY[0]))
        assert np.isfinite(store.rows.landmarks[crops]).all()


def test_a_crop_without_a_found_face_is_kept_whole(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((50, 40, 3), np.uint8))
    sample = Sample(path="a.png", label="real", kind="crop", dataset="d")
    write_manifest([sample], tmp_path / "m.csv")
    run(tmp_path / "m.csv", tmp_path / "out")
    _, facts = CropStore.open(tmp_path / "out").read(0)
    assert facts.box_xyxy.tolist() == [0, 0, 40, 50]
    assert np.isnan(facts.landmarks).all()


def test_the_files_do_not_depend_on_the_number_of_workers(sequences: Path, tmp_path: Path) -> None:
    run(sequences, tmp_path / "one")
    run(sequences, tmp_path / "two", workers=2)
    assert content(tmp_path / "one") == content(tmp_path / "two")


def test_a_second_run_does_nothing_and_a_third_mends_what_was_removed(
    sequences: Path, tmp_path: Path
) -> None:
    assert run(sequences, tmp_path / "out").cut == 12
    before = content(tmp_path / "out")
    assert run(sequences, tmp_path / "out").cut == 0
    (tmp_path / "out/index/000001.jsonl").unlink()
    assert run(sequences, tmp_path / "out").cut == 2
    (tmp_path / "out/columns/offset.npy").unlink()
    assert run(sequences, tmp_path / "out").cut == 0
    assert content(tmp_path / "out") == before


def start(manifest: Path, out: Path, workers: int) -> subprocess.Popen[str]:
    code = "import makers_extract; from forensics.datasets import extraction; "
    code += "extraction._UNIT_CROPS = (8, 8); makers_extract.main()"
    return subprocess.Popen(
        [sys.executable, "-c", code, str(manifest), str(out), str(workers)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def kill_and_resume(manifest: Path, tmp_path: Path, workers: int, kills: int, span: float) -> None:
    run(manifest, tmp_path / "whole")
    out, random_ = tmp_path / "killed", random.Random(workers)
    for _ in range(kills):
        process = start(manifest, out, workers)
        assert process.stdout is not None
        # The first line comes when the work begins: the moments lie within it.
        process.stdout.readline()
        time.sleep(random_.uniform(0, span))
        process.kill()
        process.wait()
        process.stdout.close()
    process = start(manifest, out, workers)
    process.communicate(timeout=120)
    assert process.returncode == 0
    assert content(out) == content(tmp_path / "whole")


def test_kills_at_random_moments_lose_nothing_and_repeat_nothing(
    sequences: Path, tmp_path: Path
) -> None:
    kill_and_resume(sequences, tmp_path, workers=1, kills=2, span=0.4)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_many_kills_of_many_workers_on_videos(tmp_path: Path, workers: int) -> None:
    clips = write_clips(tmp_path / "in", 16)
    kill_and_resume(clips, tmp_path, workers, kills=8, span=4.0)


def test_workers_do_not_outlive_their_parent(sequences: Path, tmp_path: Path) -> None:
    process = start(sequences, tmp_path / "out", 2)
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(0.5)
    process.kill()
    process.wait()
    process.stdout.close()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            os.killpg(process.pid, 0)  # its session: workers and their decoders
        except ProcessLookupError:
            return
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    pytest.fail("a worker lives on")


def test_a_killed_worker_is_one_sentence_that_says_how_to_go_on(
    sequences: Path, tmp_path: Path
) -> None:
    with pytest.raises(ForensicsError, match=r"killed, .* run the same command again, with fewer"):
        extract(
            sequences,
            tmp_path / "out",
            CONFIG,
            workers=2,
            on_progress=lambda *_: None,
            make_detector=DeadlyFaces,
        )
    assert run(sequences, tmp_path / "out").crops == 48


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_keeps_finished_shards_and_says_how_to_go_on(
    sequences: Path, tmp_path: Path, workers: int
) -> None:
    # A file may not grow beyond this: what a full disk is to a writer.
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(ForensicsError, match="File too large; finished shards are kept"):
            run(sequences, tmp_path / "out", workers=workers)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list((tmp_path / "out/shards").glob("*.part"))
    run(sequences, tmp_path / "out")
    run(sequences, tmp_path / "whole")
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_one_file_that_breaks_the_code_does_not_stop_the_others(
    sequences: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = DrawnFaces.detect

    def detect(self: DrawnFaces, frames: list[np.ndarray]) -> list[list[Face]]:
        if read_number(frames[0]) == 16:  # of the third row
            raise ValueError("a face\nwith no\nsides")
        return original(self, frames)

    monkeypatch.setattr(DrawnFaces, "detect", detect)
    summary = run(sequences, tmp_path / "out")
    assert dict(summary.skipped) == {"failed": 1}
    with (tmp_path / "out/skipped.csv").open(newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert (row["row"], row["reason"]) == ("3", "failed")
    assert row["detail"] == "unexpected ValueError: a face with no sides; please report this"


def test_no_memory_stops_the_run_and_says_how_to_go_on(
    sequences: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def detect(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(DrawnFaces, "detect", detect)
        with pytest.raises(ForensicsError, match="memory runs out; finished shards are kept"):
            run(sequences, tmp_path / "out")
    assert run(sequences, tmp_path / "out").crops == 48


def test_a_disk_that_fills_up_under_the_columns_is_an_error_and_not_a_death(
    sequences: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        with pytest.raises(ForensicsError, match="No space left on device; finished shards"):
            run(sequences, tmp_path / "out")
    with pytest.raises(ManifestError, match="no finished extraction"):
        CropStore.open(tmp_path / "out")
    assert run(sequences, tmp_path / "out").cut == 0
    assert len(CropStore.open(tmp_path / "out")) == 48


def test_other_settings_or_another_manifest_are_refused(sequences: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(sequences, out)
    with pytest.raises(ManifestError, match=r"crops with margin 1.8, now 1.5; give another"):
        run(sequences, out, ExtractionConfig(frames=4, size=64, margin=1.5))
    write_manifest(read_manifest(sequences)[:5], sequences.with_name("less.csv"))
    with pytest.raises(ManifestError, match="crops of another manifest"):
        run(sequences.with_name("less.csv"), out)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").touch()
    with pytest.raises(ManifestError, match="holds other files"):
        run(sequences, tmp_path / "mine")
    (out / "extraction.json").write_text("{", encoding="utf-8")
    with pytest.raises(ManifestError, match=r"extraction.json: damaged"):
        run(sequences, out)


def test_two_runs_do_not_write_to_one_folder(sequences: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with (
        extraction._locked(tmp_path / "out"),
        pytest.raises(ForensicsError, match="another extraction is writing there"),
    ):
        run(sequences, tmp_path / "out")


def test_a_row_without_a_file_is_named_before_anything_is_cut(
    sequences: Path, tmp_path: Path
) -> None:
    rows = read_manifest(sequences)
    lost = [Sample(path=f"lost{n}.mp4", label="real", kind="video", dataset="d") for n in range(5)]
    write_manifest([*rows, *lost], sequences.with_name("lost.csv"))
    with pytest.raises(ManifestError, match=r"row 13 lost0.mp4; .*; and 2 more; `deepfake data"):
        run(sequences.with_name("lost.csv"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_units_cover_every_row_once_and_share_the_work() -> None:
    kinds = ["video", "crop", "crop", "sequence"] * 500
    samples = [
        Sample(path=f"{n}", label="real", kind=kind, dataset="d")  # type: ignore[arg-type]
        for n, kind in enumerate(kinds)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extraction, "_UNIT_CROPS", (256, 4096))
        units = plan(samples, ExtractionConfig())
    assert [row for unit in units for row in unit] == list(range(2000))
    assert 60 <= len(units) <= 66


def test_progress_counts_rows_from_where_it_stood(sequences: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    run(sequences, tmp_path / "out")
    (tmp_path / "out/index/000002.jsonl").unlink()
    extract(
        sequences,
        tmp_path / "out",
        CONFIG,
        workers=1,
        on_progress=lambda done, total: seen.append((done, total)),
        make_detector=DrawnFaces,
    )
    assert seen == [(10, 12), (11, 12), (12, 12)]
