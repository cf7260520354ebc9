"""Whatever a user calls a data set -> a folder of crops: crops, a manifest, a tree as it comes."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

from forensics.config import ExtractionConfig
from forensics.datasets.check import check
from forensics.datasets.extraction import OnProgress, extract
from forensics.datasets.manifest import Sample, relocated
from forensics.datasets.manifest_file import PARQUET, read_manifest, write_manifest
from forensics.datasets.shards import COLUMNS_FOLDER, SETTINGS_FILE, CropStore
from forensics.datasets.splits import assign_splits, check_no_leak
from forensics.errors import ManifestError

# Where a data set brings no splits of its own. No test split: that is evaluation's business.
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
        return CropStore.open(data)
    if not data.exists():
        raise ManifestError(f"{data}: no such file or folder; check the path")
    manifest = data
    if not _is_manifest(data):
        work.mkdir(parents=True, exist_ok=True)
        manifest = work / MANIFEST
        base = data.parent if data.is_file() else data
        write_manifest(relocated(_divided(data, seed, on_note), base, work), manifest)
    check_no_leak(read_manifest(manifest))
    summary = extract(manifest, work / CROPS, config, workers=workers, on_progress=on_progress)
    if not summary.crops:
        raise ManifestError(f"{data}: no face was found; {work / CROPS}/skipped.csv says why")
    if summary.skipped:
        reasons = ", ".join(f"{count} {reason}" for reason, count in summary.skipped.items())
        on_note(f"rows without crops: {reasons}; {work / CROPS}/skipped.csv names them")
    return CropStore.open(work / CROPS)


def _divided(data: Path, seed: int, on_note: Callable[[str], None]) -> list[Sample]:
    """The samples of a data set, in its own splits or in new ones."""
    found = check(data)
    for problem in found.found.problems[:5]:
        on_note(f"{problem.kind}: {problem.where}: {problem.detail}")
    if len(found.found.problems) > 5:
        on_note(f"and {len(found.found.problems) - 5} more; `deepfake data check` names all")
    samples = list(found.samples)
    if any(sample.split for sample in samples):
        return samples
    shares = ", ".join(f"{share:.0%} {name}" for name, share in SHARES.items())
    on_note(f"no splits of its own: divided by identity and source into {shares}")
    return assign_splits(samples, SHARES, seed=seed)


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
