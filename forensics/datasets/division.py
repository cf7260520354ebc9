"""How a data set's files are divided: in whole groups where that will do, else person by person."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from forensics.datasets.dealing import deal
from forensics.datasets.manifest import ASIDE, LABELS, Label, Sample
from forensics.datasets.splits import assign_splits, links, require_shares
from forensics.errors import ManifestError


def divide(
    samples: Sequence[Sample],
    shares: Mapping[str, float],
    *,
    seed: int,
    labels: Collection[Label] = LABELS,
) -> list[Sample]:
    """New splits that share nobody; each holds every label of `labels` that there is, if possible.

    `shares`: split name -> share of the files, adding up to 1. Without one of the test split, the
    data set's own test files neither teach nor choose: they stay where they are.

    Files that hang together go together (`assign_splits`) unless a split is then without a label.
    Then people are dealt out (`deal`), and files that show those of several splits are `aside`. So
    are files that share somebody with the data set's test files. Where these are more than half of
    what there is to learn from, or all of a label, the people of the test files are dealt out with
    the others: test files that cross are then `aside`, too. Raises ManifestError when a wanted
    split stays empty.
    """
    require_shares(shares)
    tests = [] if shares.get("test") else [each for each in samples if each.split == "test"]
    if not tests:
        return _parted(samples, shares, seed, labels)
    places = {sample.place for sample in tests}
    learning = [sample for sample in samples if sample.place not in places]
    known = {link for sample in tests for link in links(sample)}
    apart = [sample for sample in learning if known.isdisjoint(links(sample))]
    if not learning:
        raise ManifestError("every file is in the test split: none is left to learn from")
    present = _present(learning, labels)
    strict: list[Sample] = []
    failure: ManifestError | None = None
    try:
        if not apart:
            raise ManifestError(
                "whatever is there to learn from shows somebody of the test files; add other files"
            )
        chosen = {each.place: each for each in _parted(apart, shares, seed, labels)}
        chosen |= {sample.place: sample for sample in tests}
        strict = [chosen.get(each.place, replace(each, split=ASIDE)) for each in samples]
    except ManifestError as error:
        failure = error
    if 2 * len(apart) >= len(learning) and _complete(strict, shares, present):
        return strict
    dealt = deal(samples, shares, seed=seed, tests=places)
    if _complete(dealt, shares, present):
        return dealt
    if failure is not None:
        raise failure
    return strict


def _parted(
    samples: Sequence[Sample], shares: Mapping[str, float], seed: int, labels: Collection[Label]
) -> list[Sample]:
    present = _present(samples, labels)
    found: list[list[Sample]] = []
    failure: ManifestError | None = None
    try:
        found.append(assign_splits(samples, shares, seed=seed))
    except ManifestError as error:
        failure = error
    for whole in (True, False):
        if found and _complete(found[-1], shares, present):
            return found[-1]
        found.append(deal(samples, shares, seed=seed, whole=whole))
    if _complete(found[-1], shares, present):
        return found[-1]
    # Not every label everywhere, then; but nothing for a whole split is no division.
    for result in found:
        if {split for split, share in shares.items() if share > 0} <= {s.split for s in result}:
            return result
    assert failure is not None  # `assign_splits` fills every split or raises
    raise failure


def _present(samples: Sequence[Sample], labels: Collection[Label]) -> set[Label]:
    return {sample.label for sample in samples if sample.label in labels}


def _complete(
    samples: Sequence[Sample], shares: Mapping[str, float], labels: Collection[Label]
) -> bool:
    filled = {(sample.split, sample.label) for sample in samples}
    wanted = [split for split, share in shares.items() if share > 0]
    return all((split, label) in filled for split in wanted for label in labels)


def aside_in_words(before: Sequence[Sample], after: Sequence[Sample]) -> str:
    """How many files a division set aside and why, in one line; empty where it needed none."""
    aside = {sample.place for sample in after if sample.split == ASIDE}
    if not aside:
        return ""
    tests = [sample for sample in before if sample.split == "test"]
    own = sum(sample.place in aside for sample in tests)
    of_tests = f", {own} of them of the data set's {len(tests)} test files" if tests else ""
    return (
        f"{len(aside)} of {len(after)} files set aside{of_tests}: they show people of more than"
        " one split; their rows say `aside`"
    )
