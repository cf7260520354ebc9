"""Splits by identity and source: nobody in two of them, and the refusal names the rows."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from makers_datasets import celebdf_tree, dfdc_tree

from forensics.datasets.adapters import read
from forensics.datasets.manifest import Sample
from forensics.datasets.splits import (
    assign_splits,
    check_no_leak,
    components,
    grouped,
    leaks,
    links,
)
from forensics.errors import ManifestError

FRACTIONS = {"train": 0.6, "val": 0.2, "test": 0.2}


def sample(path: str, label: str = "real", **fields: object) -> Sample:
    return Sample(path=path, label=label, kind="video", dataset="d", **fields)  # type: ignore[arg-type]


def names(prefix: str) -> st.SearchStrategy[tuple[str, ...]]:
    name = st.integers(0, 30).map(lambda number: f"{prefix}{number}")
    return st.lists(name, max_size=2).map(tuple)


@st.composite
def manifests(draw: st.DrawFn) -> list[Sample]:
    rows = draw(
        st.lists(
            st.tuples(
                st.sampled_from(["real", "fake"]),
                names("person"),
                names("recording"),
                st.sampled_from(["", "", "g1", "g2"]),
            ),
            min_size=1,
            max_size=40,
        )
    )
    return [
        sample(f"{n}.mp4", label, identities=people, sources=recordings, group=group)
        for n, (label, people, recordings, group) in enumerate(rows)
    ]


def linked(samples: list[Sample]) -> list[set[int]]:
    """Connected components once more, the slow way: paint neighbours until nothing changes."""
    by_link: dict[object, set[int]] = defaultdict(set)
    for row, each in enumerate(samples):
        for link in links(each):
            by_link[link].add(row)
    found: list[set[int]] = []
    left = set(range(len(samples)))
    while left:
        part = {min(left)}
        while True:
            wider = part.union(*(rows for rows in by_link.values() if rows & part))
            if wider == part:
                break
            part = wider
        found.append(part)
        left -= part
    return found


@given(manifests())
def test_components_are_everything_that_hangs_together(samples: list[Sample]) -> None:
    assert [set(rows) for rows in components(samples)] == linked(samples)


@settings(deadline=None)
@given(manifests(), st.integers(0, 3), st.randoms(use_true_random=False))
def test_splits_never_share_anybody_and_do_not_depend_on_the_order(
    samples: list[Sample], seed: int, random: object
) -> None:
    try:
        result = assign_splits(samples, FRACTIONS, seed=seed)
    except ManifestError:
        # Everything hangs together too much: no group was left for some split.
        return
    check_no_leak(result)
    assert [each.path for each in result] == [each.path for each in samples]
    assert {each.split for each in result} == set(FRACTIONS)
    shuffled = list(samples)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    again = {each.path: each.split for each in assign_splits(shuffled, FRACTIONS, seed=seed)}
    assert again == {each.path: each.split for each in result}


@given(manifests())
def test_leaks_are_exactly_the_names_in_two_splits(samples: list[Sample]) -> None:
    splits = ("train", "val", "test", "")
    rows = [
        Sample(
            path=each.path,
            label=each.label,
            kind=each.kind,
            dataset=each.dataset,
            identities=each.identities,
            sources=each.sources,
            group=each.group,
            split=splits[number % 4],  # type: ignore[arg-type]
        )
        for number, each in enumerate(samples)
    ]
    where: dict[tuple[str, str], set[str]] = defaultdict(set)
    for row in rows:
        for link in links(row):
            where[link] |= {row.split} - {""}
    expected = {link for link, found in where.items() if len(found) > 1}
    assert {(leak.kind, leak.name) for leak in leaks(rows)} == expected


def test_shares_come_near_for_both_labels() -> None:
    samples = [
        sample(f"{n}.mp4", "fake" if n % 4 else "real", sources=(f"s{n // 2}",)) for n in range(800)
    ]
    result = assign_splits(samples, {"train": 0.8, "val": 0.1, "test": 0.1}, seed=3)
    for label, total in (("real", 200), ("fake", 600)):
        for split, share in (("train", 0.8), ("val", 0.1), ("test", 0.1)):
            count = sum(each.label == label and each.split == split for each in result)
            assert abs(count / total - share) < 0.03, (label, split, count)


def test_another_seed_gives_another_split_and_a_share_of_zero_gives_none() -> None:
    samples = [sample(f"{n}.mp4", "fake" if n % 2 else "real") for n in range(60)]
    first, second = (assign_splits(samples, FRACTIONS, seed=seed) for seed in (1, 2))
    assert first != second
    assert {
        each.split
        for each in assign_splits(samples, {"train": 0.9, "val": 0.1, "test": 0.0}, seed=1)
    } == {"train", "val"}


@pytest.mark.parametrize(
    "fractions", [{"train": 0.8}, {"train": 0.5, "dev": 0.5}, {"train": 1.5, "val": -0.5}]
)
def test_shares_that_are_none_are_refused(fractions: dict[str, float]) -> None:
    with pytest.raises(ManifestError, match="must add up to 1"):
        assign_splits([sample("a.mp4")], fractions, seed=0)


def test_a_set_that_hangs_together_too_much_cannot_be_split() -> None:
    samples = [sample(f"{n}.mp4", identities=("a", f"p{n}")) for n in range(5)]
    with pytest.raises(ManifestError, match="5 files make 1 groups that share nobody"):
        assign_splits(samples, {"train": 0.5, "val": 0.5}, seed=0)


def test_a_leak_names_the_person_and_the_rows() -> None:
    samples = [
        sample("real/a.mp4", identities=("anna",), split="train"),
        sample("fake/b.mp4", "fake", identities=("bob", "anna"), split="test"),
        sample("c.mp4", identities=("anna",)),
    ]
    with pytest.raises(ManifestError) as caught:
        check_no_leak(samples)
    text = str(caught.value)
    assert "identity anna in row 2 fake/b.mp4 (test) and row 1 real/a.mp4 (train)" in text
    check_no_leak(samples[:1] + samples[2:])


def test_many_leaks_are_counted_not_listed() -> None:
    samples = [
        sample(f"{split}{n}.mp4", sources=(f"s{n}",), split=split)
        for n in range(20)
        for split in ("train", "val")
    ]
    with pytest.raises(ManifestError, match="and 15 more"):
        check_no_leak(samples)


def test_a_fake_ties_both_of_its_people_into_one_split(tmp_path: Path) -> None:
    """Celeb-DF's fakes carry two people: id0 with id16 and id0 with id17 are one component."""
    found = read(celebdf_tree(tmp_path))
    groups = {each.path: each.group for each in grouped(found.samples)}
    together = {
        groups["Celeb-synthesis/id0_id16_0003.mp4"],
        groups["Celeb-synthesis/id0_id17_0003.MP4"],
        groups["Celeb-real/id0_0003.mp4"],
    }
    assert len(together) == 1
    assert groups["Youtube-real/videos/00009.mp4"] not in together
    # The official list shares id0 between training and test, and is told so.
    with pytest.raises(ManifestError, match="identity celebdf:id0"):
        check_no_leak(found.samples)


def test_a_dfdc_part_stays_together(tmp_path: Path) -> None:
    found = read(dfdc_tree(tmp_path))
    parts = components(found.samples)
    names_ = [{Path(found.samples[row].path).parts[0] for row in rows} for rows in parts]
    assert all(len(folders) == 1 for folders in names_)
