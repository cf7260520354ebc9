"""What an evaluation costs, with the decoders' floor beside it.

    python benchmarks/evaluate.py CLIP... [--files 50] [--workers 1,2,4] [--memory 50,1000]

A data set is made of links to the clips, in turn. For each number of workers:

- floor: the decoders alone, that many at once, each file's frames read and dropped;
- evaluation: the local engine with its ledger, files per second, and its share of the floor;
- CPU seconds per file, of which the decoders' own: what more machines can and cannot change.

`--memory` runs the engine on that many files each, with `--memory-frames` frames, and samples the
proportional set size of all processes (pages shared between them count once; Linux only): the peak
must not grow with the number of files.

The last lines count what all of DFDC would take at the measured CPU time: 119,154 files, 471.84 GB.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from forensics.checkpoint import Checkpoint, load_checkpoint
from forensics.config import SamplingConfig, ScanConfig
from forensics.evaluation.examine import judge_of, shared_precision
from forensics.evaluation.local import LocalEngine, available_cores
from forensics.evaluation.run import examine_all
from forensics.evaluation.selection import Selection, select
from forensics.sampling import sample_times
from forensics.video import open_video

DFDC_FILES, DFDC_GB = 119_154, 471.84  # as the organisers and Kaggle give them
SAMPLE_S = 0.25


@dataclass(frozen=True, slots=True)
class Cost:
    """Of `files` files: wall time, and CPU time of this process and of its ended children."""

    files: int
    wall_s: float
    own_s: float
    children_s: float

    @property
    def rate(self) -> float:
        return self.files / self.wall_s


def linked(clips: Sequence[Path], folder: Path, count: int) -> Selection:
    """A data set of `count` links to the clips, half of it in `real/`, half in `fake/`."""
    for number in range(count):
        home = folder / ("fake" if number % 2 else "real")
        home.mkdir(parents=True, exist_ok=True)
        clip = clips[number // 2 % len(clips)].resolve()
        (home / f"{number:06d}{clip.suffix}").symlink_to(clip)
    return select("real-fake", str(folder))


def cost_of(work: Callable[[], object], files: int) -> Cost:
    def spent() -> tuple[float, float]:
        own, ended = (
            resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        )
        return own.ru_utime + own.ru_stime, ended.ru_utime + ended.ru_stime

    before, start = spent(), time.perf_counter()
    work()
    after = spent()
    return Cost(files, time.perf_counter() - start, after[0] - before[0], after[1] - before[1])


def decode_all(selection: Selection, config: ScanConfig, workers: int) -> None:
    """What the engine's decoders do, and nothing else."""

    def decode(place: str) -> None:
        with open_video(Path(selection.root) / place, limits=config.limits) as session:
            info = session.info
            positions = sample_times(config.sampling, info.first_s, info.last_s, info.listed_frames)
            for _ in session.frames(positions):
                pass

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(decode, [sample.path for sample in selection.samples]))


def evaluate(
    selection: Selection, checkpoint: Checkpoint, config: ScanConfig, workers: int
) -> None:
    engine = LocalEngine(checkpoint, config, workers=workers)
    judge = judge_of(checkpoint, config, shared_precision(checkpoint.card, config)[1])
    with tempfile.TemporaryDirectory() as folder:
        examine_all(selection, judge, engine, Path(folder) / "run")


class PeakMemory:
    """Samples the memory of this process and its descendants while the block lasts."""

    def __enter__(self) -> PeakMemory:
        self.peak, self._ended = 0, threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._ended.wait(SAMPLE_S):
            self.peak = max(self.peak, sum(map(_proportional_bytes, _tree(os.getpid()))))


def _tree(root: int) -> list[int]:
    """A process and its descendants."""
    found = [root]
    for pid in found:
        for task in Path(f"/proc/{pid}/task").glob("*/children"):
            try:
                found += map(int, task.read_text().split())
            except OSError:
                continue
    return found


def _proportional_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",") if part]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--detector", default="default")
    parser.add_argument("--files", type=int, default=50)
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--workers", type=numbers, default=[1, 2, 4])
    parser.add_argument("--memory", type=numbers, default=[])
    parser.add_argument("--memory-frames", type=int, default=4)
    args = parser.parse_args()
    checkpoint, cores = load_checkpoint(args.detector), available_cores()
    config = ScanConfig(sampling=SamplingConfig(frames=args.frames))
    print(f"{cores} cores, load {os.getloadavg()[0]:.1f}, {args.frames} frames per file")
    with tempfile.TemporaryDirectory() as folder:
        selection = linked(args.clips, Path(folder), args.files)
        floor = cost_of(lambda: decode_all(selection, config, cores), args.files)
        print(f"floor, {cores} decoders: {floor.rate:.2f} files/s")
        measured: dict[int, Cost] = {}
        for workers in args.workers:
            work = partial(evaluate, selection, checkpoint, config, workers)
            cost = measured[workers] = cost_of(work, args.files)
            first = measured[args.workers[0]]
            print(
                f"{workers} workers: {cost.rate:.2f} files/s, {cost.rate / first.rate:.2f} x the "
                f"first, {cost.rate / floor.rate:.0%} of the floor; CPU per file "
                f"{(cost.own_s + cost.children_s) / cost.files:.2f} s, of it decoders "
                f"{cost.children_s / cost.files:.2f} s"
            )
    for count in args.memory:
        few = ScanConfig(sampling=SamplingConfig(frames=args.memory_frames))
        with tempfile.TemporaryDirectory() as folder, PeakMemory() as memory:
            selection = linked(args.clips, Path(folder), count)
            cost = cost_of(partial(evaluate, selection, checkpoint, few, cores), count)
        print(
            f"memory, {count} files of {args.memory_frames} frames: peak "
            f"{memory.peak / 1e9:.2f} GB ({cost.rate:.2f} files/s)"
        )
    if measured:
        estimate(min(measured.values(), key=lambda cost: cost.own_s + cost.children_s), cores)


def estimate(cost: Cost, cores: int) -> None:
    """On paper: DFDC's files at the measured CPU time, every core of every machine busy.

    CPU time, not wall time: it depends little on what else ran here.
    """
    decoders, own = cost.children_s / cost.files, cost.own_s / cost.files
    hours = DFDC_FILES * (decoders + own) / cores / 3600
    decoding = DFDC_FILES * decoders / cores / 3600
    print(f"all of DFDC ({DFDC_FILES:,} files), on paper, {cores} cores a machine:")
    for machines in (1, 8, 32):
        each = DFDC_GB * 1e9 / (hours / machines * 3600) / 1e6
        print(
            f"  {machines} machines: {hours / machines:.1f} hours without a GPU, reading "
            f"{each:.0f} MB/s in all; at least {decoding / machines:.1f} hours with GPUs, which "
            "the decoders then need"
        )


if __name__ == "__main__":
    main()
