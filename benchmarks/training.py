"""What a training costs, with the augmentation floor beside the loader.

    python benchmarks/training.py CROPS [--config FILE.yaml] [--workers 2] [--steps 40]

The floor is what reading and augmenting alone give in one process, times the loader's processes: a
loader cannot be faster. A step is measured with the loader running, as in a training; `waiting` is
the share of its time in which no batch was ready. Peak memory is that of the training process and
of its largest loader process; pages they share count in both.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import yaml

from forensics.config import load_config
from forensics.datasets.augment import Augmentation
from forensics.datasets.shards import CropStore
from forensics.training.config import TrainConfig
from forensics.training.material import Material
from forensics.training.progress import Progress
from forensics.training.trainer import train

_WARM_UP = 5  # steps: kernels are chosen, caches filled


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("crops", type=Path)
    parser.add_argument("--config", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--steps", type=int, default=40)
    args = parser.parse_args()
    mapping = yaml.safe_load(args.config.read_text()) if args.config else {}
    mapping["data"] = {**mapping.get("data", {}), "workers": args.workers}
    mapping |= {"steps": args.steps + _WARM_UP, "save_every": 10**6}
    config = load_config(TrainConfig, mapping, str(args.config or "defaults"))
    store = CropStore.open(args.crops)
    print(
        f"{config.model.name}, {config.data.size} px, batch {config.data.batch}, precision "
        f"{config.precision}; {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, threads: "
        f"{torch.get_num_threads()}, loader processes: {args.workers}"
    )
    read, augment = floor(store, config)
    print(f"one process: reading {1e3 * read:.1f} ms an image, augmenting {1e3 * augment:.1f} ms")
    limit = max(1, args.workers) / (read + augment)
    print(f"floor: {limit:.0f} images/s")
    rate = loader(store, config, args.steps)
    print(f"loader alone: {rate:.0f} images/s, {rate / limit:.2f} of the floor")
    step_time(store, config)
    own, children = (
        resource.getrusage(who).ru_maxrss / 1024
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    print(f"peak memory: {own:.0f} MB, largest loader process {children:.0f} MB")
    if torch.cuda.is_available():
        print(f"peak memory of the GPU: {torch.cuda.max_memory_allocated() / 2**20:.0f} MB")


def floor(store: CropStore, config: TrainConfig) -> tuple[float, float]:
    """Seconds to read one crop, and to augment it: medians over 200, one thread."""
    import cv2

    cv2.setNumThreads(0)
    augmentation = Augmentation(
        config.data.size, margin=config.data.margin, degraded=config.data.degraded
    )
    rng = np.random.default_rng(0)
    reading: list[float] = []
    augmenting: list[float] = []
    for row in rng.integers(len(store), size=220).tolist():
        start = time.perf_counter()
        crop, facts = store.read(row)
        middle = time.perf_counter()
        augmentation([crop], [facts.box_xyxy], rng)
        augmenting.append(time.perf_counter() - middle)
        reading.append(middle - start)
    cv2.setNumThreads(-1)
    return statistics.mean(reading[20:]), statistics.mean(augmenting[20:])


def loader(store: CropStore, config: TrainConfig, steps: int) -> float:
    """Images per second of the loader when nothing else is done, after its first batches."""
    batches = iter(Material(store, config, rank=0, world=1).batches(0))
    for _ in range(_WARM_UP):
        next(batches)
    start = time.perf_counter()
    for _ in range(steps):
        next(batches)
    return steps * config.data.batch / (time.perf_counter() - start)


def step_time(store: CropStore, config: TrainConfig) -> None:
    times: list[float] = []
    last: list[Progress] = []

    def on_step(told: Progress) -> None:
        times.append(time.perf_counter())
        last[:] = [told]
        if sys.stderr.isatty():
            print(f"\rstep {told.step} of {told.total}", end="", file=sys.stderr)

    with tempfile.TemporaryDirectory() as folder:
        # Stopped before its validation, which is no part of a step.
        end = (config.steps or 0) - 1
        train(
            config,
            store,
            Path(folder) / "run",
            on_step=on_step,
            should_stop=lambda: len(times) >= end,
        )
    gaps = np.diff(times)[_WARM_UP:]
    print(
        f"step: {1e3 * float(np.median(gaps)):.0f} ms, {config.data.batch / gaps.mean():.0f} "
        f"images/s, waiting for data {last[0].waiting:.1%}"
    )


if __name__ == "__main__":
    main()
