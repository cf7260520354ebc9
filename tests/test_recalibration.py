"""`deepfake calibrate` and the library behind it: scores through the scan, and a card."""

from __future__ import annotations

import shutil
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from makers import write_video
from makers_report import abstained, judged, person
from safetensors.torch import load_file
from typer.testing import CliRunner

from forensics import recalibration
from forensics.calibration import Isotonic, Platt, apply
from forensics.checkpoint import CARD_KEY, load_checkpoint, replace_card
from forensics.datasets.manifest import Sample
from forensics.errors import CheckpointError, ConfigError, ManifestError
from forensics.recalibration import Scored, recalibrated, score_videos
from forensics.structures import Face, Thresholds

(SCRIPT,) = metadata.entry_points(group="console_scripts", name="deepfake")


def sample(number: int, *, fake: bool, split: str = "val", kind: str = "video") -> Sample:
    return Sample(
        path=f"{number}.mp4",
        label="fake" if fake else "real",
        kind=kind,  # type: ignore[arg-type]
        dataset="toy",
        identities=(f"p{number}",),
        split=split,  # type: ignore[arg-type]
    )


def scored(count: int = 400, *, seed: int = 0, sharp: float = 3.0) -> list[Scored]:
    """Logits `sharp` times as sure as they should be."""
    rng = np.random.default_rng(seed)
    result: list[Scored] = []
    for number in range(count):
        fake = bool(rng.random() < 0.5)
        # For normals one apart by d, d x score is the log of the odds.
        logit = 2.0 * float(rng.normal(1.0 if fake else -1.0))
        result.append(Scored(sample=sample(number, fake=fake), logit=sharp * logit, reason=""))
    return result


@pytest.fixture
def card(tiny_checkpoint: Path) -> Any:
    return load_checkpoint(tiny_checkpoint).card


@pytest.mark.parametrize("method", ["temperature", "platt", "isotonic"])
def test_overconfident_scores_become_probabilities_within_the_wanted_errors(
    card: Any, method: str
) -> None:
    videos = scored()
    new = recalibrated(card, videos, method=method, max_fpr=0.1, material="val.csv")
    assert new.weights_sha256 == card.weights_sha256
    logits = np.array([one.logit for one in videos])
    fake = np.array([one.sample.label == "fake" for one in videos])
    p = apply(new.calibration, logits)
    assert new.metrics["ece_after"] < 0.06 < 0.1 < new.metrics["ece_before"]
    assert 0 < new.metrics["ece_after_cross_validated"] < 0.1
    alarms = (p[~fake] >= new.thresholds.fake).mean()
    assert alarms <= 0.1
    assert new.metrics["false_positive_rate"] == round(float(alarms), 4)
    assert (p[fake] <= new.thresholds.real).mean() <= 0.1
    # As wide as it may be: a lower threshold would break the ceiling or contradict its label.
    lower = np.nextafter(np.sort(p[p < new.thresholds.fake])[-1], 0)
    assert new.thresholds.fake == 0.5 or (p[~fake] >= lower).mean() > 0.1
    if method == "temperature":
        assert new.calibration.offset == 0.0
        assert new.calibration.scale == pytest.approx(1 / 3, rel=0.25)
    assert isinstance(new.calibration, Isotonic if method == "isotonic" else Platt)


def test_a_temperature_keeps_the_logit_at_which_the_card_says_half(card: Any) -> None:
    before = replace(card, calibration=Platt(scale=2.0, offset=-1.0))
    new = recalibrated(before, scored(), method="temperature", max_fpr=0.1, material="val.csv")
    assert apply(new.calibration, 0.5) == pytest.approx(0.5)
    assert new.calibration.scale < 2.0


