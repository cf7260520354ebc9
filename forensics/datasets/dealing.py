"""People dealt out to the splits where whole groups of files cannot be; what crosses is set aside.

Celeb-DF swaps everybody with everybody: its files hang together, and the split that gets them
leaves the others without fakes. Then each person goes to one split, and a file is kept where all
of its people are in one; sources and groups of files count as people do.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

from forensics.datasets.manifest import ASIDE, Sample, Split
from forensics.datasets.splits import Link, components, links

_STARTS = 4  # of the search, which ends in a local optimum; the best one counts
_SWEEPS = 50  # over everybody: a bound, few are needed
# What an empty class is taken for, as a logarithm: worse than all that can be won elsewhere.
_EMPTY = -100.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    """`holders`: numbers of those who must all be in one split; `allowed`: splits it may have."""

    label: str
    holders: tuple[int, ...]
    allowed: Collection[str]


def deal(
    samples: Sequence[Sample],
    shares: Mapping[str, float],
    *,
    seed: int,
    tests: Collection[str] = (),
    whole: bool = False,
) -> list[Sample]:
    """The same samples, each with a split of `shares` (adding up to 1), or with `aside`.

    `tests`: the places of files that are for testing if for anything, which then no other file is.
    `whole`: people who share files, directly or not, stay together, and then nothing is aside. No
    person, source or group is in two splits; the order of the samples does not matter. Splits can
    stay without one class: the caller looks.

    The best deal has the highest geometric mean of the files kept, over splits and labels and
    weighted by the shares: many files, in about these shares, and no class empty if it can be
    helped; but for test files, whose weight is their part of all. It is searched for by moving
    whole circles of people, then single people, for as long as that makes it better.
    """
    ordered = sorted(samples, key=lambda sample: sample.place)
    part = len(tests) / len(samples)
    weights = {name: share * (1 - part) for name, share in shares.items() if share > 0}
    optional = ("test",) if tests else ()
    weights |= dict.fromkeys(optional, part)
    files, circles = _held(ordered, tests, [name for name in weights if shares.get(name)])
    chances = random.Random(seed)
    singles = [[holder] for circle in circles for holder in circle]
    # Whoever leaves a circle alone helps nobody: some begin with everybody on their own.
    ways = [[circles]] if whole else [[circles, singles], [singles]]
    best = max(
        (
            _searched(files, stages, weights, optional, chances)
            for _ in range(_STARTS)
            for stages in ways
        ),
        key=lambda deal: round(deal.worth(), 9),  # the first of equals
    )
    split_of = {
        sample.place: cast(Split, best.split(file) or ASIDE)
        for sample, file in zip(ordered, files, strict=True)
    }
    return [replace(sample, split=split_of[sample.place]) for sample in samples]


def _held(
    samples: Sequence[Sample], tests: Collection[str], learning: Collection[str]
) -> tuple[list[_File], list[list[int]]]:
    """The samples as files with holders, and the circles: holders who share files, directly or not.

    Who is in no file without somebody else needs no place: where the other one is, the files are.
    So a recording goes with the person it shows. A file that shows nobody is its own holder.
    """
    rows_of: dict[Link, list[int]] = defaultdict(list)
    for row, sample in enumerate(samples):
        for link in links(sample):
            rows_of[link].append(row)

    def leads(link: Link) -> bool:
        rows = rows_of[link]
        others = set(links(samples[rows[0]])).intersection(*(links(samples[row]) for row in rows))
        return not any((-len(rows_of[o]), o) < (-len(rows), link) for o in others)

    leading = [link for link in sorted(rows_of) if leads(link)]
    number = {link: n for n, link in enumerate(leading)}
    files: list[_File] = []
    for sample in samples:
        holders = tuple(number[link] for link in sorted(set(links(sample))) if link in number)
        files.append(
            _File(
                label=sample.label,
                holders=holders or (number.setdefault(("file", sample.place), len(number)),),
                allowed=("test",) if sample.place in tests else learning,
            )
        )
    circles = [
        sorted({holder for row in rows for holder in files[row].holders})
        for rows in components(samples)
    ]
    return files, circles


@dataclass(slots=True, kw_only=True)
class _Deal:
    """Who is where, and what that keeps."""

    files: Sequence[_File]
    weights: Mapping[str, float]  # of the splits
    optional: Collection[str]  # splits that may stay empty: one file more is counted there
    at: dict[int, str]
    files_of: Mapping[int, Sequence[int]]
    kept: dict[tuple[str, str], int] = field(default_factory=dict[tuple[str, str], int])

    def split(self, file: _File) -> str:
        """Empty where it is set aside."""
        splits = {self.at[holder] for holder in file.holders}
        return splits.pop() if len(splits) == 1 and not splits.isdisjoint(file.allowed) else ""

    def worth(self) -> float:
        """Logarithm of the weighted geometric mean."""
        return sum(
            self.weights[split] * math.log(count + (split in self.optional))
            if count or split in self.optional
            else _EMPTY
            for (split, _), count in self.kept.items()
        )

    def move(self, holders: Collection[int], split: str) -> None:
        """Everybody of `holders` to a split, with what that changes."""
        touched = sorted({file for holder in holders for file in self.files_of[holder]})
        for change in (-1, 1):
            for number in touched:
                file = self.files[number]
                if at := self.split(file):
                    self.kept[at, file.label] += change
            self.at.update(dict.fromkeys(holders, split))


def _searched(
    files: Sequence[_File],
    stages: Sequence[Sequence[Sequence[int]]],
    weights: Mapping[str, float],
    optional: Collection[str],
    chances: random.Random,
) -> _Deal:
    """A deal, begun at random, that moving no group of the last stage would make better."""
    files_of: dict[int, list[int]] = defaultdict(list)
    for number, file in enumerate(files):
        for holder in file.holders:
            files_of[holder].append(number)
    starts = chances.choices(list(weights), list(weights.values()), k=len(stages[0]))
    deal = _Deal(
        files=files,
        weights=weights,
        optional=optional,
        at={h: start for group, start in zip(stages[0], starts, strict=True) for h in group},
        files_of=files_of,
        kept={(split, file.label): 0 for file in files for split in file.allowed},
    )
    for file in files:
        if at := deal.split(file):
            deal.kept[at, file.label] += 1
    for groups in stages:
        for _ in range(_SWEEPS):
            moved = [_placed(deal, group) for group in chances.sample(groups, len(groups))]
            if not any(moved):
                break
    return deal


def _placed(deal: _Deal, group: Sequence[int]) -> bool:
    """Move a group to the split where it is worth most; whether that is another than before."""
    here = best = deal.at[group[0]]
    worth = deal.worth() + 1e-9
    for split in deal.weights:
        if split != here:
            deal.move(group, split)
            if (found := deal.worth()) > worth:
                best, worth = split, found
    deal.move(group, best)
    return best != here
