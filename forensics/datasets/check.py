"""What a folder of training material holds, in numbers: counts, splits, leaks, problems."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from forensics.datasets.adapters import read
from forensics.datasets.division import aside_in_words, divide
from forensics.datasets.manifest import LABELS, SPLITS, Found, Problem, Sample, Split
from forensics.datasets.splits import Leak, components, leaks
from forensics.errors import ManifestError

SCHEMA = "deepfake-data-check/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A data set as found below `root`, with the splits asked for or its own."""

    root: Path
    found: Found
    leaks: tuple[Leak, ...]

    @property
    def samples(self) -> tuple[Sample, ...]:
        return self.found.samples

    @property
    def clean(self) -> bool:
        """No problem and no leak: nothing a person has to look at."""
        return not self.found.problems and not self.leaks

    def counts(self, field: str) -> dict[str, dict[str, int]]:
        """Value of a field -> real and fake files that have it, in order of first appearance."""
        # Splits in the order in which they are used.
        present = {sample.split for sample in self.samples} if field == "split" else set[str]()
        ordered = [name for name in get_args(Split) if name in present]
        result: dict[str, dict[str, int]] = {name: dict.fromkeys(LABELS, 0) for name in ordered}
        for sample in self.samples:
            value = result.setdefault(getattr(sample, field), dict.fromkeys(LABELS, 0))
            value[sample.label] += 1
        return result

    def names(self, field: str) -> int:
        """How many different identities or sources there are."""
        return len({name for sample in self.samples for name in getattr(sample, field)})

    def without(self, field: str) -> int:
        """How many files name no identity, or no source."""
        return sum(not getattr(sample, field) for sample in self.samples)


def check(
    root: Path,
    layout: str | None = None,
    *,
    fractions: Mapping[str, float] | None = None,
    seed: int = 0,
) -> Check:
    """Read everything below `root`; new splits (`divide`) where `fractions` are given.

    Raises ManifestError where nothing can be read at all, and where splits cannot be made.
    """
    found = read(root, layout)
    samples = found.samples
    if not samples:
        first = f"; first of {len(found.problems)} problems: " if found.problems else ""
        what = f"{found.problems[0].where}: {found.problems[0].detail}" if found.problems else ""
        raise ManifestError(f"{root}: no usable file in this {found.layout} folder{first}{what}")
    if fractions is not None:
        samples = tuple(divide(samples, fractions, seed=seed))
    aside = aside_in_words(found.samples, samples)
    found = Found(
        layout=found.layout,
        samples=samples,
        problems=(*found.problems, *_one_sided(samples)),
        notes=(*found.notes, *([aside] if aside else [])),
    )
    return Check(root=root, found=found, leaks=tuple(leaks(samples)))


def _one_sided(samples: tuple[Sample, ...]) -> list[Problem]:
    """A class without a file, in all or in one split: nothing can be learned or measured there."""
    present = Counter((sample.split, sample.label) for sample in samples)
    splits = {split for split, _ in present}
    problems: list[Problem] = []
    for label in LABELS:
        if not any(present[split, label] for split in splits):
            detail = f"no {label} file at all: a detector needs both"
            problems.append(Problem(kind="empty class", where=label, detail=detail))
            continue
        for split in sorted(splits.intersection(SPLITS)):
            if not present[split, label]:
                detail = f"no {label} file in this split"
                problems.append(Problem(kind="empty class", where=split, detail=detail))
    return problems


def to_document(result: Check) -> dict[str, Any]:
    """The whole finding for JSON (schema deepfake-data-check/1); leaks name row numbers from 1."""
    samples = result.samples
    return {
        "schema": SCHEMA,
        "root": str(result.root),
        "layout": result.found.layout,
        "files": len(samples),
        "labels": {label: sum(each.label == label for each in samples) for label in LABELS},
        **{
            f"{field}s": result.counts(field)
            for field in ("split", "dataset", "method", "compression", "kind")
        },
        "identities": {
            "named": result.names("identities"),
            "files_without": result.without("identities"),
        },
        "sources": {"named": result.names("sources"), "files_without": result.without("sources")},
        "groups": len(components(samples)),
        "problems": [
            {"kind": each.kind, "where": each.where, "detail": each.detail}
            for each in result.found.problems
        ],
        "leaks": [
            {
                "kind": leak.kind,
                "name": leak.name,
                "rows": {
                    split: {"row": row + 1, "path": samples[row].place}
                    for split, row in leak.rows.items()
                },
            }
            for leak in result.leaks
        ],
        "notes": list(result.found.notes),
    }
