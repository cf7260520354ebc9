"""The whole river, on clips drawn here, with a face detector that looks for drawn squares."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import jsonschema
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import forensics
from forensics import Scanner, evidence, pipeline
from forensics.config import FacesConfig, Limits, SamplingConfig, ScanConfig
from forensics.crops import face_crop
from forensics.errors import (
    CheckpointError,
    ConfigError,
    ForensicsError,
    MediaError,
    ScanCancelled,
)
from forensics.findings import Report
from forensics.preprocess import normalise
from forensics.report import schema, to_document
from forensics.structures import DecodeStats, Face, Frame, VideoInfo
from forensics.video import Cancellation, isolation, open_video

SIDE = 160
RED, BLUE = (230, 30, 30), (30, 30, 230)


class SquareDetector:
    """Calls every red or blue square a face; remembers how many frames it was given at once."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def detect(self, frames: Sequence[NDArray[np.uint8]]) -> list[list[Face]]:
        self.batches.append(len(frames))
        return [
            [face for channel in (0, 2) if (face := self._square(frame, channel)) is not None]
            for frame in frames
        ]

    def _square(self, frame: NDArray[np.uint8], channel: int) -> Face | None:
        others = [other for other in range(3) if other != channel]
        hit = (frame[..., channel] > 180) & (frame[..., others].max(axis=2) < 90)
        ys, xs = np.nonzero(hit)
        if len(ys) < 100:
            return None
        box = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], np.float32)
        return Face(xyxy=box, landmarks=np.tile(box[:2], (5, 1)), probability=0.99)


def draw(squares: Sequence[tuple[tuple[int, int], tuple[int, int, int]]]) -> NDArray[np.uint8]:
    pixels = np.full((SIDE, SIDE, 3), 110, dtype=np.uint8)
    for (x, y), colour in squares:
        pixels[y : y + 40, x : x + 40] = colour
    return pixels


def write_clip(path: Path, pictures: Sequence[NDArray[np.uint8]], rate: int = 10) -> Path:
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("mpeg4", rate=rate)
        stream.width, stream.height, stream.pix_fmt = SIDE, SIDE, "yuv420p"
        stream.bit_rate = 2_000_000
        stream.time_base = Fraction(1, rate)
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("clips")
    pictures = {
        "one": [draw([((10 + 2 * t, 20), RED)]) for t in range(20)],
        "two": [draw([((5 + t, 10), RED), ((115 - t, 110), BLUE)]) for t in range(20)],
        "nobody": [draw([]) + np.uint8(t) for t in range(20)],
        "black": [np.zeros((SIDE, SIDE, 3), np.uint8)] * 12,
        "still": [draw([((40, 40), RED)])] * 12,
    }
    return {name: write_clip(folder / f"{name}.mp4", made) for name, made in pictures.items()}


@pytest.fixture(scope="module")
def scanner(tiny_checkpoint: Path) -> Iterator[Scanner]:
    config = ScanConfig(device="cpu", sampling=SamplingConfig(frames=8))
    with Scanner(tiny_checkpoint, config, face_detector=SquareDetector()) as scanner:
        yield scanner


def check(report: Report) -> None:
    jsonschema.Draft202012Validator(schema()).validate(to_document(report))


def test_a_clip_ends_in_a_verdict_whose_report_can_be_checked(
    scanner: Scanner, clips: dict[str, Path], tiny_checkpoint: Path
) -> None:
    report = scanner.scan(clips["one"])
    check(report)
    assert report.verdict.label in ("likely_fake", "likely_real", "uncertain")
    assert report.sha256 == hashlib.sha256(clips["one"].read_bytes()).hexdigest()
    assert report.detector.sha256 == hashlib.sha256(tiny_checkpoint.read_bytes()).hexdigest()
    assert report.stats is not None
    assert (report.stats.positions_read, report.stats.coverage) == (8, 1.0)
    assert report.config["device"] == "cpu"
    assert report.config["sampling"]["frames"] == 8
    assert {"decode", "detect", "crop", "track", "score", "hash"} <= report.timings_s.keys()
    assert sum(report.timings_s.values()) <= report.seconds