def test_what_cannot_be_calibrated_is_named(card: Any) -> None:
    reals = [Scored(sample=sample(n, fake=False), logit=1.0 * n, reason="") for n in range(5)]
    unseen = Scored(sample=sample(9, fake=True), logit=None, reason="no_face")
    with pytest.raises(
        ManifestError, match=r"none of the 6 videos is a fake .*; not judged: 9.mp4: no_face"
    ):
        recalibrated(card, [*reals, unseen], method="platt", max_fpr=0.05, material="val.csv")
    wrong = [replace(one, logit=-(one.logit or 0.0)) for one in scored(50)]
    with pytest.raises(ManifestError, match=r"val.csv: fakes do not score above reals"):
        recalibrated(card, wrong, method="temperature", max_fpr=0.05, material="val.csv")
    with pytest.raises(ConfigError, match="method 'x' is unknown; known: temperature, platt"):
        recalibrated(card, scored(50), method="x", max_fpr=0.05, material="val.csv")


def test_few_groups_are_not_cross_validated(card: Any) -> None:
    one = [replace(each, sample=replace(each.sample, group="g")) for each in scored(50)]
    new = recalibrated(card, one, method="platt", max_fpr=0.05, material="val.csv")
    assert "ece_after_cross_validated" not in new.metrics


def test_replacing_a_card_keeps_the_weights_to_the_bit(
    tmp_path: Path, tiny_checkpoint: Path, card: Any
) -> None:
    path = tmp_path / "mine.safetensors"
    shutil.copy(tiny_checkpoint, path)
    knots = Isotonic(logits=(-1.0, 0.5), probabilities=(0.2, 0.9))
    new = replace(card, calibration=knots, thresholds=Thresholds(real=0.25, fake=0.75))
    replace_card(path, path, new)
    loaded = load_checkpoint(path).card
    assert (loaded.calibration, loaded.thresholds) == (knots, new.thresholds)
    assert loaded.weights_sha256 == card.weights_sha256
    before, after = load_file(tiny_checkpoint), load_file(path)
    assert all(value.equal(after[key]) for key, value in before.items())
    assert [file.name for file in tmp_path.iterdir()] == ["mine.safetensors"]
    with pytest.raises(CheckpointError, match="export the result again"):
        replace_card(tmp_path / "a.onnx", path, new)


@pytest.mark.parametrize(
    "knots", ['{"logits": [1.0, 0.0], "probabilities": [0.1, 0.2]}', '{"logits": [1.0]}', "3"]
)
def test_a_card_with_broken_knots_is_refused(tiny_checkpoint: Path, knots: str) -> None:
    import json

    from forensics.card import parse_card

    data = tiny_checkpoint.read_bytes()
    length = int.from_bytes(data[:8], "little")
    mapping = json.loads(json.loads(data[8 : 8 + length])["__metadata__"][CARD_KEY])
    mapping["calibration"] = json.loads(knots)
    with pytest.raises(CheckpointError, match="card: calibration"):
        parse_card(json.dumps(mapping), "file")


class MiddleFace:
    """A face in the middle of every frame."""

    def detect(self, frames: Any) -> list[list[Face]]:
        xyxy = np.array([40, 20, 100, 80], dtype=np.float32)
        points = np.array([[55, 40], [85, 40], [70, 55], [60, 68], [80, 68]], dtype=np.float32)
        return [[Face(xyxy=xyxy, landmarks=points, probability=0.99)] for _ in frames]


def test_videos_are_scored_by_the_scan_itself(tmp_path: Path, tiny_checkpoint: Path) -> None:
    write_video(tmp_path / "0.mp4", frames=8)
    (tmp_path / "1.mp4").write_bytes(b"no video")
    samples = [
        sample(0, fake=False),
        sample(1, fake=True),
        sample(2, fake=True),  # absent
        sample(3, fake=True, kind="crop"),
    ]
    told: list[tuple[int, int, str, str]] = []
    found = score_videos(
        tiny_checkpoint,
        samples,
        tmp_path,
        on_file=lambda *words: told.append(words),
        face_detector=MiddleFace(),  # type: ignore[arg-type]
    )
    assert [one.logit is not None for one in found] == [True, False, False]
    assert found[1].reason == "undecodable"
    assert "No such file" in found[2].reason
    assert [words[:3] for words in told] == [(1, 3, "0.mp4"), (2, 3, "1.mp4"), (3, 3, "2.mp4")]
    import forensics

    with forensics.Scanner(tiny_checkpoint, face_detector=MiddleFace()) as scanner:  # type: ignore
        report = scanner.scan(tmp_path / "0.mp4")
    assert found[0].logit == report.verdict.people[0].score.score


