"""A manifest's crops into shards, by several processes, and again from where it was stopped.

The rows are divided into units whose content depends on the manifest and the settings alone. Each
unit becomes visible as a whole (`shard_index`): however often a run is killed and started again,
with however many workers, the files in the end are the same, byte for byte.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from forensics.config import ExtractionConfig, FacesConfig, Limits
from forensics.datasets.manifest import ASIDE, Sample
from forensics.datasets.manifest_file import read_manifest
from forensics.datasets.shard_index import (
    read_lines,
    unit_done,
    write_columns,
    write_durably,
)
from forensics.datasets.shards import COLUMNS_FOLDER, SETTINGS_FILE, CropStore
from forensics.datasets.workers import OUT_OF_MEMORY, Job, MakeDetector, run_jobs
from forensics.errors import ForensicsError, ManifestError

if TYPE_CHECKING:
    from forensics.faces import FaceDetector

SCHEMA = "deepfake-crops/1"
_LOCK = ".lock"
# Crops of a unit, by estimate: 4096 make a shard of about 100 MB, good for network disks; small
# sets are cut finer, so that all workers have something to do and a kill loses little.
_UNIT_CROPS = (256, 4096)
_UNITS_AIMED_AT = 64

# Rows done, rows in all.
OnProgress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What an extraction has come to; `skipped`: reason -> rows, `cut` rows of this run."""

    rows: int
    crops: int
    cut: int
    skipped: Mapping[str, int]


def extract(
    manifest: Path,
    out: Path,
    config: ExtractionConfig | None = None,
    *,
    workers: int,
    on_progress: OnProgress,
    make_detector: MakeDetector | None = None,
) -> Summary:
    """Cut the crops of all rows of `manifest` into `out`; `forensics.datasets.shards` reads them.

    Started again with the same manifest and settings it goes on; with others it refuses. With
    `workers` above 1 they are spawned processes: call it below `if __name__ == "__main__"`. Raises
    ManifestError and ForensicsError, both of which leave finished units in place.
    """
    config = config or ExtractionConfig()
    samples = read_manifest(manifest)
    _require_files(samples, manifest)
    units = plan(samples, config)
    out.mkdir(parents=True, exist_ok=True)
    with _locked(out):
        _prepare(out, samples, len(units), config)
        todo = [unit for unit in range(len(units)) if not unit_done(out, unit)]
        rows_done = len(samples) - sum(len(units[unit]) for unit in todo)
        jobs = [
            Job(
                unit=unit,
                rows=tuple((row, samples[row]) for row in units[unit]),
                folder=manifest.parent,
                out=out,
                config=config,
            )
            for unit in todo
        ]

        def advance(rows: int) -> None:
            on_progress(rows_done + rows, len(samples))

        advance(0)
        try:
            if jobs:
                run_jobs(jobs, workers, make_detector or mtcnn, advance)
            if jobs or not _readable(out):
                write_columns(out, len(units))
        except OSError as error:
            raise ForensicsError(
                f"{error.filename or out}: {error.strerror or error}; finished shards are kept:"
                " run the same command again when this is mended"
            ) from error
        except MemoryError as error:
            raise ForensicsError(OUT_OF_MEMORY) from error
        skipped = Counter[str]()
        crops = 0
        for line in read_lines(out, len(units)):
            crops += len(line["crops"])
            skipped.update([line["reason"]] if line["reason"] else [])
    return Summary(
        rows=len(samples), crops=crops, cut=len(samples) - rows_done, skipped=dict(skipped)
    )


def _readable(out: Path) -> bool:
    try:
        CropStore.open(out)
    except ManifestError:
        return False
    return True


def mtcnn() -> FaceDetector:
    """The detector that scans, on one thread: the workers are as many as the cores.

    Four frames at a time: a fifth faster on one thread than sixteen, and less memory.
    """
    import cv2

    from forensics.faces import MtcnnDetector
    from forensics.runtime import set_threads

    set_threads(1)
    cv2.setNumThreads(1)
    return MtcnnDetector(FacesConfig(batch_frames=4), max_faces=Limits().max_faces)


def plan(samples: Sequence[Sample], config: ExtractionConfig) -> list[range]:
    """Runs of rows, one per unit, of about equally many crops."""
    expected = [_expected(sample, config) for sample in samples]
    low, high = _UNIT_CROPS
    wanted = min(max(sum(expected) // _UNITS_AIMED_AT, low), high)
    units: list[range] = []
    start = crops = 0
    for row, count in enumerate(expected):
        crops += count
        if crops >= wanted:
            units.append(range(start, row + 1))
            start, crops = row + 1, 0
    if start < len(samples):
        units.append(range(start, len(samples)))
    return units


def _expected(sample: Sample, config: ExtractionConfig) -> int:
    if sample.split == ASIDE:
        return 0
    return 1 if sample.kind == "crop" else config.frames


def _require_files(samples: Sequence[Sample], manifest: Path) -> None:
    missing = [
        row for row, sample in enumerate(samples) if not (manifest.parent / sample.path).exists()
    ]
    if missing:
        shown = "; ".join(f"row {row + 1} {samples[row].path}" for row in missing[:3])
        more = f"; and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise ManifestError(
            f"{manifest}: no such file: {shown}{more}; `deepfake data check {manifest.name} --out"
            " FILE` makes a manifest of those that are there"
        )


def _prepare(out: Path, samples: Sequence[Sample], units: int, config: ExtractionConfig) -> None:
    """Remember what is being made here, or refuse to make something else."""
    rows = json.dumps([asdict(sample) for sample in samples]).encode()
    settings = {
        "schema": SCHEMA,
        # First what was chosen, then what follows from it: a refusal names the first difference.
        **asdict(config),
        "manifest_sha256": hashlib.sha256(rows).hexdigest(),
        "rows": len(samples),
        "units": units,
    }
    file = out / SETTINGS_FILE
    try:
        before = cast("dict[str, Any]", json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        before = None
    except ValueError as error:
        raise ManifestError(f"{file}: damaged ({error}); give another --out") from error
    if before is None:
        if any(path.name != _LOCK for path in out.iterdir()):
            raise ManifestError(f"{out}: holds other files; give an empty or a new folder")
        write_durably(file, (json.dumps(settings, indent=2) + "\n").encode())
    elif before != settings:
        name = next(key for key in settings if before.get(key) != settings[key])
        other = f"with {name} {before.get(name)}, now {settings[name]}"
        if name == "manifest_sha256":
            other = f"of another manifest ({before.get('rows')} rows, now {len(samples)})"
        raise ManifestError(
            f"{out}: holds crops {other}; give another --out, or what was given before to go on"
        )
    for name in ("shards", "index"):
        (out / name).mkdir(exist_ok=True)
        for leftover in (out / name).glob("*.part"):
            leftover.unlink()
    shutil.rmtree(out / f"{COLUMNS_FOLDER}.part", ignore_errors=True)


@contextmanager
def _locked(out: Path) -> Generator[None]:
    """One extraction per folder; the lock goes with the process, however that ends."""
    with (out / _LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise ForensicsError(f"{out}: another extraction is writing there") from error
            # A network disk that knows no locks: whoever uses one sees to it.
        yield
