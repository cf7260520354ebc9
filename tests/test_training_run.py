"""Whole runs: what they leave behind, how they stop and go on, and what ends them."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from makers_training import crop, tiny_config, write_store
from safetensors.torch import load_file
from torch import nn

from forensics.checkpoint import load_checkpoint
from forensics.config import load_config
from forensics.datasets.manifest import Sample
from forensics.datasets.manifest_file import read_manifest
from forensics.datasets.shard_index import Outcome, write_columns, write_unit
from forensics.datasets.shards import SETTINGS_FILE, CropStore
from forensics.errors import ConfigError, ManifestError, TrainingError
from forensics.evaluation.leak import find
from forensics.models.autoencoder import PLANS
from forensics.training import autoencoders, learner, samples, trainer
from forensics.training.config import TrainConfig
from forensics.training.logbook import read_rows
from forensics.training.losses import NO_PAIR
from forensics.training.material import Material, may_stand_alone
from forensics.training.trainer import train
from forensics.training.validation import Scores

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    # Python 3.12 warns of every fork beside threads, which PyTorch's loader is made for.
    pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> CropStore:
    folder = write_store(tmp_path_factory.mktemp("store") / "crops")
    (folder / SETTINGS_FILE).write_text(json.dumps({"manifest_sha256": "5" * 64}))
    return CropStore.open(folder)


def standing_of(run: Path) -> dict[str, Any]:
    from safetensors import safe_open

    with safe_open(run / "last.safetensors", framework="pt") as file:
        return json.loads(file.metadata()["state"])


def assert_equal_runs(one: Path, other: Path) -> None:
    """To the bit, but for how fast they went."""
    for name in ("last.safetensors", "best.safetensors"):
        first, second = load_file(one / name), load_file(other / name)
        assert first.keys() == second.keys()
        assert all(torch.equal(value, second[key]) for key, value in first.items())
    assert standing_of(one) == standing_of(other)
    timed = {"images_per_s", "waiting"}
    rows = [
        [{k: v for k, v in row.items() if k not in timed} for row in read_rows(run)]
        for run in (one / "metrics.csv", other / "metrics.csv")
    ]
    assert rows[0] == rows[1]


def test_a_run_learns_and_leaves_a_checkpoint_that_scans(tmp_path: Path, store: CropStore) -> None:
    told: list[Any] = []
    config = tiny_config()
    done = train(config, store, tmp_path / "mine", on_step=told.append, on_validation=told.append)
    assert (done.step, done.total, done.unreadable) == (12, 12, 0)
    assert done.best_auc == 1.0
    assert [type(one).__name__ for one in told].count("Progress") == 12
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == [
        "best.safetensors",
        "config.yaml",
        "curves.png",
        "environment.json",
        "last.safetensors",
        "metrics.csv",
        "tensorboard",
        "trained_on.csv",
    ]
    assert list((tmp_path / "mine" / "tensorboard").iterdir())
    assert (tmp_path / "mine" / "curves.png").read_bytes().startswith(b"\x89PNG")
    effective = yaml.safe_load((tmp_path / "mine" / "config.yaml").read_text())
    assert load_config(TrainConfig, effective, "config.yaml") == config
    facts = json.loads((tmp_path / "mine" / "environment.json").read_text())
    assert facts["crops"] == 64
    assert facts["software"]["torch"] == torch.__version__.partition("+")[0]
    assert {"git_revision", "crops_sha256", "device"} <= facts.keys()
    card = load_checkpoint(done.checkpoint).card
    assert card.name == "mine"
    assert (card.preprocessing.size, card.preprocessing.margin) == (32, 1.3)
    assert card.metrics["video_auc"] == 1.0
    assert "toy: 6 real, 6 fake (lighter)" in card.training_data
    assert facts["manifest_sha256"] == "5" * 64
    assert card.training_manifest == "trained_on.csv"
    beside = tmp_path / "mine" / card.training_manifest
    assert card.manifest_sha256 == hashlib.sha256(beside.read_bytes()).hexdigest()
    trained_on = read_manifest(beside)
    assert [(one.path, one.label, one.split) for one in trained_on[:2]] == [
        ("videos/000.mp4", "real", "train"),
        ("videos/001.mp4", "fake", "train"),
    ]
    assert (len(trained_on), trained_on[7].split) == (16, "val")
    finding = find(
        trained_on[:1], done.checkpoint, manifest=beside.name, manifest_sha256=card.manifest_sha256
    )
    assert finding.state == "leak"
    assert card.thresholds.real <= 0.5 <= card.thresholds.fake


def test_a_data_set_left_out_is_neither_learned_nor_judged_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = CropStore.open(write_store(tmp_path / "crops", second_half="other"))
    told: list[Any] = []
    read: set[str] = set()
    real = CropStore.read

    def remember(store: CropStore, row: int) -> Any:
        read.add(store.names["dataset"][int(store.rows.dataset[row])])
        return real(store, row)

    monkeypatch.setattr(CropStore, "read", remember)
    config = tiny_config(data__leave_out=["other"], validation__every=12)
    done = train(config, store, tmp_path / "run", on_validation=told.append)
    assert told[0].videos == 2
    card = load_checkpoint(done.checkpoint).card
    assert card.training_data.startswith("24 crops. toy: 3 real, 3 fake (lighter). Left out: other")
    splits = {
        (one.dataset, one.split) for one in read_manifest(tmp_path / "run" / card.training_manifest)
    }
    assert splits == {("toy", "train"), ("toy", "val"), ("other", "aside")}
    assert read == {"toy"}
    # What it starts from has seen it: then it is not called unseen.
    init = tiny_config(model__init=str(done.checkpoint), data__leave_out=["other"], steps=1)
    train(init, store, tmp_path / "on")
    samples = read_manifest(tmp_path / "on" / "trained_on.csv")
    assert {one.split for one in samples} == {"train", "val"}


@pytest.mark.parametrize("when", ["early", "at the end"])
def test_a_loader_process_that_does_not_end_is_ended(
    store: CropStore, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    monkeypatch.setattr(torch.utils.data._utils, "MP_STATUS_CHECK_INTERVAL", 0.1)
    before = set(multiprocessing.active_children())
    material = Material(store, tiny_config(steps=3, data__workers=1), rank=0, world=1)
    batches = material.batches(0)
    for _ in range(2 if when == "early" else 3):
        next(batches)
    (loader,) = set(multiprocessing.active_children()) - before
    os.kill(loader.pid or 0, signal.SIGSTOP)  # as a machine that gives it no time
    if when == "early":
        batches.close()
    else:
        assert next(batches, None) is None
    loader.join(5)
    assert loader.exitcode == -signal.SIGKILL


def test_an_unknown_data_set_cannot_be_left_out(tmp_path: Path, store: CropStore) -> None:
    with pytest.raises(ConfigError, match=r"data\.leave_out: the data are of toy; none of mine"):
        train(tiny_config(data__leave_out=["mine"]), store, tmp_path / "run")
    assert not (tmp_path / "run" / "config.yaml").exists()


KILLED = """
import os, signal, sys
sys.path.insert(0, {tests!r})
import torch
torch.set_num_threads(1)
from pathlib import Path
from makers_training import tiny_config
from forensics.datasets.shards import CropStore
from forensics.training.trainer import train

