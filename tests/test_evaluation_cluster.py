"""The Ray engine on a cluster of two nodes on this machine: the local engine's scores, bit for bit.

Starting Ray takes some seconds, and its workers import everything anew: hence `slow`.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from makers_faces import SquareDetector, write_face, write_tree

from forensics.checkpoint import Checkpoint, load_checkpoint
from forensics.config import SamplingConfig, ScanConfig
from forensics.datasets.manifest import Sample
from forensics.errors import ConfigError
from forensics.evaluation.cluster import RayEngine
from forensics.evaluation.examine import judge_of
from forensics.evaluation.ledger import Results
from forensics.evaluation.local import LocalEngine
from forensics.evaluation.outcome import Outcome, Unit
from forensics.evaluation.run import examine_all
from forensics.evaluation.selection import select

pytestmark = [
    pytest.mark.slow,
    # Ray's own: sockets and files of its processes, closed when the interpreter ends.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*:DeprecationWarning"),
]

CONFIG = ScanConfig(device="cpu", sampling=SamplingConfig(frames=6), batch_size=4)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head and a second node, two cores each, whose workers find the tests' modules."""
    ray = pytest.importorskip("ray")
    utils = pytest.importorskip("ray.cluster_utils")
    path = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)
    made = utils.Cluster(
        initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False}
    )
    made.add_node(num_cpus=2)
    ray.init(address=made.address, log_to_driver=False, logging_level="ERROR")
    yield made
    ray.shutdown()
    made.shutdown()
    if path is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = path


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_tree(tmp_path_factory.mktemp("tree"))
    for number in range(10, 22):
        write_face(root / ("fake" if number % 2 else "real") / f"{number}.mp4", seed=number)
    return root


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint: Path) -> Checkpoint:
    return load_checkpoint(tiny_checkpoint)


def by_place(outcomes: Iterator[Outcome]) -> dict[str, Outcome]:
    found = {outcome.place: replace(outcome, seconds=0.0) for outcome in outcomes}
    return dict(sorted(found.items()))


class Elsewhere(SquareDetector):
    """Says on which machine, in which process it worked: one file per process."""

    def __init__(self, folder: Path, *, deadly: bool = False) -> None:
        super().__init__()
        import ray

        self._folder, self._deadly = folder, deadly
        (folder / f"{ray.get_runtime_context().get_node_id()}-{os.getpid()}").touch()

    def detect_small(self, smalls: Any, full_hws: Any) -> Any:
        dead = self._folder / "died"
        if self._deadly and not dead.exists():
            dead.touch()
            os._exit(1)
        return super().detect_small(smalls, full_hws)


def local(checkpoint: Checkpoint, tree: Path) -> dict[str, Outcome]:
    engine = LocalEngine(checkpoint, CONFIG, workers=2, face_detector=SquareDetector())
    return by_place(engine.outcomes(select("real-fake", str(tree)).units()))


def test_two_nodes_give_the_local_scores(
    cluster: Any, tree: Path, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    engine = RayEngine(checkpoint, CONFIG, detector=lambda: Elsewhere(tmp_path))
    chosen = select("real-fake", str(tree))
    judge = judge_of(checkpoint, CONFIG, engine.precision())
    assert by_place(engine.outcomes(chosen.units())) == local(checkpoint, tree)
    nodes = {file.name.split("-")[0] for file in tmp_path.iterdir()}
    assert len(nodes) == 2
    examine_all(chosen, judge, engine, tmp_path / "run")
    with Results(tmp_path / "run") as results:
        assert results.states() == {"done": 19}


def test_the_real_detector_gives_the_local_scores(
    cluster: Any, tree: Path, checkpoint: Checkpoint
) -> None:
    units = list(select("real-fake", str(tree)).units())[:3]
    engine = RayEngine(checkpoint, CONFIG)
    found = by_place(engine.outcomes(iter(units)))
    here = LocalEngine(checkpoint, CONFIG, workers=1)
    assert found == by_place(here.outcomes(iter(units)))


def test_a_lost_model_and_lost_workers_are_made_up_for(
    cluster: Any, tree: Path, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    engine = RayEngine(checkpoint, CONFIG, detector=lambda: Elsewhere(tmp_path, deadly=True))
    killed: list[int] = []
    ended = threading.Event()

    def kill_two_workers() -> None:
        while not ended.is_set() and len(killed) < 2:
            for pid in _descendants("ray::_examine"):
                if pid not in killed and len(killed) < 2:
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)
            time.sleep(0.3)

    killer = threading.Thread(target=kill_two_workers)
    killer.start()
    found = by_place(engine.outcomes(select("real-fake", str(tree)).units()))
    ended.set()
    killer.join()
    assert (tmp_path / "died").exists()
    assert len(killed) == 2
    assert found == local(checkpoint, tree)


def test_addresses_are_read_where_the_files_are_decoded(
    cluster: Any, tree: Path, checkpoint: Checkpoint
) -> None:
    engine = RayEngine(checkpoint, CONFIG, detector=SquareDetector, workers=1)
    sample = Sample(path="a.mp4", label="real", kind="video", dataset="d")
    there = Unit(sample=sample, location=(tree / "real" / "0.mp4").as_uri())
    gone = Unit(sample=replace(sample, path="b.mp4"), location="file:///nowhere/b.mp4")
    found = by_place(engine.outcomes(iter([there, gone])))
    assert found["a.mp4"].probability == local(checkpoint, tree)["real/0.mp4"].probability
    assert (found["b.mp4"].state, "cannot be fetched" in found["b.mp4"].detail) == ("failed", True)


def test_what_cannot_start_is_one_line(
    cluster: Any, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"no weights")
    with pytest.raises(ConfigError, match=r"could not be started there: .*not a valid"):
        RayEngine(replace(checkpoint, path=damaged), CONFIG).precision()
    with pytest.raises(ConfigError, match="workers must be at least 1"):
        RayEngine(checkpoint, CONFIG, workers=0)


def _descendants(title: str) -> list[int]:
    """This process's descendants whose command begins with `title`."""
    parents: dict[int, int] = {}
    titles: dict[int, str] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
            titles[int(folder.name)] = (folder / "cmdline").read_text()
        except OSError:
            continue
        parents[int(folder.name)] = int(fields[1])

    def ours(pid: int) -> bool:
        while pid in parents and pid != os.getpid():
            pid = parents[pid]
        return pid == os.getpid()

    return [pid for pid, text in titles.items() if text.startswith(title) and ours(pid)]
