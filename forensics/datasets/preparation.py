"""Whatever a user calls a data set -> a folder of crops: crops, a manifest, a tree as it comes."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import cv2

from forensics.config import ExtractionConfig
from forensics.datasets.check import check
from forensics.datasets.extraction import OnProgress, extract
from forensics.datasets.manifest import Sample, relocated
from forensics.datasets.manifest_file import PARQUET, read_manifest, write_manifest
from forensics.datasets.shards import COLUMNS_FOLDER, SETTINGS_FILE, CropStore
from forensics.datasets.splits import assign_splits, check_no_leak
from forensics.datasets.store_leaks import check_store_no_leak
from forensics.errors import ManifestError
from forensics.runtime import num_threads, set_threads

# Where a data set does not bring both. No test split: that is evaluation's business.
SHARES = {"train": 0.85, "val": 0.15}
MANIFEST, CROPS = "manifest.csv", "crops"


def is_store(data: Path) -> bool:
    """Whether `data` is a folder of crops, finished or begun."""
    return (data / SETTINGS_FILE).exists() or (data / COLUMNS_FOLDER).is_dir()


def prepare(
    data: Path,
    work: Path,
    config: ExtractionConfig,
    *,
    seed: int,
    workers: int,
    on_progress: OnProgress,
    on_note: Callable[[str], None],
) -> CropStore:
    """The crops of `data`, cut into `work`/crops unless it holds crops itself.

    A data set's tree or a table of one's own becomes `work`/manifest.csv, with splits by identity
    and source where it has none. An interrupted extraction goes on. `on_note` hears what a person
    should know. Raises ManifestError where nothing fits, a split shares people with another, or no
    face was found, and what `extract` raises.
    """
    if is_store(data):
        store = CropStore.open(data)
        check_store_no_leak(store)
        return store
    if not data.exists():
        raise ManifestError(f"{data}: no such file or folder; check the path")
    manifest = data
    if not _is_manifest(data):
        work.mkdir(parents=True, exist_ok=True)
        manifest = work / MANIFEST
        base = data.parent if data.is_file() else data
        write_manifest(relocated(_divided(data, seed, on_note), base, work), manifest)
    check_no_leak(read_manifest(manifest))
    # Cut in this very process, as a single unit is, it would leave one thread for the training.
    threads, cv2_threads = num_threads(), cv2.getNumThreads()
    try:
        summary = extract(manifest, work / CROPS, config, workers=workers, on_progress=on_progress)
    finally:
        set_threads(threads)
        cv2.setNumThreads(cv2_threads)
    if not summary.crops:
        raise ManifestError(f"{data}: no face was found; {work / CROPS}/skipped.csv says why")
    if summary.skipped:
        reasons = ", ".join(f"{count} {reason}" for reason, count in summary.skipped.items())
        on_note(f"rows without crops: {reasons}; {work / CROPS}/skipped.csv names them")
    return CropStore.open(work / CROPS)


def _divided(data: Path, seed: int, on_note: Callable[[str], None]) -> list[Sample]:
    """The samples of a data set, in its own splits where it has both to learn from and to choose
    by. Else what is not for testing is divided: DFDC's parts, say, are all for training."""
    found = check(data)
    for problem in found.found.problems[:5]:
        on_note(f"{problem.kind}: {problem.where}: {problem.detail}")
    if len(found.found.problems) > 5:
        on_note(f"and {len(found.found.problems) - 5} more; `deepfake data check` names all")
    samples = list(found.samples)
    own = {sample.split for sample in samples if sample.split}
    if set(SHARES) <= own:
        return samples
    tests = [sample for sample in samples if sample.split == "test"]
    learning = [sample for sample in samples if sample.split != "test"]
    shares = ", ".join(f"{share:.0%} {name}" for name, share in SHARES.items())
    lacking = " and ".join(sorted(set(SHARES) - own)) if own else "splits"
    on_note(f"no {lacking} of its own: divided by identity and source into {shares}")
    return assign_splits(learning, SHARES, seed=seed) + tests


def _is_manifest(data: Path) -> bool:
    """Whether a file is a manifest; another table is one of the user's own."""
    if not data.is_file():
        return False
    if data.suffix.lower() == PARQUET:
        return True
    try:
        with data.open(newline="", encoding="utf-8-sig") as file:
            header = next(csv.reader(file), list[str]())
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ManifestError(f"{data}: not a manifest: {error}") from error
    return {"path", "label", "kind", "dataset"} <= set(header)
