"""Who may be in which split: files that share a person or a recording stay together.

A fake carries two people, so links are transitive: a network that has seen either of them knows
half of the pair. Files are therefore split by connected components over identities, sources and
groups.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

from forensics.datasets.manifest import SPLITS, Sample, Split
from forensics.errors import ManifestError

_SHOWN = 5  # leaks named in an error; the rest is counted

Link = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Leak:
    """An identity, source or group in several splits. `rows`: the first of each, from 0."""

    kind: str
    name: str
    rows: Mapping[str, int]


def links(sample: Sample) -> Iterator[Link]:
    """What ties a sample to others: (`identity` | `source` | `group`, name)."""
    for identity in sample.identities:
        yield "identity", identity
    for source in sample.sources:
        yield "source", source
    if sample.group:
        yield "group", sample.group


def components(samples: Sequence[Sample]) -> list[list[int]]:
    """Row numbers from 0 of each connected component; a sample without links is its own."""
    parents = list(range(len(samples)))

    def root(row: int) -> int:
        while parents[row] != row:
            parents[row] = parents[parents[row]]
            row = parents[row]
        return row

    first: dict[Link, int] = {}
    for row, sample in enumerate(samples):
        for link in links(sample):
            low, high = sorted((root(first.setdefault(link, row)), root(row)))
            parents[high] = low
    members: dict[int, list[int]] = defaultdict(list)
    for row in range(len(samples)):
        members[root(row)].append(row)
    return list(members.values())


def grouped(samples: Sequence[Sample]) -> list[Sample]:
    """The same samples, each `group` naming its component."""
    result = list(samples)
    # The data set's own name for a group first; then whatever sorts first, for stability.
    order = {"group": 0, "identity": 1, "source": 2}
    for rows in components(samples):
        names = sorted((order[kind], name) for row in rows for kind, name in links(samples[row]))
        name = names[0][1] if names else samples[rows[0]].place
        for row in rows:
            result[row] = replace(samples[row], group=name)
    return result


def require_shares(fractions: Mapping[str, float]) -> None:
    """Raise ManifestError unless these are shares of train, val and test that add up to 1."""
    unknown = [name for name in fractions if name not in SPLITS]
    shares = fractions.values()
    if unknown or not abs(sum(shares) - 1) < 1e-6 or not all(share >= 0 for share in shares):
        raise ManifestError(f"shares of train, val and test must add up to 1, not {fractions}")


def assign_splits(
    samples: Sequence[Sample], fractions: Mapping[str, float], *, seed: int
) -> list[Sample]:
    """New splits by component. The same files, fractions and seed give the same splits.

    `fractions`: split name -> share of the files, adding up to 1; both labels are brought near it.
    Components are taken in random order, large ones first, each to the split that it brings nearest
    to its share. Raises ManifestError when a wanted split stays empty: the files hang together too
    much.
    """
    require_shares(fractions)
    parts = [[samples[row] for row in rows] for rows in components(samples)]
    # By content first: the order of the rows must not matter.
    parts.sort(key=lambda part: min(sample.place for sample in part))
    random.Random(seed).shuffle(parts)
    parts.sort(key=len, reverse=True)
    wanted = [split for split, share in fractions.items() if share > 0]
    totals = {label: sum(s.label == label for s in samples) for label in ("real", "fake")}
    lacking = {(s, n): fractions[s] * total for s in wanted for n, total in totals.items()}
    split_of: dict[str, Split] = {}
    for part in parts:
        sizes = {label: sum(s.label == label for s in part) for label in totals}

        def gain(split: str, sizes: Mapping[str, int] = sizes) -> float:
            # How much nearer both labels come to their shares: the fall of (missing files)^2, each
            # over what is wanted there, so that small splits and the rarer label count as much.
            return sum(
                (2 * lacking[split, n] - size) * size / (fractions[split] * totals[n])
                for n, size in sizes.items()
                if size
            )

        chosen = max(wanted, key=gain)
        for label, size in sizes.items():
            lacking[chosen, label] -= size
        split_of |= dict.fromkeys((s.place for s in part), cast(Split, chosen))
    if empty := set(wanted) - set(split_of.values()):
        raise ManifestError(
            f"no files are left for {', '.join(sorted(empty))}: {len(samples)} files make"
            f" {len(parts)} groups that share nobody; add data or ask for fewer splits"
        )
    return [replace(sample, split=split_of[sample.place]) for sample in samples]


def leaks(samples: Sequence[Sample]) -> list[Leak]:
    """Every link that two splits share; samples without a split, or set aside, are in none."""
    seen: dict[Link, dict[str, int]] = defaultdict(dict)
    for row, sample in enumerate(samples):
        if sample.split in SPLITS:
            for link in links(sample):
                seen[link].setdefault(sample.split, row)
    return [
        Leak(kind=kind, name=name, rows=rows)
        for (kind, name), rows in sorted(seen.items())
        if len(rows) > 1
    ]


def check_no_leak(samples: Sequence[Sample]) -> None:
    """Raise ManifestError, naming the rows, when splits share an identity, source or group."""
    found = leaks(samples)
    if found:
        shown = "; ".join(describe(leak, samples) for leak in found[:_SHOWN])
        more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise ManifestError(
            f"the splits share people or recordings: {shown}{more}; make splits that do not with"
            " `deepfake data check DIR --split 0.85,0.15 --out manifest.csv`"
        )


def describe(leak: Leak, samples: Sequence[Sample]) -> str:
    """One leak in words; rows are counted from 1, below the header."""
    places = (
        f"row {row + 1} {samples[row].place} ({split})" for split, row in sorted(leak.rows.items())
    )
    return f"{leak.kind} {leak.name} in {' and '.join(places)}"