def on_step(told):
    if told.step == 8:
        os.kill(os.getpid(), signal.SIGKILL)

config = tiny_config(data__augment=True, data__workers=2)
train(config, CropStore.open({crops!r}), Path({out!r}), on_step=on_step)
"""


def folder_of(store: CropStore) -> Path:
    return store.__reduce__()[1][0]


def test_killed_and_resumed_equals_uninterrupted_to_the_bit(
    tmp_path: Path, store: CropStore
) -> None:
    words = {"tests": str(Path(__file__).parent), "crops": str(folder_of(store))}
    script = KILLED.format(**words, out=str(tmp_path / "killed"))
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert standing_of(tmp_path / "killed")["step"] == 6
    config = tiny_config(data__augment=True, data__workers=0)
    train(config, store, tmp_path / "killed", resume=True)
    train(config, store, tmp_path / "whole")
    assert_equal_runs(tmp_path / "killed", tmp_path / "whole")


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer__name": "sgd", "accumulate": 2, "steps": 8},
        {"optimizer__name": "sam", "ema": 0, "data__self_blended": 1.0},
        {"precision": "bf16", "data__balance": [], "model__freeze": ["patch_embed"]},
    ],
    ids=["sgd", "sam", "bf16"],
)
def test_stopped_and_resumed_equals_uninterrupted_whatever_the_settings(
    tmp_path: Path, store: CropStore, changes: dict[str, Any]
) -> None:
    config = tiny_config(**changes)
    asked: list[None] = []

    def after_five() -> bool:
        asked.append(None)
        return len(asked) == 5

    stopped = train(config, store, tmp_path / "stopped", should_stop=after_five)
    assert stopped.step == 5
    train(config, store, tmp_path / "stopped", resume=True)
    train(config, store, tmp_path / "whole")
    assert_equal_runs(tmp_path / "stopped", tmp_path / "whole")


RECONSTRUCTED = {"self_blended": 0.5, "reconstructed": 0.5, "autoencoder_steps": 2}


def test_stopped_among_its_autoencoders_and_resumed_equals_uninterrupted(
    tmp_path: Path, store: CropStore
) -> None:
    config = tiny_config(**{f"data__{key}": value for key, value in RECONSTRUCTED.items()})
    done: list[int] = []
    stopped = train(
        config,
        store,
        tmp_path / "stopped",
        on_autoencoders=lambda step, _: done.append(step),
        should_stop=lambda: len(done) > 2,  # the first is whole, the second has begun
    )
    assert stopped.step == 0
    learned = tmp_path / "stopped" / "autoencoders"
    assert len([*learned.iterdir()]) == 1
    train(config, store, tmp_path / "stopped", resume=True)
    train(config, store, tmp_path / "whole")
    assert_equal_runs(tmp_path / "stopped", tmp_path / "whole")
    for path in learned.iterdir():
        assert path.read_bytes() == (tmp_path / "whole" / "autoencoders" / path.name).read_bytes()
    (learned / "shuffle.safetensors").write_bytes(b"torn")
    with pytest.raises(TrainingError, match=r"shuffle\.safetensors: no autoencoder.*remove it"):
        train(config, store, tmp_path / "stopped", resume=True)
    said = load_checkpoint(tmp_path / "whole" / "best.safetensors").card.training_data
    assert "25% of the images in pairs of a real and what an autoencoder made of it" in said


def test_an_autoencoder_learns_to_draw_a_picture_again(store: CropStore) -> None:
    material = Material(store, tiny_config(data__self_blended=0.5), rank=0, world=1)
    patches = autoencoders._patches(material.read_real, np.random.default_rng(0))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for name in ("bilinear", "nearest"):  # alone, and against a critic
            pupil = autoencoders._Learner(PLANS[name], 40, torch.device("cpu"), bf16=False)
            x = next(patches)

            def error(x: torch.Tensor = x, network: nn.Module = pupil.network) -> float:
                return float((network(x) - x).detach().abs().mean())

            before = error()
            for step in range(40):
                pupil.step(step, next(patches))
            assert error() < 0.8 * before, name


def test_a_finished_run_resumes_to_itself(tmp_path: Path, store: CropStore) -> None:
    config = tiny_config(steps=3)
    first = train(config, store, tmp_path / "run")
    assert train(config, store, tmp_path / "run", resume=True) == first


def test_what_is_shown_does_not_depend_on_loader_processes(store: CropStore) -> None:
    def shown(workers: int) -> list[Any]:
        config = tiny_config(data__augment=True, data__workers=workers, steps=3)
        return list(Material(store, config, rank=0, world=1).batches(0))

    for alone, helped in zip(shown(0), shown(2), strict=True):
        assert torch.equal(alone.images, helped.images)
        assert torch.equal(alone.labels, helped.labels)
    assert not torch.equal(shown(0)[0].images, shown(0)[1].images)


def test_memory_does_not_grow_with_the_data_set(tmp_path: Path) -> None:
    import tracemalloc

    def peak(videos: int, name: str) -> int:
        store = CropStore.open(write_store(tmp_path / name, videos=videos, crops=8))
        tracemalloc.start()
        material = Material(store, tiny_config(steps=6), rank=0, world=1)
        for _ in material.batches(0):
            pass
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    peak(8, "first")  # pays for what is imported on first use
    assert peak(64, "large") - peak(8, "small") < 448 * 200  # 448 more crops of 12,288 bytes


TWO = """
import sys
sys.path.insert(0, {tests!r})
import torch
torch.set_num_threads(1)
from pathlib import Path
from makers_training import tiny_config
from forensics.datasets.shards import CropStore
from forensics.training.trainer import train
config = tiny_config(
    model__options={options!r}, data__self_blended=0.5, data__reconstructed=0.5,
    data__autoencoder_steps=1, data__augment=True, accumulate=2, steps=5,
)
train(config, CropStore.open({crops!r}), Path({out!r}))
"""


def test_two_processes_learn_what_one_learns(tmp_path: Path, store: CropStore) -> None:
    options = {"patch_size": 16, "width": 16, "depth": 2, "heads": 2}  # no dropout
    words = {"tests": str(Path(__file__).parent), "crops": str(folder_of(store))}
    script = tmp_path / "two.py"
    script.write_text(TWO.format(**words, options=options, out=str(tmp_path / "two")))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(
        [*torchrun, "--nproc-per-node", "2", str(script)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    changes: dict[str, Any] = {
        "data__self_blended": 0.5,
        "data__reconstructed": 0.5,
        "data__autoencoder_steps": 1,
    }
    changes |= {"data__augment": True, "accumulate": 2, "steps": 5}
    config = tiny_config(model__options=options, **changes)
    train(config, store, tmp_path / "one")
    for path in (tmp_path / "one" / "autoencoders").iterdir():  # whichever process learned it
        assert path.read_bytes() == (tmp_path / "two" / "autoencoders" / path.name).read_bytes()
    one, two = (load_file(tmp_path / name / "last.safetensors") for name in ("one", "two"))
    for key, value in one.items():
        assert torch.allclose(value, two[key], atol=2e-5), key
    facts = json.loads((tmp_path / "two" / "environment.json").read_text())
    assert facts["processes"] == 2
    aucs = [read_rows(tmp_path / name / "metrics.csv")[-1]["val_auc"] for name in ("one", "two")]
    assert aucs[0] == aucs[1]


def test_validation_is_in_eval_and_inference_mode_and_training_is_not(
    tmp_path: Path, store: CropStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[tuple[bool, bool, bool]] = set()
    logits = learner.Learner.logits

    def spy(self: Any, network: Any, batch: Any) -> torch.Tensor:
        judging = len(batch.failures) == 0 and torch.is_inference_mode_enabled()
        seen.add((judging, network.training, torch.is_grad_enabled()))
        return logits(self, network, batch)

    monkeypatch.setattr(learner.Learner, "logits", spy)
    for ema in (0.9, 0):  # without an average the very network that learns is judged
        seen.clear()
        train(tiny_config(steps=7, ema=ema), store, tmp_path / f"{ema}")
        assert seen == {(False, True, True), (True, False, False)}


def test_the_best_checkpoint_so_far_is_kept(
    tmp_path: Path, store: CropStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not compared with the validation before: 0.5, 1.0, 0.25, 0.75 keeps the second."""
    labels = np.array([0, 0, 1, 1])
    logits = iter([[1, 0, 1, 0], [0, 1, 2, 3], [2, 1, 0, 1], [0, 3, 2, 4], [0, 9, 9.5, 10]])

    def scored(*_: Any, **__: Any) -> Any:
        return Scores(logits=np.array(next(logits), float), labels=labels), ()

    monkeypatch.setattr(trainer, "score_videos", scored)
    told: list[Any] = []
    done = train(
        tiny_config(validation__every=1, steps=5), store, tmp_path / "r", on_validation=told.append
    )
    assert [(round(one.auc, 3), one.best) for one in told] == [
        (0.5, True),
        (1.0, True),
        (0.125, False),
        (0.75, False),
        (1.0, False),
    ]
    assert done.best_step == 2
    assert load_checkpoint(done.checkpoint).card.metrics["images_seen"] == 16