def test_evidence_is_kept_only_where_it_is_asked_for(
    scanner: Scanner, clips: dict[str, Path]
) -> None:
    plain = scanner.scan(clips["two"])
    assert plain.evidence is None
    assert "evidence" not in plain.timings_s
    report = scanner.scan(clips["two"], keep_evidence=True)
    check(report)
    assert report.verdict.probability == plain.verdict.probability
    evidence = report.evidence
    assert evidence is not None
    people = {person.score.track.id: person.score.track for person in report.verdict.people}
    assert {heat.person for heat in evidence.heat_maps} == set(people)
    for heat in evidence.heat_maps:
        assert heat.heat.shape == people[heat.person].crops[heat.place].shape[:2]
        assert 0 <= heat.heat.min() <= heat.heat.max() <= 1
    assert evidence.card["name"] == "tiny"
    assert evidence.credentials.state in ("absent", "not_examined")
    nobody = scanner.scan(clips["nobody"], keep_evidence=True).evidence
    assert nobody is not None
    assert nobody.heat_maps == ()


def test_a_report_says_when_where_and_on_how_much_it_was_made(
    scanner: Scanner, clips: dict[str, Path]
) -> None:
    document = to_document(scanner.scan(clips["one"]))
    assert document["started"] <= document["ended"]
    assert document["media"]["size_bytes"] == clips["one"].stat().st_size
    assert document["host"]["device"] == "cpu"
    assert document["host"]["threads"] == torch.get_num_threads()
    (person,) = document["people"]
    low, high = person["interval"]
    assert low <= person["probability"] <= high


def test_each_person_is_one_track_with_their_own_boxes(
    scanner: Scanner, clips: dict[str, Path]
) -> None:
    people = scanner.scan(clips["two"]).verdict.people
    assert [len(person.score.track.times_s) for person in people] == [8, 8]
    tops = sorted(float(person.score.track.boxes[:, 1].max()) for person in people)
    assert tops[0] < 40 < 80 < tops[1]


def test_the_logits_are_those_of_the_crops_that_training_cuts(
    clips: dict[str, Path], tiny_checkpoint: Path
) -> None:
    config = ScanConfig(device="cpu", sampling=SamplingConfig(frames=4))
    (person,) = with_config(tiny_checkpoint, config, clips["one"]).verdict.people
    checkpoint = forensics.load_checkpoint(tiny_checkpoint)
    preprocessing = checkpoint.card.preprocessing

    def logits(margin: float) -> NDArray[np.float64]:
        crops: list[NDArray[np.uint8]] = []
        with open_video(clips["one"], limits=Limits()) as video:
            for frame in video.frames(person.score.track.times_s):
                ((face,),) = SquareDetector().detect([frame.pixels])
                crop = face_crop(frame.pixels, face.xyxy, margin=margin, size=preprocessing.size)
                crops.append(crop)
        with torch.inference_mode():
            return checkpoint.model(normalise(np.stack(crops), preprocessing)).double().numpy()

    assert np.abs(person.score.logits - logits(preprocessing.margin)).max() < 1e-4
    assert np.abs(person.score.logits - logits(1.0)).min() > 1e-3  # so the above means something


def test_frames_without_a_face_end_in_no_face(scanner: Scanner, clips: dict[str, Path]) -> None:
    report = scanner.scan(clips["nobody"])
    check(report)
    assert report.verdict.label == "no_face"


@pytest.mark.parametrize(("name", "word"), [("black", "black"), ("still", "same picture")])
def test_frames_that_do_not_differ_limit_trust(
    scanner: Scanner, clips: dict[str, Path], name: str, word: str
) -> None:
    assert any(word in reason for reason in scanner.scan(clips[name]).verdict.reasons)


def test_a_still_shown_for_long_is_no_verdict(scanner: Scanner, clips: dict[str, Path]) -> None:
    verdict = scanner.scan(clips["still"]).verdict
    assert verdict.label == "uncertain"
    assert any("1 different frame where" in reason for reason in verdict.reasons)


def test_frames_that_differ_do_not_limit_trust(scanner: Scanner, clips: dict[str, Path]) -> None:
    reasons = " ".join(scanner.scan(clips["one"]).verdict.reasons)
    assert "same picture" not in reasons
    assert "black" not in reasons


