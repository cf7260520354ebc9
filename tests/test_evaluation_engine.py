"""The engine of one machine: the scan's own scores, many files at once, ended at any moment."""

from __future__ import annotations

import functools
import io
import os
import tarfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import fsspec
import numpy as np
import pytest
import torch
from makers_faces import SquareDetector, write_face, write_tree

from forensics import Scanner
from forensics.checkpoint import Checkpoint, load_checkpoint
from forensics.config import Limits, SamplingConfig, ScanConfig
from forensics.datasets.manifest import Kind, Sample
from forensics.errors import CheckpointError, ConfigError
from forensics.evaluation import cluster
from forensics.evaluation.degrade import CONDITIONS, degraded
from forensics.evaluation.local import LocalEngine
from forensics.evaluation.outcome import Outcome, Unit
from forensics.evaluation.selection import Selection, select
from forensics.evaluation.together import SharedDetector, SharedModel, Together
from forensics.video import Cancellation, open_video

CONFIG = ScanConfig(device="cpu", sampling=SamplingConfig(frames=6), batch_size=4)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tree(tmp_path_factory.mktemp("tree"))


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint: Path) -> Checkpoint:
    return load_checkpoint(tiny_checkpoint)


def engine(checkpoint: Checkpoint, workers: int = 2) -> LocalEngine:
    return LocalEngine(checkpoint, CONFIG, workers=workers, face_detector=SquareDetector())


def by_place(outcomes: Iterator[Outcome]) -> dict[str, Outcome]:
    found = {outcome.place: replace(outcome, seconds=0.0) for outcome in outcomes}
    return dict(sorted(found.items()))


def one(unit_path: Path, kind: Kind = "video", member: str = "") -> Unit:
    sample = Sample(path=unit_path.name, label="fake", kind=kind, dataset="d", member=member)
    return Unit(sample=sample, location=str(unit_path))


def test_scores_are_the_scans_bit_for_bit_whatever_is_examined_beside(
    tree: Path, checkpoint: Checkpoint
) -> None:
    chosen = select("real-fake", str(tree))
    alone = by_place(engine(checkpoint, 1).outcomes(chosen.units()))
    beside = by_place(engine(checkpoint, 4).outcomes(reversed(list(chosen.units()))))
    assert alone == beside
    assert {place: found.label for place, found in alone.items() if found.probability is None} == {
        "fake/swap/broken.mp4": "undecodable",
        "real/nobody.mp4": "no_face",
    }
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with Scanner(checkpoint, CONFIG, face_detector=SquareDetector()) as scanner:
            for place, found in alone.items():
                report = scanner.scan(tree / place)
                assert found.probability == report.verdict.probability
                assert found.sha256 == report.sha256
                logits = [
                    float(logit)
                    for person in report.verdict.people
                    for logit in person.score.logits
                ]
                assert [row.logit for row in found.frames] == logits
    finally:
        torch.set_num_threads(threads)
    probabilities = [found.probability for found in alone.values() if found.probability]
    assert len(set(probabilities)) == 5


class _HereRay:
    """Ray's shape without processes: what would be fetched is there."""

    @staticmethod
    def get(value: Any) -> Any:
        return value

    class Handle:
        def __init__(self, actor: Any) -> None:
            self._actor = actor

        def __getattr__(self, name: str) -> Any:
            return SimpleNamespace(remote=getattr(self._actor, name))


