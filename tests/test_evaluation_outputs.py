"""What a finished run leaves behind: tables, plots, contact sheet, comparisons."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import jsonschema
import numpy as np
import pyarrow.parquet
import pytest
import sklearn.metrics as reference
from makers_evaluation import JUDGE, NamedEngine, outcome, samples, selection
from makers_faces import write_face

from forensics.datasets.manifest import Sample
from forensics.datasets.manifest_file import write_manifest
from forensics.errors import ConfigError, ManifestError
from forensics.evaluation.compare import compare
from forensics.evaluation.files import arrow_library
from forensics.evaluation.leak import Finding, find, require_clear
from forensics.evaluation.ledger import Ledger, Results
from forensics.evaluation.outcome import Outcome, Unit
from forensics.evaluation.outputs import write_outputs
from forensics.evaluation.plots import draw_plots, plot_library
from forensics.evaluation.predictions import Predictions
from forensics.evaluation.run import examine_all
from forensics.evaluation.selection import Selection, select
from forensics.evaluation.sheet import draw_sheet, worst_mistakes
from forensics.evaluation.summary import read_run, schema, summarise
from forensics.evaluation.tables import items_of, video_rows

UNCHECKED = Finding(state="unchecked", sentence="Leaks were not checked: no *manifest*.")
CONDITIONS = ("clean", "crf40")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    examine_all(selection(64), JUDGE, NamedEngine(), folder, conditions=CONDITIONS)
    write_outputs(folder, UNCHECKED, location=lambda sample: sample.path, num_draws=50)
    return folder


@pytest.fixture(scope="module")
def summary(run: Path) -> dict[str, Any]:
    return json.loads((run / "summary.json").read_text("utf-8"))


def row_of(summary: dict[str, Any], by: str, name: str, level: str, no_face: str) -> dict[str, Any]:
    wanted = (by, name, level, no_face)
    (row,) = [
        row
        for row in summary["rows"]
        if (row["by"], row["name"], row["level"], row["no_face"]) == wanted
    ]
    return row


def clean() -> list[Outcome]:
    return [outcome(unit) for unit in selection(64).units()]


def test_the_summary_keeps_to_its_schema(summary: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator.check_schema(schema())
    jsonschema.Draft202012Validator(schema()).validate(summary)
    assert summary["schema"] == "deepfake-evaluation/1"
    assert summary["manifest_sha256"] == selection(64).manifest_sha256()
    assert summary["detector"]["sha256"] == JUDGE.sha256


def test_files_are_counted_by_what_became_of_them(summary: dict[str, Any]) -> None:
    files = summary["files"]
    assert (files["total"], files["judged"], files["abstained"], files["failed"]) == (64, 56, 4, 4)
    assert files["abstention_rate"] == 4 / 64
    assert files["verdicts"]["no_face"] == 4
    assert files["without_probability"] == {"real": 4, "fake": 4}


def test_both_treatments_of_files_without_a_face_are_scikit_learns(summary: dict[str, Any]) -> None:
    made = clean()
    labels = np.array([found.place.startswith("fake") for found in made])
    p = np.array([np.nan if found.probability is None else found.probability for found in made])
    judged = ~np.isnan(p)
    excluded = row_of(summary, "all", "all", "video", "excluded")
    assert excluded["measures"]["auc"]["value"] == pytest.approx(
        reference.roc_auc_score(labels[judged], p[judged]), abs=1e-9
    )
    assert (excluded["num_real"], excluded["num_fake"]) == (28, 28)
    imputed = row_of(summary, "all", "all", "video", "imputed 0.5")
    assert imputed["measures"]["log_loss"]["value"] == pytest.approx(
        reference.log_loss(labels, np.where(judged, p, 0.5)), abs=1e-9
    )
    assert imputed["num_clusters"] == 16
    assert excluded["num_without_probability"] == imputed["num_without_probability"] == 8
    by_set = [
        row["num_without_probability"]
        for row in summary["rows"]
        if (row["by"], row["level"], row["no_face"]) == ("dataset", "video", "excluded")
    ]
    assert by_set == [4, 4]
    assert excluded["measures"]["auc"]["low"] < excluded["measures"]["auc"]["value"]


def test_a_frame_counts_with_its_most_suspicious_face(summary: dict[str, Any]) -> None:
    labels: list[bool] = []
    p: list[float] = []
    for found in clean():
        for frame in found.frames:
            labels.append(found.place.startswith("fake"))
            p.append(frame.probability)
    row = row_of(summary, "all", "all", "frame", "excluded")
    assert (row["num_real"], row["num_fake"]) == (112, 112)
    assert row["measures"]["auc"]["value"] == pytest.approx(
        reference.roc_auc_score(labels, p), abs=1e-9
    )


def test_a_method_is_set_against_reals_of_its_data_set_and_compression() -> None:
    made = (
        Sample(path="r1", label="real", kind="video", dataset="a", compression="c23"),
        Sample(path="r2", label="real", kind="video", dataset="a", compression="c40"),
        Sample(path="r3", label="real", kind="video", dataset="b", compression="c23"),
        Sample(path="f1", label="fake", kind="video", dataset="a", method="m", compression="c23"),
        Sample(path="f2", label="fake", kind="video", dataset="a", method="n", compression="c40"),
    )
    outcomes = [Outcome(place=sample.path, probability=0.5, face_px=100) for sample in made]
    rows = {
        (row.by, row.name): (row.num_real, row.num_fake)
        for row in video_rows(items_of(made, outcomes), thresholds=None, num=0, seed=0)
        if row.no_face == "excluded"
    }
    assert rows == {
        ("all", "all"): (3, 2),
        ("dataset", "a"): (2, 2),
        ("method", "a/m"): (1, 1),
        ("method", "a/n"): (1, 1),
        ("compression", "a/c23"): (1, 1),
        ("compression", "a/c40"): (1, 1),
        ("dataset", "b"): (1, 0),
        ("compression", "b/c23"): (1, 0),
        ("face_px", "64 to 128 px"): (3, 2),
    }


def test_robustness_is_measured_against_the_same_files(summary: dict[str, Any]) -> None:
    (loss,) = summary["robustness"]
    assert (loss["condition"], loss["num_files"], loss["lost_probability"]) == ("crf40", 56, 0)
    assert loss["auc_change"]["value"] < 0
    assert loss["auc_change"]["value"] == pytest.approx(
        loss["auc"]["value"]
        - row_of(summary, "all", "all", "video", "excluded")["measures"]["auc"]["value"]
    )
    assert 0 < loss["p_value"] <= 1


def test_the_document_says_under_every_table_what_it_rests_on(run: Path) -> None:
    text = (run / "summary.md").read_text("utf-8")
    tables = len(re.findall(r"^\| --- ", text, re.MULTILINE))
    assert tables >= 6
    assert text.count("manifest " + selection(64).manifest_sha256()[:12]) == tables
    assert text.count(r"**Leaks were not checked: no \*manifest\*.**") == tables
    assert "4 abstained from (6.2%), 4 failed" in text
    assert "## Robustness" in text
    assert "nan" not in text


def test_tables_for_others_hold_every_row(run: Path) -> None:
    videos = pyarrow.parquet.read_table(run / "videos.parquet").to_pydict()
    assert len(videos["place"]) == 128
    assert videos["condition"][:2] == ["clean", "crf40"]
    assert videos["state"].count("failed") == 8
    frames = pyarrow.parquet.read_table(run / "frames.parquet").to_pydict()
    assert len(frames["place"]) == 2 * 56 * 4
    assert frames["x1"][0] == 31.0
    tracks = pyarrow.parquet.read_table(run / "tracks.parquet").to_pydict()
    assert set(tracks) >= {"place", "condition", "score", "sufficient"}
    with (run / "submission.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["filename"] for row in rows] == [f"{number:04d}.mp4" for number in range(64)]
    assert rows[7]["label"] == rows[10]["label"] == "0.5"
    assert float(rows[0]["label"]) == clean()[0].probability


def test_plots_are_pictures_and_repeat_themselves(run: Path, tmp_path: Path) -> None:
    names = ("roc", "pr", "det", "calibration", "scores")
    for name in names:
        picture = cv2.imread(str(run / f"{name}.png"))
        assert picture is not None
        assert picture.std() > 5
        assert (run / f"{name}.svg").read_text("utf-8").rstrip().endswith("</svg>")
    found = read_run(run)
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        one = found.clean.judged().at(np.arange(9))
        draw_plots(one, tmp_path / folder, title="t", note="n", thresholds=found.thresholds)
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()
    assert not list(run.glob(".*"))


def test_the_contact_sheet_shows_the_worst_and_greys_what_is_gone(
    run: Path, tmp_path: Path
) -> None:
    items = read_run(run).clean.judged()
    reals, fakes = worst_mistakes(items, most=3)
    wrong = sorted(
        p for p, y in zip(items.probabilities, items.labels, strict=True) if y == 0 and p > 0.5
    )
    assert [row.probability for row in reals] == wrong[::-1][:3]
    assert all(row.probability < 0.5 and row.sample.label == "fake" for row in fakes)
    grey = cv2.imread(str(run / "worst_mistakes.png"))
    clip = write_face(tmp_path / "clip.mp4", seed=0)
    draw_sheet(run, items, lambda _: str(clip))
    seen = cv2.imread(str(run / "worst_mistakes.png"))
    assert grey is not None
    assert seen is not None
    assert grey.shape == seen.shape
    assert np.abs(grey.astype(int) - seen).mean() > 2


def test_one_class_and_nothing_judged_still_end_in_a_summary(tmp_path: Path) -> None:
    reals = replace(selection(8), samples=tuple(s for s in samples(8) if s.label == "real"))
    examine_all(reals, JUDGE, NamedEngine(), tmp_path / "reals")
    made = write_outputs(
        tmp_path / "reals", None, location=lambda sample: sample.path, num_draws=10
    )
    jsonschema.Draft202012Validator(schema()).validate(made)
    assert row_of(made, "all", "all", "video", "excluded")["measures"]["auc"] is None
    assert not (tmp_path / "reals" / "roc.png").exists()
    assert (tmp_path / "reals" / "scores.png").exists()

    class Nothing:
        def outcomes(self, units: Iterator[Unit]) -> Iterator[Outcome]:
            for unit in units:
                yield Outcome(place=unit.sample.place, state="failed", detail="gone")

    examine_all(selection(8), JUDGE, Nothing(), tmp_path / "none")
    made = write_outputs(tmp_path / "none", None, location=lambda sample: sample.path, num_draws=10)
    jsonschema.Draft202012Validator(schema()).validate(made)
    assert made["files"]["failed"] == 8
    assert {row["no_face"] for row in made["rows"]} == {"imputed 0.5"}


def table(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_somebody_elses_predictions_are_scored_the_same(run: Path, tmp_path: Path) -> None:
    predictions = Predictions(run / "submission.csv")
    assert (
        predictions.judge.sha256
        == hashlib.sha256((run / "submission.csv").read_bytes()).hexdigest()
    )
    examine_all(selection(64), predictions.judge, predictions, tmp_path)
    theirs, ours = summarise(tmp_path, None, num_draws=0), summarise(run, None, num_draws=0)
    for name in ("auc", "log_loss", "ece"):
        found = row_of(theirs, "all", "all", "video", "excluded")["measures"][name]
        same = row_of(ours, "all", "all", "video", "imputed 0.5")["measures"][name]
        assert found == same
    assert "fpr_at_fake_threshold" not in theirs["rows"][0]["measures"]
    jsonschema.Draft202012Validator(schema()).validate(theirs)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name,value\na.mp4,0.5\n", "expected a header with a file"),
        ("filename,label\na.mp4,FAKE\n", r"line 2: 'FAKE' is not a probability in 0\.\.1"),
        ("filename,label\na.mp4,nan\n", "not a probability"),
        ("filename,label\na.mp4,3.2\n", "not a probability"),
        ("filename,label\na.mp4\n", "None is not a probability"),
        ("filename,label\na.mp4,0.5\na.mp4,0.6\n", "line 3: a.mp4 has another prediction above"),
        ("", "expected a header"),
    ],
)
def test_a_table_of_predictions_is_read_strictly(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Predictions(table(tmp_path / "p.csv", text))


def test_a_file_without_a_prediction_failed_and_equal_names_need_folders(tmp_path: Path) -> None:
    text = "path,probability\nreal/0000.mp4,0.25\nx/0001.mp4,0.5\ny/0001.mp4,0.75\n"
    predictions = Predictions(table(tmp_path / "p.csv", text))
    found = list(predictions.outcomes(selection(3).units()))
    assert [(row.state, row.probability) for row in found] == [
        ("done", 0.25),
        ("failed", None),
        ("failed", None),
    ]
    assert found[1].detail == "no prediction"


class Noisy(NamedEngine):
    """The same answers, drawn towards 0.5 and shuffled a little."""

    def outcomes(self, units: Iterator[Unit]) -> Iterator[Outcome]:
        for found in super().outcomes(units):
            if found.probability is not None:
                noise = hashlib.sha256(found.place.encode()).digest()[9] / 256
                found = replace(found, probability=0.3 * found.probability + 0.7 * noise)
            yield found


def test_runs_are_compared_on_the_files_that_all_judged(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    worse = replace(JUDGE, name="worse", sha256="6" * 64)
    examine_all(selection(60), worse, Noisy(), other)
    found = compare([run, other], num_draws=200)
    assert (found.num_real, found.num_fake, found.left_out) == (26, 26, 12)
    auc = next(row for row in found.differences if row.measure == "auc")
    assert (auc.first, auc.second) == ("by name", "worse")
    values = [standing.measures["auc"] for standing in found.runs]
    assert values[0] is not None
    assert values[1] is not None
    assert auc.change.value == pytest.approx(values[1].value - values[0].value)
    assert auc.change.value < 0
    same = compare([run, run], num_draws=50)
    assert {row.p_value for row in same.differences} == {1.0}
    assert same.runs[0].name == str(run)


def test_what_cannot_be_compared_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least two"):
        compare([run])
    with pytest.raises(ConfigError, match="no run is there"):
        compare([run, tmp_path])
    swapped = tuple(replace(s, label="fake" if s.label == "real" else "real") for s in samples(8))
    chosen = replace(selection(8), samples=swapped)
    examine_all(chosen, JUDGE, NamedEngine(), tmp_path / "swapped")
    with pytest.raises(ConfigError, match=r"real/0000.mp4: real in .* fake in"):
        compare([run, tmp_path / "swapped"])
    reals = replace(selection(8), samples=tuple(s for s in samples(8) if s.label == "real"))
    examine_all(reals, JUDGE, NamedEngine(), tmp_path / "reals")
    with pytest.raises(ConfigError, match="4 judged files in common, and not of both classes"):
        compare([run, tmp_path / "reals"])


def training(folder: Path, *rows: Sample) -> dict[str, str]:
    path = folder / "train.csv"
    write_manifest(rows, path)
    return {
        "manifest": "train.csv",
        "manifest_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }


def test_a_leak_is_refused_named_and_can_be_allowed(tmp_path: Path) -> None:
    shared = Sample(path="t.mp4", label="real", kind="video", dataset="x", sources=("recording:1",))
    checkpoint = tmp_path / "mine.safetensors"
    known = training(tmp_path, replace(shared, split="train"))
    finding = find(samples(12), checkpoint, **known)
    assert finding.state == "leak"
    assert "4 of 12 files share" in finding.sentence
    assert "real/0004.mp4 (source recording:1)" in finding.sentence
    with pytest.raises(ManifestError, match="--allow-leak"):
        require_clear(finding, allowed=False)
    require_clear(finding, allowed=True)
    assert find(samples(12), checkpoint, **training(tmp_path, replace(shared, split="test"))) == (
        Finding(state="clear", sentence="Nobody and no recording of train.csv is in this test set.")
    )


def test_validation_counts_as_training(tmp_path: Path) -> None:
    shared = Sample(
        path="t.mp4", label="real", kind="video", dataset="x", split="val", sources=("recording:1",)
    )
    found = find(samples(12), tmp_path / "mine.safetensors", **training(tmp_path, shared))
    assert found.state == "leak"


def test_what_cannot_be_checked_is_said(tmp_path: Path) -> None:
    checkpoint = tmp_path / "mine.safetensors"
    for manifest, words in (
        ("", "names no training manifest"),
        ("absent.csv", "absent.csv is not beside the checkpoint"),
    ):
        found = find(samples(4), checkpoint, manifest=manifest, manifest_sha256="0" * 64)
        assert (found.state, words in found.sentence) == ("unchecked", True)
        require_clear(found, allowed=False)
    known = training(tmp_path, samples(1)[0]) | {"manifest_sha256": "0" * 64}
    assert "is not the manifest whose hash" in find(samples(4), checkpoint, **known).sentence


def test_a_selection_is_a_layout_or_a_manifest_and_a_split(tmp_path: Path) -> None:
    for name in ("real/a.mp4", "fake/b.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    tree = select("real-fake", str(tmp_path))
    assert [unit.location for unit in tree.units()] == [
        f"{tmp_path}/{sample.path}" for sample in tree.samples
    ]
    write_manifest(
        [replace(tree.samples[0], split="test"), tree.samples[1]], tmp_path / "manifest.csv"
    )
    manifest = str(tmp_path / "manifest.csv")
    assert len(select(manifest, None).samples) == 2
    (unit,) = select(manifest, "memory://bucket/", split="test").units()
    assert unit.location == f"memory://bucket/{tree.samples[0].path}"
    for arguments, words in (
        ((manifest, None, "val"), "no file is in split val; there are"),
        (("real-fake", None, None), "name its folder with --root"),
        (("real-fake", "s3://x", None), "an address needs a manifest"),
        (("nonsense", None, None), "neither a manifest nor a known layout"),
    ):
        with pytest.raises(ManifestError, match=words):
            select(arguments[0], arguments[1], split=arguments[2])


def test_crops_are_not_recompressed() -> None:
    crop = Sample(path="a.png", label="real", kind="crop", dataset="d")
    chosen = Selection(dataset="d", root="x", split="all", samples=(crop,))
    assert len(list(chosen.units())) == 1
    with pytest.raises(ConfigError, match="a crop cannot be recompressed"):
        list(chosen.units(("clean", "crf40")))


def test_a_ledger_tells_the_frames_of_who_decides(run: Path, tmp_path: Path) -> None:
    with Results(run) as results:
        frames = results.deciding_frames("real/0000.mp4")
    assert [frame[:3] for frame in frames] == [
        (frame, frame / 4, (1.0, 2.0, 31.0, 42.0)) for frame in range(4)
    ]
    (unit,) = selection(1).units()
    alone = outcome(unit)
    first, second = (replace(alone.tracks[0], track=track) for track in (7, 3))
    faces = tuple(
        replace(alone.frames[0], track=track, frame=frame, probability=probability)
        for track, frame, probability in ((7, 0, 0.5), (7, 1, 0.25), (3, 1, 0.75))
    )
    with Ledger(tmp_path, {}, [unit.key]) as ledger:
        ledger.record(replace(alone, tracks=(first, second), frames=faces))
        assert [row[0] for row in ledger.deciding_frames(unit.sample.place)] == [0, 1]
        assert [row[1] for row in ledger.frame_maxima()] == [0.5, 0.75]


@pytest.mark.parametrize(
    ("library", "extra"),
    [(plot_library, "evaluate"), (arrow_library, "evaluate")],
)
def test_a_missing_library_is_named_with_its_extra(
    library: Any, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr("importlib.import_module", absent)
    with pytest.raises(ConfigError, match=rf"pip install 'deepfake\[{extra}\]'"):
        library()


def test_predictions_and_comparisons_need_no_torch() -> None:
    code = (
        "import sys; import forensics.evaluation.outputs, forensics.evaluation.compare, "
        "forensics.evaluation.predictions; sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
