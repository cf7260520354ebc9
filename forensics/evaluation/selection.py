"""Which files a run looks at, and the hash that names exactly this list."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from forensics.datasets import adapters
from forensics.datasets.manifest import Sample
from forensics.datasets.manifest_file import read_manifest
from forensics.errors import ConfigError, ManifestError
from forensics.evaluation.outcome import AS_IT_IS, Unit


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """`samples` with paths below `root` (a folder or an address such as `s3://bucket/folder`).

    `problems`: what the data set names and does not have, one sentence each.
    """

    dataset: str
    root: str
    split: str
    samples: tuple[Sample, ...]
    problems: tuple[str, ...] = ()

    def units(self, conditions: Sequence[str] = (AS_IT_IS,)) -> Iterator[Unit]:
        """Every file under every condition; a file's conditions follow each other.

        Raises ConfigError where something other than a video would have to be recompressed.
        """
        for sample in self.samples:
            for condition in conditions:
                if condition != AS_IT_IS and sample.kind != "video":
                    raise ConfigError(
                        f"{sample.place}: a {sample.kind} cannot be recompressed; leave out "
                        "--robustness"
                    )
                location = self.location(sample)
                yield Unit(sample=sample, location=location, condition=condition)

    def location(self, sample: Sample) -> str:
        """Where its file is. A path that has a root of its own stays as it is."""
        own = "://" in sample.path or Path(sample.path).is_absolute()
        return sample.path if own else f"{self.root.rstrip('/')}/{sample.path}"

    def manifest_sha256(self) -> str:
        """Of the rows as they are: another file, label, person or order is another manifest."""
        digest = hashlib.sha256()
        for sample in self.samples:
            digest.update(f"{_cells(sample)!r}\n".encode())
        return digest.hexdigest()


def select(dataset: str, root: str | None, *, split: str | None = None) -> Selection:
    """The files of a data set: `dataset` is a layout (`forensics.datasets.adapters`) whose tree
    lies at `root`, or a manifest or table with the columns path and label.

    A table's paths are relative to `root`, or to its own folder without one. Raises ManifestError,
    also where nothing is left of the split.
    """
    if dataset in adapters.ADAPTERS and dataset != "csv":
        if root is None or "://" in root:
            raise ManifestError(
                f"{dataset}: name its folder with --root"
                + ("" if root is None else "; an address needs a manifest as DATASET")
            )
        found = adapters.read(Path(root), dataset)
        samples, problems = found.samples, _sentences(found.problems)
    else:
        samples, problems = _table(Path(dataset), root)
        root = root or str(Path(dataset).parent)
    chosen = tuple(sample for sample in samples if split in (None, sample.split))
    if not chosen:
        there = Counter(sample.split or "none" for sample in samples)
        raise ManifestError(
            f"{dataset}: no file is in split {split}; there are {dict(there)}"
            if samples
            else f"{dataset}: no file was found in {root}"
        )
    return Selection(
        dataset=dataset, root=root, split=split or "all", samples=chosen, problems=problems
    )


def _table(path: Path, root: str | None) -> tuple[tuple[Sample, ...], tuple[str, ...]]:
    if not path.is_file():
        raise ManifestError(
            f"{path}: neither a manifest nor a known layout ({', '.join(adapters.ADAPTERS)})"
        )
    if root is not None or path.suffix.lower() != ".csv":
        # The files may be anywhere: whether they exist shows when they are examined.
        return tuple(read_manifest(path)), ()
    found = adapters.read(path, "csv")
    return found.samples, _sentences(found.problems)


def _sentences(problems: Sequence[adapters.Problem]) -> tuple[str, ...]:
    return tuple(f"{problem.where}: {problem.kind}: {problem.detail}" for problem in problems)


def _cells(sample: Sample) -> tuple[object, ...]:
    return (
        sample.path,
        sample.member,
        sample.label,
        sample.kind,
        sample.dataset,
        sample.method,
        sample.identities,
        sample.sources,
        sample.split,
        sample.compression,
        sample.group,
    )