@pytest.mark.parametrize("content", [b"", b"no media at all" * 50, b"\x00" * 4096])
def test_a_broken_file_ends_in_an_abstention_with_its_reason_and_hash(
    scanner: Scanner, tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "broken.mp4"
    path.write_bytes(content)
    report = scanner.scan(path)
    check(report)
    assert report.verdict.label in ("undecodable", "unsupported")
    assert report.verdict.probability is None
    assert "broken.mp4" in report.verdict.reasons[0]
    assert report.sha256 == hashlib.sha256(content).hexdigest()


def test_the_next_file_is_scanned_after_a_broken_one(
    scanner: Scanner, clips: dict[str, Path], tmp_path: Path
) -> None:
    path = tmp_path / "broken.mp4"
    path.write_bytes(b"broken")
    first = scanner.scan(clips["one"]).verdict.probability
    assert scanner.scan(path).verdict.abstained
    assert scanner.scan(clips["one"]).verdict.probability == first


def test_a_missing_file_is_an_error_that_names_it(scanner: Scanner, tmp_path: Path) -> None:
    with pytest.raises(ForensicsError, match=r"absent\.mp4: cannot be examined: No such file"):
        scanner.scan(tmp_path / "absent.mp4")


def test_a_pipe_is_never_opened(scanner: Scanner, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    report = scanner.scan(tmp_path / "pipe.mp4")
    check(report)
    assert report.verdict.label == "unsupported"
    assert report.sha256 is None


def test_a_folder_is_unsupported(scanner: Scanner, tmp_path: Path) -> None:
    assert scanner.scan(tmp_path).verdict.label == "unsupported"


def with_config(tiny_checkpoint: Path, config: ScanConfig, path: Path) -> Report:
    with Scanner(tiny_checkpoint, config, face_detector=SquareDetector()) as scanner:
        return scanner.scan(path)


@pytest.mark.parametrize(
    ("sampling", "label"),
    [
        (SamplingConfig(fps=1e12), "limit_exceeded"),
        (SamplingConfig(frames=10**9), "limit_exceeded"),
        (SamplingConfig(start_s=100.0), "unsupported"),
    ],
)
def test_sampling_that_cannot_be_met_is_named_before_it_costs_anything(
    tiny_checkpoint: Path, clips: dict[str, Path], sampling: SamplingConfig, label: str
) -> None:
    report = with_config(tiny_checkpoint, ScanConfig(sampling=sampling), clips["one"])
    check(report)
    assert report.verdict.label == label
    assert report.info is not None


def test_the_part_between_start_and_end_is_looked_at(
    tiny_checkpoint: Path, clips: dict[str, Path]
) -> None:
    sampling = SamplingConfig(start_s=0.5, end_s=1.0, fps=10)
    (person,) = with_config(
        tiny_checkpoint, ScanConfig(sampling=sampling), clips["one"]
    ).verdict.people
    times = person.score.track.times_s
    assert (round(times[0], 2), round(times[-1], 2), len(times)) == (0.5, 1.0, 6)


def test_a_short_part_of_a_long_video_may_be_looked_at_closely(
    tiny_checkpoint: Path, clips: dict[str, Path]
) -> None:
    config = ScanConfig(
        sampling=SamplingConfig(start_s=0.5, end_s=1.0, fps=10), limits=Limits(max_frames=8)
    )
    assert not with_config(tiny_checkpoint, config, clips["one"]).verdict.abstained


def test_a_crowd_in_too_many_frames_is_a_limit(
    tiny_checkpoint: Path, clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "_CROP_BYTES", 5 * 64 * 64 * 3)
    report = with_config(tiny_checkpoint, ScanConfig(), clips["two"])
    assert report.verdict.label == "limit_exceeded"
    assert "too many faces" in report.verdict.reasons[0]


def test_a_threshold_replaces_that_of_the_card(
    tiny_checkpoint: Path, clips: dict[str, Path]
) -> None:
    report = with_config(tiny_checkpoint, ScanConfig(threshold=0.001), clips["one"])
    assert report.verdict.label == "likely_fake"


class Pixels(np.ndarray):
    """An array that can be counted: equal arrays are not the same array."""

    __hash__ = object.__hash__  # pyright: ignore
    __eq__ = object.__eq__  # pyright: ignore


class FakeSession:
    """A reader that yields frames and then breaks, as a decoder that meets a limit does."""

    def __init__(self, frames: int, error: MediaError | None, shape: tuple[int, int] = (64, 64)):
        self._alive: weakref.WeakSet[Any] = weakref.WeakSet()
        self.most_alive = 0
        self._frames, self._error, self._shape = frames, error, shape
        self.info = VideoInfo(
            kind="video",
            container="mp4",
            codec="h264",
            width=shape[1],
            height=shape[0],
            first_s=0.0,
            last_s=10.0,
            duration_s=10.0,
            frame_rate=10.0,
            declared_frames=100,
            listed_frames=100,
        )

    def __enter__(self) -> FakeSession:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    @property
    def stats(self) -> DecodeStats:
        return DecodeStats(
            decoded_frames=self._frames,
            corrupt_packets=0,
            size_changes=0,
            coverage=1.0,
            positions_asked=self._frames,
            positions_read=self._frames,
            seconds=0.0,
        )

    def frames(self, positions: NDArray[np.float64]) -> Iterator[Frame]:
        for index in range(self._frames):
            pixels = np.zeros((*self._shape, 3), np.uint8).view(Pixels)
            self._alive.add(pixels)
            self.most_alive = max(self.most_alive, len(self._alive))
            yield Frame(index=index, time_s=float(positions[index]), pixels=pixels)
        if self._error is not None:
            raise self._error


def through(
    session: FakeSession, monkeypatch: pytest.MonkeyPatch, tiny_checkpoint: Path, path: Path
) -> tuple[Report, SquareDetector]:
    def open_fake(*_: object, **__: object) -> FakeSession:
        return session

    monkeypatch.setattr(pipeline, "open_video", open_fake)
    detector = SquareDetector()
    config = ScanConfig(sampling=SamplingConfig(frames=40), faces=FacesConfig(batch_frames=16))
    with Scanner(tiny_checkpoint, config, face_detector=detector) as scanner:
        return scanner.scan(path), detector


@pytest.mark.parametrize("label", ["limit_exceeded", "undecodable"])
def test_a_reader_that_breaks_midway_abstains_and_keeps_what_is_known(
    monkeypatch: pytest.MonkeyPatch, tiny_checkpoint: Path, clips: dict[str, Path], label: str
) -> None:
    session = FakeSession(20, MediaError("out of time", label=label))
    report, _ = through(session, monkeypatch, tiny_checkpoint, clips["one"])
    check(report)
    assert (report.verdict.label, report.verdict.reasons) == (label, ("out of time",))
    assert report.info == session.info


def test_a_reader_without_any_frame_is_undecodable(
    monkeypatch: pytest.MonkeyPatch, tiny_checkpoint: Path, clips: dict[str, Path]
) -> None:
    report, _ = through(FakeSession(0, None), monkeypatch, tiny_checkpoint, clips["one"])
    assert report.verdict.label == "undecodable"


@pytest.mark.parametrize(
    ("shape", "batches"),
    [
        ((64, 64), [16, 16, 8]),
        ((2160, 3840), [5, 5]),  # 24.9 MB each: the sixth would pass 128 MiB
    ],
)
def test_frames_held_at_once_are_bounded_in_number_and_bytes(
    monkeypatch: pytest.MonkeyPatch,
    tiny_checkpoint: Path,
    clips: dict[str, Path],
    shape: tuple[int, int],
    batches: list[int],
) -> None:
    session = FakeSession(sum(batches), None, shape)
    _, detector = through(session, monkeypatch, tiny_checkpoint, clips["one"])
    assert detector.batches == batches
    assert session.most_alive <= max(batches) + 1  # and the one just read


def test_progress_tells_stages_that_reach_their_totals(
    scanner: Scanner, clips: dict[str, Path]
) -> None:
    said: list[tuple[str, int, int]] = []
    scanner.scan(clips["one"], on_progress=lambda *step: said.append(step))
    assert ("looking", 8, 8) in said
    assert said[-1] == ("scoring", 8, 8)


def test_a_cancelled_scan_ends_between_two_batches(
    tiny_checkpoint: Path, clips: dict[str, Path]
) -> None:
    cancellation, said = Cancellation(), []

    def cancel(stage: str, done: int, total: int) -> None:
        said.append((stage, done, total))
        if (stage, done) == ("looking", 4):
            cancellation.cancel()

    config = ScanConfig(sampling=SamplingConfig(frames=8), faces=FacesConfig(batch_frames=4))
    with Scanner(tiny_checkpoint, config, face_detector=SquareDetector()) as scanner:
        with pytest.raises(ScanCancelled):
            scanner.scan(clips["one"], on_progress=cancel, cancellation=cancellation)
        assert said[-1] == ("looking", 4, 8)
        with pytest.raises(ScanCancelled):  # before it started
            scanner.scan(clips["one"], cancellation=cancellation)
        assert not scanner.scan(clips["one"]).verdict.abstained  # the scanner is none the worse


def test_a_scan_is_cancelled_before_its_evidence(
    scanner: Scanner, clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    cancellation = Cancellation()

    def cancel(stage: str, done: int, total: int) -> None:
        if (stage, done) == ("scoring", total):
            cancellation.cancel()

    monkeypatch.delattr(evidence, "gather")  # not reached
    with pytest.raises(ScanCancelled):
        scanner.scan(
            clips["one"], on_progress=cancel, cancellation=cancellation, keep_evidence=True
        )


def test_a_scan_is_cancelled_between_its_heat_maps(
    scanner: Scanner, clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    cancellation, said = Cancellation(), list[tuple[str, int, int]]()

    def cancel(stage: str, done: int, total: int) -> None:
        said.append((stage, done, total))
        if (stage, done) == ("explaining", 2):
            cancellation.cancel()

    monkeypatch.delattr(evidence, "read_credentials")  # not reached
    with pytest.raises(ScanCancelled):
        scanner.scan(
            clips["one"], on_progress=cancel, cancellation=cancellation, keep_evidence=True
        )
    assert said[-2:] == [("explaining", 0, 6), ("explaining", 2, 6)]


def test_a_scan_is_cancelled_while_its_file_is_hashed(
    scanner: Scanner, clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    cancellation = Cancellation()

    def slow(path: Path, stopped: Callable[[], bool]) -> tuple[str, int]:
        while not stopped():
            time.sleep(0.01)
        return original(path, stopped)

    def cancel(stage: str, done: int, total: int) -> None:
        if (stage, done) == ("scoring", total):
            threading.Timer(0.2, cancellation.cancel).start()

    original = pipeline.file_sha256
    monkeypatch.setattr(pipeline, "file_sha256", slow)
    with pytest.raises(ScanCancelled):
        scanner.scan(clips["one"], on_progress=cancel, cancellation=cancellation)


@pytest.mark.parametrize("hangs", ["opening", "reading"])
def test_a_decoder_that_hangs_is_ended_by_a_cancellation(
    scanner: Scanner, clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch, hangs: str
) -> None:
    cancellation, children = Cancellation(), []
    take, process = isolation.take, isolation.DecoderProcess

    def take_and_remember(decoder: str) -> isolation.DecoderProcess:
        child = take(decoder)
        children.append(child)
        if hangs == "opening":
            os.kill(child.pid, signal.SIGSTOP)
            threading.Timer(0.3, cancellation.cancel).start()
        return child

    def send(child: isolation.DecoderProcess, message: Any, *rest: Any) -> None:
        if "read" in message and hangs == "reading":
            os.kill(child.pid, signal.SIGSTOP)
            threading.Timer(0.3, cancellation.cancel).start()
        original(child, message, *rest)

    original = process.send
    monkeypatch.setattr(isolation, "take", take_and_remember)
    monkeypatch.setattr(process, "send", send)
    start = time.monotonic()
    with pytest.raises(ScanCancelled):
        scanner.scan(clips["one"], cancellation=cancellation)
    assert time.monotonic() - start < 5
    (child,) = children
    assert child._process.poll() == -signal.SIGKILL
    cancellation.cancel()  # twice, and long after the end: nothing happens


def test_a_checkpoint_that_does_not_exist_is_an_error_of_every_scan(clips: dict[str, Path]) -> None:
    with Scanner("absent-detector") as scanner:
        for _ in range(2):
            with pytest.raises(CheckpointError, match="absent-detector"):
                scanner.scan(clips["one"])


def test_an_unknown_device_is_an_error(tiny_checkpoint: Path, clips: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match="abacus"):
        with_config(tiny_checkpoint, ScanConfig(device="abacus"), clips["one"])


def test_a_file_over_a_limit_is_a_named_abstention(
    tiny_checkpoint: Path, clips: dict[str, Path]
) -> None:
    config = ScanConfig(limits=Limits(max_pixels=20_000))
    report = with_config(tiny_checkpoint, config, clips["one"])
    check(report)
    assert report.verdict.label == "limit_exceeded"


def test_five_lines_of_python_do_the_same(tiny_checkpoint: Path, clips: dict[str, Path]) -> None:
    checkpoint = forensics.load_checkpoint(tiny_checkpoint)
    report = forensics.scan(clips["nobody"], checkpoint=checkpoint)
    assert report.verdict.label == "no_face"


def test_the_console_script_scans_a_real_file(
    tiny_checkpoint: Path, clips: dict[str, Path], tmp_path: Path
) -> None:
    done = subprocess.run(
        [
            *(Path(sys.executable).with_name("deepfake"), "scan", clips["nobody"]),
            *("--detector", tiny_checkpoint, "--json", "--out", tmp_path / "reports"),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (3, "")
    document = json.loads(done.stdout)
    jsonschema.Draft202012Validator(schema()).validate(document)
    assert document["verdict"]["label"] == "no_face"
    (written,) = (tmp_path / "reports").iterdir()
    assert json.loads(written.read_text()) == document