class ScriptedScanner:
    """Fakes are even numbers and score above reals; 7.mp4 has no face."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __enter__(self) -> ScriptedScanner:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def scan(self, path: Path) -> Any:
        number = int(path.stem)
        if number == 7:
            return abstained("no_face", str(path))
        one = person([0.5] * 5)
        logit = (4.0 if number % 2 == 0 else -2.0) + number / 10
        one = replace(one, score=replace(one.score, score=logit))
        report = judged(str(path))
        return replace(report, verdict=replace(report.verdict, people=(one,)))


def calibrate(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(SCRIPT.load(), ["calibrate", *arguments], prog_name="deepfake")
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def work(tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a checkpoint and a manifest of 20 videos, 16 of them for validation."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(recalibration, "Scanner", ScriptedScanner)
    shutil.copy(tiny_checkpoint, "mine.safetensors")
    rows = (
        f"{n}.mp4,{'fake' if n % 2 == 0 else 'real'},video,toy,p{n},{'val' if n < 16 else 'train'}"
        for n in range(20)
    )
    Path("m.csv").write_text("path,label,kind,dataset,identity,split\n" + "\n".join(rows) + "\n")
    return tmp_path


def test_calibrate_replaces_the_card_and_says_what_changed(work: Path) -> None:
    code, out, err = calibrate("mine.safetensors", "--manifest", "m.csv", "--max-fpr", "0.1")
    assert code == 1
    assert err.splitlines()[-1] == "deepfake: not judged: 7.mp4: no_face"
    card = load_checkpoint(work / "mine.safetensors").card
    found = card.metrics
    assert found["calibration"] == "temperature, from m.csv, split val"
    assert (found["calibration_real_videos"], found["calibration_fake_videos"]) == (7.0, 8.0)
    assert found["calibration_auc"] == 1.0
    assert found["max_false_positive_rate"] == 0.1
    assert out.startswith("mine.safetensors: temperature, from m.csv, split val: scale ")
    assert f"calibration error {found['ece_before']} -> {found['ece_after']}" in out
    assert f"likely_fake from {card.thresholds.fake:.3f}" in out


def test_calibrate_writes_a_new_file_and_spares_what_is_there(work: Path) -> None:
    before = (work / "mine.safetensors").read_bytes()
    arguments = ["mine.safetensors", "--manifest", "m.csv", "--method", "isotonic", "--quiet"]
    code, _, err = calibrate(*arguments, "--out", "new.safetensors", "--split", "train")
    assert (code, err) == (0, "")
    assert (work / "mine.safetensors").read_bytes() == before
    assert isinstance(load_checkpoint(work / "new.safetensors").card.calibration, Isotonic)
    code, _, err = calibrate(*arguments, "--out", "new.safetensors")
    assert (code, err.count("\n")) == (2, 1)
    assert "exists already" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["default", "--manifest", "m.csv"], "name the new file with --out"),
        (["mine.safetensors", "--manifest", "m.csv", "--max-fpr", "1.5"], "--max-fpr 1.5"),
        (["mine.safetensors", "--manifest", "m.csv", "--split", "tset"], "no videos in the split"),
        (["mine.safetensors", "--manifest", "absent.csv"], "absent.csv: "),
        (["absent.safetensors", "--manifest", "m.csv"], "absent.safetensors: "),
    ],
)
def test_wrong_usage_is_one_line(work: Path, arguments: list[str], message: str) -> None:
    code, out, err = calibrate(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
