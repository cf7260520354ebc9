"""`deepfake train` through its console script: from data to a checkpoint, stopped and resumed."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch
from forensics.cli.train_show import TrainingScreen
from makers import numbered_picture, write_video
from makers_datasets import celebdf_circle
from makers_extract import DrawnFaces, one_face
from makers_training import write_store
from typer.testing import CliRunner

from forensics.checkpoint import load_checkpoint
from forensics.config import ExtractionConfig
from forensics.datasets import extraction, preparation
from forensics.datasets.extraction import Summary
from forensics.datasets.manifest_file import read_manifest
from forensics.datasets.shards import CropStore
from forensics.datasets.splits import check_no_leak
from forensics.errors import ManifestError
from forensics.evaluation.leak import find
from forensics.training import state
from forensics.training.progress import Progress

(SCRIPT,) = metadata.entry_points(group="console_scripts", name="deepfake")
DEEPFAKE = str(Path(sys.executable).with_name("deepfake"))
TINY = [
    *("--config", "smoke", "--set", "model.name=vit-tiny", "--set", "data.size=32"),
    *("--set", "model.options={patch_size: 16, width: 16, depth: 2, heads: 2}"),
    *("--set", "data.batch=8", "--set", "data.workers=0", "--set", "device=cpu"),
    *("--set", "steps=6", "--set", "optimizer.lr=3e-3", "--set", "data.augment=false"),
]

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def crops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("store") / "crops")


def train(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(SCRIPT.load(), ["train", *arguments], prog_name="deepfake")
    return result.exit_code, result.stdout, result.stderr


def test_one_command_trains_and_names_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crops: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = train(*TINY, "--data", str(crops), "--out", "run")
    assert code == 0
    assert re.fullmatch(
        r"run/best.safetensors: AUC [01]\.\d{3} of the validation videos, step 6 of 6\n", out
    )
    assert re.fullmatch(
        r"step 6: AUC \d\.\d+ of 4 validation videos, loss \d\.\d+, best so far\n", err
    )
    assert load_checkpoint(tmp_path / "run/best.safetensors").card.model == "vit-tiny"
    code, _, err = train(*TINY, "--data", str(crops), "--out", "run")
    assert (code, err.count("\n")) == (2, 1)
    assert "run: holds a run already; go on with it (--resume)" in err
    assert train("--out", "run", "--resume", "--quiet") == (0, out, "")


FIRST = ("--set", "first={data: {size: 16}, steps: 4, seed: 5}")


def weights(file: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(file).model.state_dict()


TWO = ("--set", "first={steps: 4, seed: 5, first: {data: {size: 16}, steps: 3, seed: 7}}")


def test_each_run_gives_the_next_its_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crops: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = train(*TINY, *TWO, "--data", str(crops), "--out", "run")
    assert code == 0
    assert out.startswith("run/best.safetensors: AUC ")
    inner, outer = "run/first/first/best.safetensors", "run/first/best.safetensors"
    said = [f"{what}: AUC " for what in ("step 3", inner, "step 4", outer, "step 6")]
    lines = err.splitlines()
    assert all(line.startswith(start) for line, start in zip(lines, said, strict=True))
    assert err.count("; the run goes on from it\n") == 2
    cards = [load_checkpoint(Path(at)).card for at in (inner, outer, "run/best.safetensors")]
    assert [card.preprocessing.size for card in cards] == [16, 32, 32]
    assert [card.metrics["images_seen"] for card in cards] == [3 * 8, 7 * 8, 13 * 8]
    # By hand: the same three runs.
    start, init = [*TINY, "--data", str(crops), "--quiet"], "--set=model.init={}/best.safetensors"
    small = ("--set", "data.size=16", "--set", "steps=3", "--set", "seed=7")
    assert train(*start, *small, "--out", "one")[0] == 0
    middle = ("--set", "steps=4", "--set", "seed=5", init.format("one"))
    assert train(*start, *middle, "--out", "two")[0] == 0
    assert train(*start, init.format("two"), "--out", "three")[0] == 0
    one, two = weights(Path("run/best.safetensors")), weights(Path("three/best.safetensors"))
    assert all(torch.equal(one[name], two[name]) for name in two)


@pytest.mark.parametrize(
    ("before", "stop", "lost"),
    [
        pytest.param(FIRST, 2, "", id="within the first"),
        pytest.param(FIRST, 4, "run/last.safetensors", id="after the first"),
        pytest.param(FIRST, 7, "", id="within the second"),
        pytest.param(TWO, 2, "", id="within the first of three"),
        pytest.param(TWO, 3, "run/first/last.safetensors", id="after the first of three"),
        pytest.param(TWO, 5, "", id="within the second of three"),
        pytest.param(TWO, 9, "", id="within the third"),
    ],
)
def test_runs_go_on_where_they_stopped(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    crops: Path,
    before: tuple[str, ...],
    stop: int,
    lost: str,  # killed before that state was there
) -> None:
    monkeypatch.chdir(tmp_path)
    command = [*TINY, *before, "--data", str(crops), "--quiet"]
    assert train(*command, "--out", "whole")[0] == 0
    steps: list[int] = []
    plain = TrainingScreen.step

    def step(self: TrainingScreen, told: Progress) -> None:
        plain(self, told)
        steps.append(told.step)
        if len(steps) == stop:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingScreen, "step", step)
        code, _, err = train(*command, "--out", "run")
    assert code == 130
    assert "go on with `deepfake train --out run --resume`" in err
    if lost:
        Path(lost).unlink()
    assert train("--out", "run", "--resume", "--quiet")[0] == 0
    one, two = weights(Path("whole/best.safetensors")), weights(Path("run/best.safetensors"))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_first_run_that_is_none_is_told_before_anything_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crops: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for wrong, message in (
        ("{data: {sise: 16}}", "first: data.sise: "),
        ("{steps: 1, first: {data: {sise: 16}}}", "first: data.sise: "),
    ):
        code, _, err = train(*TINY, "--data", str(crops), "--out", "run", "--set", f"first={wrong}")
        assert (code, err.count("\n")) == (2, 1)
        assert message in err
        assert not Path("run").exists()
    # Of the last run, what only the crops can tell.
    before = ("--set", "first={data: {leave_out: []}, steps: 2}")
    last = ("--data", str(crops), "--out", "run", "--set", "data.leave_out=[mine]")
    code, _, err = train(*TINY, *last, *before)
    assert (code, err.count("\n")) == (2, 1)
    assert "data.leave_out: the data are of toy; none of mine" in err
    assert not Path("run").exists()


def test_a_disk_that_is_full_before_the_first_state_is_no_dead_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crops: Path
) -> None:
    monkeypatch.chdir(tmp_path)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    command = [*TINY, "--data", str(crops), "--out", "run", "--quiet"]
    with monkeypatch.context() as patch:
        patch.setattr(state, "save_file", full)
        code, _, err = train(*command)
    assert (code, err.count("\n")) == (2, 1)
    assert "No space left on device; none was saved before: make room and start again" in err
    code, _, err = train("--out", "run", "--resume")
    assert "no state to resume from; start the run without --resume" in err
    code, _, err = train(*command)
    assert (code, err.count("\n")) == (2, 1)
    assert "holds a checkpoint, but no state to go on from; move best.safetensors" in err
    Path("run/best.safetensors").unlink()
    assert train(*command)[0] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--out is missing"),
        (["--out", "r"], "--data is missing"),
        (["--resume"], "--resume needs --out"),
        (["--resume", "--out", "r"], "r: there is no run to go on with"),
        (["--resume", "--out", "r", "--config", "vit"], "leave --config out"),
        (["--out", "r", "--data", "absent"], "absent: no such file or folder"),
        (["--out", "r", "--data", "empty"], "empty: no known layout fits"),
    ],
)
def test_wrong_usage_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    code, out, err = train(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err


def test_ctrl_c_ends_the_step_saves_the_state_and_says_how_to_go_on(
    tmp_path: Path, crops: Path
) -> None:
    command = [DEEPFAKE, "train", *TINY, "--data", str(crops), "--out", "run"]
    run = subprocess.Popen(
        [*command, *("--set", "steps=100000"), *("--set", "validation.every=5"),
         *("--set", "data.workers=1")],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a terminal sends the signal to the whole group
    )  # fmt: skip
    assert run.stderr is not None
    assert run.stderr.readline().startswith("step 5: AUC")
    os.killpg(run.pid, signal.SIGINT)
    out, err = run.communicate(timeout=60)
    assert run.returncode == 130
    assert "best.safetensors: AUC" in out
    last = err.splitlines()[-1]
    assert re.fullmatch(
        r"deepfake: stopped after step \d+ of 100000; go on with `deepfake train --out run "
        r"--resume`",
        last,
    )
    assert (tmp_path / "run" / "last.safetensors").exists()


def fake_extraction(monkeypatch: pytest.MonkeyPatch, skipped: dict[str, int]) -> list[Any]:
    """Instead of cutting, note the manifest and put the crops of the maker there."""
    seen: list[Any] = []

    def extract(manifest: Path, out: Path, config: Any, **_: Any) -> Summary:
        seen.append(([(s.path, s.label, s.split) for s in read_manifest(manifest)], config))
        write_store(out)
        torch.set_num_threads(2)  # an extraction in this process sets what suits it
        return Summary(rows=8, crops=64, cut=8, skipped=skipped)

    monkeypatch.setattr(preparation, "extract", extract)
    return seen


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"video")


def test_a_data_set_as_it_comes_is_split_cut_and_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    touch(tmp_path / "set", *(f"{label}/{n}.mp4" for label in ("real", "fake") for n in range(10)))
    seen = fake_extraction(monkeypatch, {"no face": 2})
    code, out, err = train(*TINY, "--data", "set", "--out", "run", "--set", "extract.frames=5")
    assert code == 0, err
    (rows, config) = seen[0]
    assert config == ExtractionConfig(frames=5)
    assert {path for path, _, _ in rows} == {
        f"../set/{label}/{n}.mp4" for label in ("real", "fake") for n in range(10)
    }
    assert {(label, split) for _, label, split in rows} == {
        (label, split) for label in ("real", "fake") for split in ("train", "val")
    }
    assert torch.get_num_threads() == 1
    assert "no splits of its own: divided by identity and source into 85% train, 15% val" in err
    assert "rows without crops: 2 no face; run/crops/skipped.csv names them" in err
    assert (tmp_path / "run/manifest.csv").exists()
    assert train("--out", "run", "--resume")[:2] == (0, out)


def prepare(data: Path, work: Path, on_note: Callable[[str], None] = print) -> None:
    preparation.prepare(
        data,
        work,
        ExtractionConfig(),
        seed=0,
        workers=1,
        on_progress=lambda done, total: None,
        on_note=on_note,
    )


def test_a_data_set_without_files_to_choose_by_is_divided_and_its_test_files_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = fake_extraction(monkeypatch, {})
    names = [
        f"{split}/{label}/{split}{n}.mp4"
        for split in ("train", "test")
        for label in ("real", "fake")
        for n in range(6)
    ]
    touch(tmp_path / "set", *names)
    notes: list[str] = []
    prepare(tmp_path / "set", tmp_path / "work", notes.append)
    splits = {
        split: {path for path, _, own in seen[0][0] if own == split}
        for split in ("train", "val", "test")
    }
    assert splits["test"] == {f"../set/{name}" for name in names if name.startswith("test")}
    assert splits["val"]
    assert len(splits["train"]) > len(splits["val"])
    assert any(note.startswith("no val of its own: divided") for note in notes)


def test_celebdf_as_it_comes_becomes_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everybody is swapped with everybody and tested on: from the tree through the cutting, with
    drawn faces, to the checkpoint."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(extraction, "mtcnn", DrawnFaces)
    root = celebdf_circle(tmp_path / "Celeb-DF", people=5)
    for label, draw in (("real", numbered_picture), ("fake", one_face)):
        write_video(tmp_path / f"{label}.mp4", frames=4, draw=draw)
    for path in root.rglob("*.mp4"):
        fake = path.parent.name == "Celeb-synthesis"
        path.write_bytes((tmp_path / ("fake.mp4" if fake else "real.mp4")).read_bytes())
    # What is to be left out is looked for before the faces are cut.
    wrong = "first={data: {leave_out: [dfdc]}, steps: 1}"
    code, _, err = train(*TINY, "--data", "Celeb-DF", "--out", "run", "--set", wrong)
    assert code == 2
    assert "deepfake: data.leave_out: the data are of Celeb-DF-v1; none of dfdc\n" in err
    assert not (tmp_path / "run").exists()
    code, out, err = train(
        *(*TINY, "--data", "Celeb-DF", "--out", "run"),
        *("--set", "extract.frames=2", "--set", "extract.size=64", "--set", "data.self_blended=0"),
    )
    assert code == 0, err
    assert "no val of its own: divided by identity and source into 85% train, 15% val" in err
    samples = read_manifest(tmp_path / "run/manifest.csv")
    check_no_leak(samples)
    aside = sum(sample.split == "aside" for sample in samples)
    own = re.search(r"(\d+) of 29 files set aside, \d of them of the data set's 9 test files", err)
    assert own
    assert int(own[1]) == aside > 0
    store = CropStore.open(tmp_path / "run/crops")
    skipped = (tmp_path / "run/crops/skipped.csv").read_text()
    assert skipped.count("aside") == aside
    assert {store.names["split"][code] for code in store.rows.split} <= {"train", "val", "test"}
    assert out.startswith("run/best.safetensors: AUC ")
    card = load_checkpoint(tmp_path / "run/best.safetensors").card
    finding = find(
        samples,
        tmp_path / "run/best.safetensors",
        manifest=card.training_manifest,
        manifest_sha256=card.manifest_sha256,
    )
    assert finding.state == "leak"
    tests = [sample for sample in samples if sample.split == "test"]
    assert tests
    finding = find(
        tests,
        tmp_path / "run/best.safetensors",
        manifest=card.training_manifest,
        manifest_sha256=card.manifest_sha256,
    )
    assert finding.state == "clear"


def test_a_manifest_is_taken_as_it_is_and_another_table_is_read_by_its_adapter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = fake_extraction(monkeypatch, {})
    touch(tmp_path, *(f"{n}.mp4" for n in range(4)))
    manifest = tmp_path / "m.csv"
    cells = [f"{n}.mp4,{'fake' if n % 2 else 'real'}" for n in range(4)]
    people = ["x,train", "y,train", "z,val", "w,val"]
    header = "path,label,kind,dataset,identity,split\n"
    rows = [f"{cell},video,a,{who}\n" for cell, who in zip(cells, people, strict=True)]
    manifest.write_text(header + "".join(rows))
    prepare(manifest, tmp_path / "one")
    assert [split for _, _, split in seen[-1][0]] == ["train", "train", "val", "val"]
    assert not (tmp_path / "one/manifest.csv").exists()
    table = tmp_path / "mine.csv"
    splits = ["train", "train", "val", "val"]
    lines = [f"{cell},{split}\n" for cell, split in zip(cells, splits, strict=True)]
    table.write_text("path,label,split\n" + "".join(lines))
    prepare(table, tmp_path / "two")
    assert seen[-1][0][0] == ("../0.mp4", "real", "train")
    manifest.write_text(header + "".join(rows).replace("z,val", "x,val"))
    with pytest.raises(ManifestError, match=r"share people or recordings: identity x.*--split"):
        prepare(manifest, tmp_path / "three")


def test_a_manifest_without_splits_is_divided(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = fake_extraction(monkeypatch, {})
    touch(tmp_path, *(f"{n}.mp4" for n in range(8)))
    rows = [f"{n}.mp4,{'fake' if n % 2 else 'real'},video,a\n" for n in range(8)]
    manifest = tmp_path / "m.csv"
    manifest.write_text("path,label,kind,dataset\n" + "".join(rows))
    prepare(manifest, tmp_path / "run")
    assert {(label, split) for _, label, split in seen[0][0]} == {
        (label, split) for label in ("real", "fake") for split in ("train", "val")
    }
    assert {path for path, _, _ in seen[0][0]} == {f"../{n}.mp4" for n in range(8)}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["real,,", "real,,"], "no fake file to learn from; add some, or train on self-blended"),
        (["fake,,", "fake,,"], "no real file to learn from; add some: it takes both"),
        (
            ["real,,", "real,,", "fake,,part-0", "fake,,part-0"],
            "no fake file for the split val: there are 2, 2 of them share group part-0, and who "
            "teaches must not choose. Add files of other people or train on self-blended",
        ),
        (
            ["real,train,", "fake,train,", "real,val,"],
            "no fake file for the split val: there are 1",
        ),
    ],
)
def test_a_class_that_one_split_lacks_is_said_before_the_cutting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: list[str], message: str
) -> None:
    seen = fake_extraction(monkeypatch, {})
    touch(tmp_path, *(f"{n}.mp4" for n in range(len(rows))))
    manifest = tmp_path / "m.csv"
    cells = [f"{n}.mp4,video,a,{row}\n" for n, row in enumerate(rows)]
    manifest.write_text("path,kind,dataset,label,split,group\n" + "".join(cells))
    with pytest.raises(ManifestError, match=re.escape(message)):
        prepare(manifest, tmp_path / "run")
    assert not seen


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("model.name=vit-tinny", "model.name: 'vit-tinny' is unknown; did you mean vit-tiny?"),
        ("model.options.dept=2", "model.options.dept: vit-tiny has none; did you mean depth?"),
        ("model.freeze=[block]", "model.freeze: there is no part 'block'; did you mean blocks?"),
        ("model.init=absent.safetensors", "absent.safetensors: neither a file"),
        ("precision=fp16", "precision fp16 needs a CUDA device"),
    ],
)
def test_what_cannot_be_trained_is_said_before_the_cutting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    touch(tmp_path / "set", *(f"{label}/{n}.mp4" for label in ("real", "fake") for n in range(6)))
    seen = fake_extraction(monkeypatch, {})
    code, out, err = train(*TINY, "--data", "set", "--out", "run", "--set", setting)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert not seen
    assert not Path("run").exists()


def test_reals_alone_are_divided_where_fakes_are_made_from_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    touch(tmp_path / "set", *(f"real/{n}.mp4" for n in range(8)), "fake/a.mp4")
    seen = fake_extraction(monkeypatch, {})
    common = [*TINY, "--data", "set", "--out", "run"]
    code, _, err = train(*common)
    assert (code, seen) == (2, [])
    assert "no fake file for the split val: there are 1" in err
    assert train(*common, "--set", "data.self_blended=1")[0] == 0
    assert {split for _, label, split in seen[0][0] if label == "real"} == {"train", "val"}


def test_data_without_a_face_is_an_error_with_the_place_of_the_reasons(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, *(f"{n}.mp4" for n in range(4)))
    manifest = tmp_path / "m.csv"
    rows = [f"{n}.mp4,{'fake' if n % 2 else 'real'},video,a\n" for n in range(4)]
    manifest.write_text("path,label,kind,dataset\n" + "".join(rows))
    empty = Summary(rows=1, crops=0, cut=1, skipped={"no face": 1})
    monkeypatch.setattr(preparation, "extract", lambda *_, **__: empty)
    with pytest.raises(ManifestError, match=r"no face was found; .*skipped.csv says why"):
        prepare(manifest, tmp_path / "run")