def test_only_reals_suffice_for_self_blended_fakes(tmp_path: Path) -> None:
    folder = write_store(tmp_path / "crops", fakes=False, val_fakes=False)
    config = tiny_config(data__self_blended=1.0, steps=2)
    told: list[Any] = []
    train(config, CropStore.open(folder), tmp_path / "run", on_validation=told.append)
    assert told[-1].videos == 8  # 4 reals, and a fake of each


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"fakes": False}, "the training split holds no fakes"),
        ({"val_fakes": False}, "the split `val` holds reals only"),
        ({"videos": 2}, "no crop is in the split `val`"),
    ],
)
def test_a_missing_class_or_split_is_named(
    tmp_path: Path, words: dict[str, Any], message: str
) -> None:
    store = CropStore.open(write_store(tmp_path / "crops", **words))
    with pytest.raises(ManifestError, match=message):
        train(tiny_config(), store, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model__name": "vit-tinny"}, r"'vit-tinny' is unknown; did you mean vit-tiny\?"),
        ({"model__options__widht": 3}, r"model.options.widht: .*; did you mean width\?"),
        ({"model__options__image_size": 64}, "set data.size alone"),
        ({"model__options__width": 7}, "model 'vit-tiny'"),
        ({"model__freeze": ["blcks"]}, r"no part 'blcks'; did you mean blocks\?"),
        ({"precision": "fp16"}, "fp16 needs a CUDA device"),
        ({"model__init": "default"}, "model.init: default fits 0% of this network's weights"),
    ],
)
def test_a_setting_that_cannot_work_is_refused_before_anything_is_written(
    tmp_path: Path, store: CropStore, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        train(tiny_config(**changes), store, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_missing_library_is_named_before_anything_is_written(
    tmp_path: Path, store: CropStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "tensorboard" else find(name)
    )
    with pytest.raises(ConfigError, match=r"tensorboard is not installed: pip install 'deepfake\["):
        train(tiny_config(), store, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_can_start_from_a_checkpoint(tmp_path: Path, store: CropStore) -> None:
    first = train(tiny_config(steps=2), store, tmp_path / "first")
    config = tiny_config(
        model__init=str(first.checkpoint), steps=1, optimizer__lr=1e-12, ema=0, seed=9
    )
    second = train(config, store, tmp_path / "second")
    before, after = load_file(first.checkpoint), load_file(second.checkpoint)
    assert all(torch.allclose(value, after[key], atol=1e-3) for key, value in before.items())
    card = load_checkpoint(second.checkpoint).card
    assert "Started from best.safetensors, which had seen 16 images." in card.training_data
    assert card.metrics["images_seen"] == 2 * 8 + 8


def test_the_card_says_what_the_configuration_says_of_it(tmp_path: Path, store: CropStore) -> None:
    views = [{"margin": 0.7, "weight": 0.25}, {"margin": 1.1, "weight": 0.75, "upside_down": True}]
    words = {"name": "ours", "version": "2.1", "licence": "CC0", "views": views}
    done = train(tiny_config(steps=1, card=words), store, tmp_path / "run")
    card = load_checkpoint(done.checkpoint).card
    assert (card.name, card.version, card.licence) == ("ours", "2.1", "CC0")
    assert card.preprocessing.margin == 1.1
    assert [view.upside_down for view in card.preprocessing.views] == [False, True]


def test_fakes_without_an_original_are_shuffled_and_as_many_reals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shuffled: list[int] = []
    monkeypatch.setattr(samples, "shuffled", lambda image, *_: shuffled.append(0) or image)
    for folder, one_source in (("known", True), ("unknown", False)):
        store = CropStore.open(write_store(tmp_path / folder, one_source=one_source))
        config = tiny_config(
            data__self_blended=0.0, data__augment=True, data__shuffled=0.5, steps=20
        )
        shuffled.clear()
        fakes = reals = 0
        for batch in Material(store, config, rank=0, world=1).batches(0):
            fakes += int(batch.labels.sum())
            reals += int((batch.labels == 0).sum())
        assert (fakes, reals) == (80, 80)
        expected = 40 if one_source else 80 + 40
        assert abs(len(shuffled) - expected) <= 12


def test_what_stands_alone_is_asked_for(tmp_path: Path) -> None:
    """Of three data sets, one of both classes, one of recordings, one of photographs."""
    (tmp_path / "shards").mkdir()
    (tmp_path / "index").mkdir()
    facts = [("both", "video", "real"), ("both", "video", "fake"), ("cameras", "video", "real")]
    outcomes: list[Outcome] = []
    for row, (dataset, kind, label) in enumerate([*facts, ("photographs", "crop", "real")]):
        words: dict[str, Any] = {"dataset": dataset, "kind": kind, "label": label}
        sample = Sample(path=str(row), split="train", **words)
        outcomes.append(Outcome(row=row, sample=sample, crops=(crop(row, 0.0, lighter=False),)))
    write_unit(tmp_path, 0, outcomes, margin=1.8)
    write_columns(tmp_path, 1)
    store = CropStore.open(tmp_path)
    rows = np.arange(4)
    assert may_stand_alone(store, rows, "all") is None
    for wanted, chosen in (("videos", [1, 1, 1, 0]), ("none", [1, 1, 0, 0])):
        found = may_stand_alone(store, rows, wanted)
        assert found is not None
        assert found.tolist() == chosen


@pytest.mark.parametrize("augmented", [False, True])
def test_matched_pairs_show_a_fake_beside_its_original(tmp_path: Path, augmented: bool) -> None:
    """Two crops of the toy's reals and fakes in one place at one moment, of one source."""
    store = CropStore.open(write_store(tmp_path / "crops", one_source=True))
    config = tiny_config(
        data__matched=0.5, data__self_blended=0.0, data__augment=augmented, data__shuffled=1.0
    )
    material = Material(store, config, rank=0, world=1)
    batch = next(iter(material.batches(0)))
    assert batch.pairs.tolist() == [0, 0, 1, 1, NO_PAIR, NO_PAIR, NO_PAIR, NO_PAIR]
    assert batch.labels[:4].tolist() == [0, 1, 0, 1]
    if not augmented:
        light = batch.images[:4].float().mean(dim=(1, 2, 3))
        assert (light[1::2] > light[::2] + 50).all()


class TornStore(CropStore):
    """Some crops cannot be read, as where a disk is failing."""

    torn: tuple[int, ...] = ()

    def read(self, i: int) -> Any:
        if i in self.torn:
            raise ManifestError(f"shard: crop {i} is damaged")
        return super().read(i)


def torn(store: CropStore, *rows: int) -> TornStore:
    result = TornStore(folder_of(store), store.rows, store.names)
    result.torn = rows
    return result


def test_unreadable_crops_are_replaced_counted_and_listed(tmp_path: Path, store: CropStore) -> None:
    bad = torn(store, 0, 1, 2, 24)  # three of the first real video, one of a validation video
    done = train(tiny_config(), bad, tmp_path / "run")
    assert (done.step, done.unreadable) == (12, 4)
    listed = (tmp_path / "run" / "skipped.csv").read_text().splitlines()
    assert listed[0] == "crop,place,reason"
    assert listed[1] == "0,crop 0 of videos/000.mp4 at 0.00 s,shard: crop 0 is damaged"
    assert len(listed) == 5


def test_too_many_unreadable_crops_end_the_run_with_its_work_kept(
    tmp_path: Path, store: CropStore
) -> None:
    config = tiny_config(data__max_unreadable=1, save_every=1000)
    with pytest.raises(TrainingError, match=r"[23] crops cannot be read, .* videos/000.mp4 at"):
        train(config, torn(store, 0, 1, 2, 3), tmp_path / "run")
    assert (tmp_path / "run" / "skipped.csv").exists()
    if standing_of(tmp_path / "run")["step"] > 0:  # mended, it goes on
        assert train(config, store, tmp_path / "run", resume=True).step == 12
    with pytest.raises(TrainingError, match="ten crops in a row cannot be read, the last: crop"):
        train(tiny_config(), torn(store, *range(64)), tmp_path / "other")


def test_a_full_disk_is_named_and_the_state_before_it_kept(
    tmp_path: Path, store: CropStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    from forensics.training import state

    save, calls = state.save_file, []

    def full(*arguments: Any, **words: Any) -> None:
        calls.append(None)
        if len(calls) > 2:
            raise OSError(28, "No space left on device")
        save(*arguments, **words)

    monkeypatch.setattr(state, "save_file", full)
    with pytest.raises(TrainingError, match=r"last.safetensors: .*No space left.*--resume"):
        train(tiny_config(), store, tmp_path / "run")
    monkeypatch.undo()
    assert standing_of(tmp_path / "run")["step"] == 6
    assert train(tiny_config(), store, tmp_path / "run", resume=True).step == 12
    assert not list((tmp_path / "run").glob(".*"))


def test_a_killed_loader_process_is_named_and_the_run_goes_on(
    tmp_path: Path, store: CropStore
) -> None:
    class Deadly(TornStore):
        def read(self, i: int) -> Any:
            if torch.utils.data.get_worker_info() is not None and i == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().read(i)

    config = tiny_config(data__workers=1, data__balance=[], data__self_blended=0.0)
    with pytest.raises(TrainingError, match="a loader process was killed"):
        train(config, Deadly(folder_of(store), store.rows, store.names), tmp_path / "run")
    standing = standing_of(tmp_path / "run")["step"]
    assert 0 <= standing < 12
    assert train(config, store, tmp_path / "run", resume=True).step == 12


def test_a_loss_that_is_no_number_ends_the_run(tmp_path: Path, store: CropStore) -> None:
    with pytest.raises(TrainingError, match=r"the loss of step \d+ is nan: lower optimizer.lr"):
        train(
            tiny_config(optimizer__lr=1e3, optimizer__name="sgd", clip=0, steps=60),
            store,
            tmp_path / "run",
        )


def test_a_folder_with_a_run_is_not_overwritten_and_resume_needs_the_same_run(
    tmp_path: Path, store: CropStore
) -> None:
    run = tmp_path / "run"
    with pytest.raises(TrainingError, match="no state to resume from"):
        train(tiny_config(), store, run, resume=True)
    train(tiny_config(steps=2), store, run)
    with pytest.raises(TrainingError, match="holds a run already"):
        train(tiny_config(), store, run)
    with pytest.raises(ConfigError, match=r"the run has steps=2, not 12; only .* may change"):
        train(tiny_config(), store, run, resume=True)
    other = CropStore.open(write_store(tmp_path / "other", crops=3))
    with pytest.raises(TrainingError, match="began with other crops"):
        train(tiny_config(steps=2), other, run, resume=True)
    last = run / "last.safetensors"
    last.write_bytes(last.read_bytes()[:100])
    with pytest.raises(TrainingError, match="not the state of a run, or damaged"):
        train(tiny_config(steps=2), store, run, resume=True)