def test_the_parts_that_ray_sends_around_add_up_to_the_scan(
    tree: Path, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole cluster is in test_evaluation_cluster.py, which takes longer."""
    monkeypatch.setattr(cluster, "_ray", _HereRay)
    order = cluster._Order(
        card=checkpoint.card,
        sha256=checkpoint.sha256,
        file_name=checkpoint.path.name,
        config=CONFIG,
        weights=(checkpoint.path.read_bytes(),),
        detector=SquareDetector,
    )
    units = list(select("real-fake", str(tree)).units())[::2]
    local = by_place(engine(checkpoint, 1).outcomes(iter(units)))
    threads = torch.get_num_threads()
    try:
        model = cluster._Model(replace(order, weights=()))
        assert model.precision(order.weights) in ("float32", "bfloat16")
        handle = _HereRay.Handle(model)
        there = by_place(cluster._examine(order, unit, handle) for unit in units)
    finally:
        torch.set_num_threads(threads)
    assert there == local


def test_ray_is_told_to_report_nothing_and_an_absent_cluster_is_one_line(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Set first, so that it is put back.
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")
    told: list[str | None] = []

    def init(**_: object) -> None:
        told.append(os.environ.get("RAY_USAGE_STATS_ENABLED"))
        raise ConnectionError("could not find any\nrunning Ray instance")

    monkeypatch.setattr(
        cluster, "_ray", lambda: SimpleNamespace(is_initialized=lambda: False, init=init)
    )
    with pytest.raises(ConfigError, match="auto: no cluster: could not find any running Ray inst"):
        cluster.RayEngine(checkpoint, CONFIG, address="auto")
    assert told == ["0"]


def test_threads_are_given_back(tree: Path, checkpoint: Checkpoint) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        units = select("real-fake", str(tree)).units()
        outcomes = engine(checkpoint).outcomes(units)
        next(outcomes)
        assert torch.get_num_threads() == 1
        outcomes.close()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_missing_file_fails_alone(checkpoint: Checkpoint, tree: Path, tmp_path: Path) -> None:
    units = [one(tmp_path / "gone.mp4"), one(tree / "real" / "0.mp4")]
    found = by_place(engine(checkpoint).outcomes(iter(units)))
    assert found["gone.mp4"].state == "failed"
    assert found["gone.mp4"].detail.startswith(f"{tmp_path / 'gone.mp4'}: cannot be examined")
    assert found["0.mp4"].state == "done"


def test_a_bug_is_named_and_a_broken_checkpoint_stops_the_run(
    checkpoint: Checkpoint, tree: Path
) -> None:
    class Broken(SquareDetector):
        def detect(self, frames: object) -> list[list[object]]:  # pyright: ignore
            raise RuntimeError("boom")

    units = [one(tree / "real" / "0.mp4")]
    (found,) = LocalEngine(checkpoint, CONFIG, workers=1, face_detector=Broken()).outcomes(
        iter(units)
    )
    assert (found.state, found.detail) == (
        "failed",
        "unexpected RuntimeError: boom; please report this",
    )

    class Nan(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.full((len(x),), float("nan"))

    with pytest.raises(CheckpointError, match="not finite"):
        list(engine(replace(checkpoint, model=Nan())).outcomes(iter(units)))
    with pytest.raises(ConfigError, match="workers must be at least 1"):
        engine(checkpoint, 0)


def test_an_engine_closed_early_ends_what_is_under_way(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    slow = threading.Event()

    class Slow(SquareDetector):
        def detect(self, frames: object) -> list[list[object]]:  # pyright: ignore
            slow.wait(20)
            return [[] for _ in range(len(frames))]  # pyright: ignore

    for seed in range(3):
        write_face(tmp_path / f"{seed}.mp4", seed=seed)
    (tmp_path / "nothing.mp4").write_bytes(b"?")
    units = [one(tmp_path / name) for name in ("nothing.mp4", "0.mp4", "1.mp4", "2.mp4")]
    outcomes = LocalEngine(checkpoint, CONFIG, workers=2, face_detector=Slow()).outcomes(
        iter(units)
    )
    assert next(outcomes).label == "undecodable"
    threading.Timer(0.3, slow.set).start()
    started = time.monotonic()
    outcomes.close()
    assert time.monotonic() - started < 10


def test_an_address_is_fetched_and_its_copy_removed(
    checkpoint: Checkpoint, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    memory = fsspec.filesystem("memory")
    memory.pipe("/evaluation/0.mp4", (tree / "real" / "0.mp4").read_bytes())
    sample = Sample(path="0.mp4", label="real", kind="video", dataset="d")
    units = [
        *Selection(dataset="d", root="memory://evaluation", split="all", samples=(sample,)).units(),
        Unit(
            sample=replace(sample, path="copy.mp4"),
            location=(tree / "real" / "0.mp4").as_uri(),
        ),
        Unit(sample=replace(sample, path="gone.mp4"), location="memory://evaluation/gone.mp4"),
        Unit(sample=replace(sample, path="odd.mp4"), location="unheard-of://x/odd.mp4"),
    ]
    found = by_place(engine(checkpoint).outcomes(iter(units)))
    local = by_place(engine(checkpoint).outcomes(iter([one(tree / "real" / "0.mp4")])))
    assert found["0.mp4"].probability == local["0.mp4"].probability is not None
    assert found["0.mp4"] == replace(found["copy.mp4"], place="0.mp4")
    assert "cannot be fetched" in found["gone.mp4"].detail
    assert "unheard-of" in found["odd.mp4"].detail
    assert list(tmp_path.iterdir()) == []


def test_crops_cut_already_are_judged_without_looking_for_faces(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    folder = tmp_path / "faces" / "7"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(9):
        encoded = cv2.imencode(".png", rng.integers(0, 255, (70, 60, 3), dtype=np.uint8))[1]
        (folder / f"{number * 3}.png").write_bytes(encoded.tobytes())
    archive = tmp_path / "faces.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for file in sorted(folder.iterdir()):
            data = file.read_bytes()
            entry = tarfile.TarInfo(f"faces/7/{file.name}")
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    (tmp_path / "empty").mkdir()
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    units = [
        one(folder, "sequence"),
        one(archive, "sequence", "faces/7"),
        one(folder / "0.png", "crop"),
        one(tmp_path / "empty", "sequence"),
        one(bad, "crop"),
    ]
    found = by_place(engine(checkpoint).outcomes(iter(units)))
    sequence = found["7"]
    assert (len(sequence.frames), sequence.frames_read) == (6, 6)
    assert found["faces.tar.gz/faces/7"] == replace(sequence, place="faces.tar.gz/faces/7")
    assert found["0.png"].frames[0].logit == pytest.approx(sequence.frames[0].logit, abs=1e-5)
    assert (found["empty"].label, found["bad.png"].label) == ("undecodable", "undecodable")
    assert "holds no picture" in found["empty"].detail


def test_threads_share_passes_and_get_their_own_answers() -> None:
    free, sizes = threading.Event(), list[int]()

    def work(questions: list[list[int]]) -> list[int]:
        free.wait(5)
        sizes.append(len(questions))
        return [sum(question) for question in questions]

    together: Together[list[int], int] = Together(work, size=len, most=6)
    answers: dict[int, int] = {}

    def ask(number: int) -> None:
        answers[number] = together([number, 1])

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(7)]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    free.set()
    for thread in threads:
        thread.join()
    together.close()
    assert answers == {number: number + 1 for number in range(7)}
    assert sum(sizes) == 7
    assert max(sizes) == 3  # two each: the third reaches six


def test_an_error_reaches_everyone_who_asked_and_the_next_one_is_served() -> None:
    def work(questions: list[int]) -> list[int]:
        if 0 in questions:
            raise ValueError("zero")
        return questions

    together: Together[int, int] = Together(work, size=lambda _: 1, most=1)
    with pytest.raises(ValueError, match="zero"):
        together(0)
    assert together(3) == 3
    together.close()


@pytest.mark.usefixtures("one_thread")
def test_shared_passes_change_a_logit_by_rounding_only(checkpoint: Checkpoint) -> None:
    """The path of accelerators. Stated tolerance: 1e-4 of a logit in float32."""
    model = SharedModel(checkpoint.model, dtype=torch.float32, most=64)
    inputs = [torch.rand(size, 3, 64, 64) for size in (1, 3, 2)]
    results: list[torch.Tensor | None] = [None] * 3

    def ask(place: int) -> None:
        results[place] = model(inputs[place])

    threads = [threading.Thread(target=ask, args=(place,)) for place in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    model.close()
    with torch.inference_mode():
        for x, shared in zip(inputs, results, strict=True):
            assert shared is not None
            torch.testing.assert_close(shared, checkpoint.model(x), atol=1e-4, rtol=0)
    detector = SquareDetector()
    faces = SharedDetector(detector, most=8)
    red = np.zeros((60, 60, 3), np.uint8)
    red[10:40, 10:40, 0] = 255
    (found, none) = faces.detect([red, red * 0])
    faces.close()
    assert (len(found), none, detector.calls) == (1, [], [2])


@pytest.mark.parametrize("condition", CONDITIONS)
def test_a_condition_keeps_times_and_changes_pixels(condition: str, tmp_path: Path) -> None:
    path = write_face(tmp_path / "in.mp4", seed=1, frames=8)
    sample = Sample(path="in.mp4", label="real", kind="video", dataset="d")
    unit = Unit(sample=sample, location=str(path), condition=condition)
    read = functools.partial(open_video, limits=Limits())
    times = np.arange(8) / 30
    with read(path) as session:
        before = list(session.frames(times))
    contents: list[bytes] = []
    for _ in range(4):  # x264's macroblock tree gives another file every third time
        with degraded(path, unit, limits=Limits(), cancellation=Cancellation()) as changed:
            contents.append(changed.read_bytes())
            with read(changed) as session:
                info, after = session.info, list(session.frames(times))
        assert not changed.exists()
    assert [f.time_s for f in after] == pytest.approx([f.time_s for f in before], abs=1e-3)
    size = {"half": (64, 48), "half-crf32": (64, 48), "crop": (102, 76)}.get(condition, (128, 96))
    assert (info.width, info.height, info.codec) == (*size, "h264")
    assert len(set(contents)) == 1
    if size == (128, 96):
        change = np.abs(before[3].pixels.astype(float) - after[3].pixels).mean()
        assert change > 0.5


def test_a_damaged_file_abstains_under_every_condition_and_a_missing_one_fails(
    checkpoint: Checkpoint, tree: Path
) -> None:
    places = ("fake/swap/broken.mp4", "real/gone.mp4", "real/0.mp4")
    units = [
        Unit(
            sample=Sample(path=place, label="real", kind="video", dataset="d"),
            location=str(tree / place),
            condition=condition,
        )
        for place in places
        for condition in ("clean", "crf40")
    ]
    found = {outcome.key: outcome for outcome in engine(checkpoint).outcomes(iter(units))}
    for condition in ("clean", "crf40"):
        assert found[places[0], condition].label == "undecodable"
        assert found[places[0], condition].detail.startswith("fake/swap/broken.mp4: ")
        assert found[places[1], condition].state == "failed"
    first, second = (found[places[2], condition].probability for condition in ("clean", "crf40"))
    assert None not in (first, second)
    assert first != second


def test_worse_recompression_loses_more(tmp_path: Path) -> None:
    path = write_face(tmp_path / "in.mp4", seed=1, frames=8)
    sample = Sample(path="in.mp4", label="real", kind="video", dataset="d")
    sizes: list[int] = []
    for condition in ("crf23", "crf32", "crf40"):
        unit = Unit(sample=sample, location=str(path), condition=condition)
        with degraded(path, unit, limits=Limits(), cancellation=Cancellation()) as changed:
            sizes.append(changed.stat().st_size)
    assert sizes[0] > sizes[1] > sizes[2]
    with (
        pytest.raises(ConfigError, match="no condition is called 'crf1'"),
        degraded(
            path, replace(unit, condition="crf1"), limits=Limits(), cancellation=Cancellation()
        ),
    ):
        pass
