"""Files that all hang together: people dealt out, nobody in two splits, what crosses counted."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from makers_datasets import celebdf_circle

from forensics.datasets.adapters import read
from forensics.datasets.dealing import deal
from forensics.datasets.division import aside_in_words, divide
from forensics.datasets.manifest import Sample
from forensics.datasets.splits import assign_splits, check_no_leak, components, links
from forensics.errors import ManifestError

SHARES = {"train": 0.85, "val": 0.15}
BOTH = {(split, label) for split in SHARES for label in ("real", "fake")}


def sample(path: str, label: str = "real", **fields: object) -> Sample:
    return Sample(path=path, label=label, kind="video", dataset="d", **fields)  # type: ignore[arg-type]


def filled(samples: list[Sample]) -> set[tuple[str, str]]:
    return {(each.split, each.label) for each in samples}


def without_split(samples: list[Sample]) -> list[Sample]:
    return [replace(each, split="") for each in samples]


@st.composite
def circles(draw: st.DrawFn) -> list[Sample]:
    """Reals of a few people, fakes of two of them each, some in a group, some of nobody."""
    people = draw(st.integers(1, 7))
    person = st.integers(0, people - 1)
    rows = draw(
        st.lists(
            st.tuples(
                st.lists(person, max_size=2, unique=True),
                st.integers(0, 2),
                st.sampled_from(["", "", "", "g1", "g2"]),
                st.sampled_from(["train", "train", "", "test"]),
            ),
            min_size=1,
            max_size=30,
        )
    )
    return [
        sample(
            f"{n}.mp4",
            "fake" if len(faces) == 2 or n % 5 == 0 else "real",
            identities=tuple(f"p{face}" for face in faces),
            sources=(f"p{faces[0]}-{take}",) if faces else (),
            group=group,
            split=split,
        )
        for n, (faces, take, group, split) in enumerate(rows)
    ]


@settings(deadline=None)
@given(circles(), st.integers(0, 3), st.randoms(use_true_random=False))
def test_nobody_is_in_two_splits_and_every_file_is_accounted_for(
    samples: list[Sample], seed: int, random: object
) -> None:
    try:
        result = divide(samples, SHARES, seed=seed)
    except ManifestError:
        return
    check_no_leak(result)
    assert without_split(result) == without_split(samples)
    for before, after in zip(samples, result, strict=True):
        # What is for testing is tested on or not used; nothing else is tested on.
        allowed = ("test",) if before.split == "test" else ("train", "val")
        assert after.split in (*allowed, "aside")
    shuffled = list(samples)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    again = {each.path: each for each in divide(shuffled, SHARES, seed=seed)}
    assert again == {each.path: each for each in result}


@settings(deadline=None)
@given(circles(), st.integers(0, 3))
def test_nothing_is_aside_that_could_stay_where_all_of_its_people_are(
    samples: list[Sample], seed: int
) -> None:
    dealt = deal(samples, SHARES, seed=seed)
    homes: dict[object, set[str]] = {}
    for each in dealt:
        for link in links(each):
            homes.setdefault(link, set()).update({each.split} - {"aside"})
    for each in dealt:
        if each.split == "aside":
            at = [homes[link] for link in links(each)]
            assert any(not home for home in at) or len(set().union(*at)) > 1
    whole = deal(samples, SHARES, seed=seed, whole=True)
    assert not [each for each in whole if each.split == "aside"]
    check_no_leak(whole)


@pytest.mark.parametrize("people", [5, 6, 9, 14])
def test_where_everybody_is_swapped_with_everybody_both_splits_have_both_labels(
    tmp_path: Path, people: int
) -> None:
    """As large a part of the fakes as can be: of p people k in val, k(k-1) + (p-k)(p-k-1)."""
    found = read(celebdf_circle(tmp_path, people, takes=2, listed=0))
    samples = without_split(list(found.samples))
    assert max(map(len, components(samples))) == len(samples) - 4
    result = divide(samples, SHARES, seed=1)
    check_no_leak(result)
    assert filled(result) >= BOTH
    counts = Counter((each.split, each.label) for each in result)
    chosen = sum(each.split == "val" and bool(each.identities) for each in result) / 2
    assert counts["aside", "real"] == 0
    best = max(k * (k - 1) + (people - k) * (people - k - 1) for k in range(2, people // 2 + 1))
    assert counts["train", "fake"] + counts["val", "fake"] >= 0.8 * 2 * best
    assert counts["train", "fake"] > counts["val", "fake"] > 0
    assert chosen >= 2
    assert "files set aside: they show people of more than one split" in aside_in_words(
        samples, result
    )


def test_celebdf_tests_on_nobody_who_teaches_and_its_test_files_never_teach(
    tmp_path: Path,
) -> None:
    samples = list(read(celebdf_circle(tmp_path, 8, takes=3)).samples)
    result = divide(samples, SHARES, seed=0)
    check_no_leak(result)
    assert filled(result) >= BOTH
    tests = {each.path for each in samples if each.split == "test"}
    assert len(tests) == 9
    for each in result:
        assert (each.path in tests) == (each.split == "test") or each.split == "aside"
    # Nobody knows who is in it: it takes nothing from the others.
    assert next(s for s in result if s.path == "YouTube-real/00002.mp4").split == "test"
    aside = sum(each.split == "aside" for each in result)
    own = sum(each.split == "aside" for each in result if each.path in tests)
    assert aside_in_words(samples, result).startswith(
        f"{aside} of {len(samples)} files set aside, {own} of them of the data set's 9 test files"
    )


def test_test_files_stay_whole_where_their_people_are_few(tmp_path: Path) -> None:
    samples = list(read(celebdf_circle(tmp_path, 12, takes=2, listed=1)).samples)
    tests = [each for each in samples if each.split == "test"]
    assert len(tests) == 3
    result = divide(samples, SHARES, seed=0)
    check_no_leak(result)
    assert filled(result) >= BOTH
    assert [each for each in result if each.split == "test"] == tests
    known = {"celebdf:id0", "celebdf:id1"}
    assert not [e for e in result if e.split in SHARES and known.intersection(e.identities)]


def test_test_files_give_way_where_no_fake_would_be_left() -> None:
    """Many reals of nobody, and four people who are all in the test files and in all fakes."""
    people = [(a, b) for a in range(4) for b in range(4) if a != b]
    samples = [sample(f"{n}.mp4", split="train") for n in range(40)]
    samples += [
        sample(f"{a}-{b}.mp4", "fake", identities=(f"p{a}", f"p{b}"), split="train")
        for a, b in people
    ]
    samples += [sample(f"t{a}.mp4", identities=(f"p{a}",), split="test") for a in range(4)]
    result = divide(samples, SHARES, seed=0)
    check_no_leak(result)
    assert filled(result) >= BOTH


def test_whole_groups_are_kept_together_where_that_will_do() -> None:
    """Two circles of four people and a person alone: by size alone, val gets that person only;
    and to come nearer to the shares by taking a circle apart is not worth a file."""
    samples = [
        sample(f"{c}-{a}-{b}.mp4", "fake" if a != b else "real", identities=(f"{c}{a}", f"{c}{b}"))
        for c in "xy"
        for a in range(4)
        for b in range(4)
    ]
    samples += [sample(f"{c}{n}.mp4", identities=(f"{c}0",)) for c in "xy" for n in range(10)]
    samples.append(sample("z.mp4", identities=("z",)))
    assert filled(assign_splits(samples, SHARES, seed=0)) < BOTH
    assert "aside" in {each.split for each in deal(samples, SHARES, seed=0)}
    result = divide(samples, SHARES, seed=0)
    assert filled(result) == BOTH
    assert aside_in_words(samples, result) == ""


def test_what_cannot_be_divided_is_divided_as_far_as_it_goes() -> None:
    """One part of DFDC holds all fakes: nothing is aside, val has reals only, the caller sees."""
    samples = [sample(f"a{n}.mp4", "fake" if n else "real", group="part-0") for n in range(9)]
    samples += [sample(f"b{n}.mp4", group=f"part-{n}") for n in range(1, 4)]
    assert divide(samples, SHARES, seed=0) == assign_splits(samples, SHARES, seed=0)
    assert aside_in_words(samples, divide(samples, SHARES, seed=0)) == ""
    with pytest.raises(ManifestError, match="9 files make 1 groups that share nobody"):
        divide(samples[:9], SHARES, seed=0)
    # Reals alone can be divided, and are asked for where fakes are made from them.
    reals = [each for each in samples if each.label == "real"]
    assert filled(divide(reals, SHARES, seed=0)) == {("train", "real"), ("val", "real")}


def test_files_that_all_show_somebody_of_the_test_files_teach_nothing() -> None:
    samples = [
        sample("a.mp4", identities=("a",), split="test"),
        sample("b.mp4", "fake", identities=("a",), split="train"),
    ]
    with pytest.raises(ManifestError, match="shows somebody of the test files"):
        divide(samples, SHARES, seed=0)


def test_shares_that_are_none_are_refused_before_anything_is_searched() -> None:
    with pytest.raises(ManifestError, match="must add up to 1"):
        divide([sample("a.mp4", split="test")], {"train": 0.9, "val": 0.9}, seed=0)
