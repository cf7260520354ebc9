"""Whatever a user calls a data set -> a folder of crops: crops, a manifest, a tree as it comes."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import cv2

from forensics.config import ExtractionConfig
from forensics.datasets.check import check
from forensics.datasets.division import aside_in_words, divide
from forensics.datasets.extraction import OnProgress, extract
from forensics.datasets.manifest import LABELS, Label, Sample, relocated, require_known
from forensics.datasets.manifest_file import PARQUET, read_manifest, write_manifest
from forensics.datasets.shards import COLUMNS_FOLDER, SETTINGS_FILE, CropStore
from forensics.datasets.splits import check_no_leak, links
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
    labels: Collection[Label] = LABELS,
    leave_out: Collection[str] = (),
    on_progress: OnProgress,
    on_note: Callable[[str], None],
) -> CropStore:
    """The crops of `data`, cut into `work`/crops unless it holds crops itself.

    A data set's tree or a table of one's own becomes `work`/manifest.csv, with splits by identity
    and source where its own will not do. An interrupted extraction goes on. `labels`: those that
    must be in both splits. `leave_out`: data sets that must be there. `on_note` hears what a person
    should know. Raises ManifestError where nothing fits, a split shares people with another or
    lacks a label, or no face was found, ConfigError for an unknown data set to leave out, and what
    `extract` raises.
    """
    if is_store(data):
        store = CropStore.open(data)
        check_store_no_leak(store)
        require_known(leave_out, store.names["dataset"])
        return store
    if not data.exists():
        raise ManifestError(f"{data}: no such file or folder; check the path")
    manifest = _with_splits(data, work, seed, labels, leave_out, on_note)
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


def _with_splits(
    data: Path,
    work: Path,
    seed: int,
    labels: Collection[Label],
    leave_out: Collection[str],
    on_note: Callable[[str], None],
) -> Path:
    """A manifest whose splits will do: `data`, where it is one with splits, or one in `work`."""
    manifest = _is_manifest(data)
    samples = read_manifest(data) if manifest else _found(data, on_note)
    require_known(leave_out, {sample.dataset for sample in samples})
    if manifest and any(sample.split for sample in samples):
        check_no_leak(samples)
        _require_labels(samples, data, labels)
        return data
    samples = _divided(samples, seed, labels, on_note)
    check_no_leak(samples)
    _require_labels(samples, data, labels)
    work.mkdir(parents=True, exist_ok=True)
    base = data.parent if data.is_file() else data
    write_manifest(relocated(samples, base, work), work / MANIFEST)
    return work / MANIFEST


def _found(data: Path, on_note: Callable[[str], None]) -> list[Sample]:
    """The samples of a data set or table; what is wrong with it is told."""
    found = check(data)
    for problem in found.found.problems[:5]:
        on_note(f"{problem.kind}: {problem.where}: {problem.detail}")
    if len(found.found.problems) > 5:
        on_note(f"and {len(found.found.problems) - 5} more; `deepfake data check` names all")
    return list(found.samples)


def _divided(
    samples: list[Sample], seed: int, labels: Collection[Label], on_note: Callable[[str], None]
) -> list[Sample]:
    """The samples in their own splits where these hold what is needed to learn from and to choose
    by. Else what is not for testing is divided: DFDC's parts, say, are all for training."""
    there = {sample.label for sample in samples}.intersection(labels)
    lacking = [split for split in SHARES if not there <= _labels_of(split, samples)]
    if not lacking:
        return samples
    result = divide(samples, SHARES, seed=seed, labels=labels)
    shares = ", ".join(f"{share:.0%} {name}" for name, share in SHARES.items())
    own = any(sample.split for sample in samples)
    what = f"{' and '.join(lacking)} of its own" if own else "splits of its own"
    on_note(f"no {what}: divided by identity and source into {shares}")
    if aside := aside_in_words(samples, result):
        on_note(aside)
    return result


def _labels_of(split: str, samples: Sequence[Sample]) -> set[Label]:
    return {sample.label for sample in samples if sample.split == split}


def _require_labels(samples: Sequence[Sample], data: Path, labels: Collection[Label]) -> None:
    """Raise ManifestError where train or val lacks one of `labels`: now, not after the cutting."""
    for label in labels:
        lacking = [split for split in SHARES if label not in _labels_of(split, samples)]
        if not lacking:
            continue
        blended = "train on self-blended fakes alone (--set data.self_blended=1)"
        files = [sample for sample in samples if sample.label == label and sample.split != "test"]
        if not files:
            advice = f"add some, or {blended}" if label == "fake" else "add some: it takes both"
            raise ManifestError(f"{data}: no {label} file to learn from; {advice}")
        shared = Counter(link for sample in files for link in links(sample)).most_common(1)
        tie = "".join(f", {count} of them share {kind} {name}" for (kind, name), count in shared)
        instead = f" or {blended}" if label == "fake" else ""
        raise ManifestError(
            f"{data}: no {label} file for the split {lacking[0]}: there are {len(files)}{tie}, and"
            f" who teaches must not choose. Add files of other people{instead}; or correct who is"
            f" in which file (`deepfake data check {data} --out manifest.csv`), empty the column"
            " split, and give that manifest as --data"
        )


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
