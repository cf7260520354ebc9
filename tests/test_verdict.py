"""forensics.verdict: labels from a closed list, reasons in sentences, nothing without faces."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forensics.structures import (
    ABSTENTION_LABELS,
    JUDGED_LABELS,
    DecodeStats,
    Label,
    Thresholds,
    Track,
    TrackScore,
    Verdict,
    VideoInfo,
)
from forensics.verdict import TRAIT_LIMITS, EvidenceRules, abstain, decide, label_of
from forensics.video.probe import TRAITS

THRESHOLDS = Thresholds(real=0.2, fake=0.8)
RULES = EvidenceRules(min_frames=4, min_face_px=48.0)
VIDEO = VideoInfo(
    kind="video",
    container="mp4",
    codec="h264",
    width=640,
    height=480,
    first_s=0.0,
    last_s=9.9,
    duration_s=10.0,
    frame_rate=30.0,
    declared_frames=300,
    listed_frames=300,
)
IMAGE = replace(
    VIDEO, kind="image", codec="png", last_s=0.0, duration_s=0.0, declared_frames=1, listed_frames=1
)
STATS = DecodeStats(
    decoded_frames=300,
    corrupt_packets=0,
    size_changes=0,
    coverage=1.0,
    positions_asked=32,
    positions_read=32,
    seconds=1.0,
)


def person(
    probability: float, *, id: int = 1, frames: int = 32, face_px: float = 200.0, start: int = 0
) -> TrackScore:
    track = Track(
        id=id,
        crops=np.zeros((frames, 1, 1, 3), dtype=np.uint8),
        times_s=0.3 * np.arange(start, start + frames),
        boxes=np.tile(np.array([0, 0, face_px, face_px / 2], dtype=np.float32), (frames, 1)),
        frame_indices=np.arange(start, start + frames),
    )
    return TrackScore(
        track=track,
        logits=np.zeros(frames),
        frame_probabilities=np.full(frames, probability),
        score=0.0,
        probability=probability,
    )


def judge(
    *people: TrackScore,
    info: VideoInfo | None = VIDEO,
    stats: DecodeStats | None = STATS,
    threshold: float | None = None,
    limits_of_trust: tuple[str, ...] = (),
) -> Verdict:
    return decide(
        people,
        info,
        stats,
        thresholds=THRESHOLDS,
        rules=RULES,
        threshold=threshold,
        limits_of_trust=limits_of_trust,
    )


def said(verdict: Verdict) -> str:
    return " ".join(verdict.reasons)


# Labels


@pytest.mark.parametrize(
    ("probability", "coverage", "label"),
    [
        (0.1, 0.5, "likely_real"),
        (0.1, 0.49, "uncertain"),
        (0.5, 0.1, "uncertain"),
        (0.9, 0.1, "likely_fake"),
    ],
)
def test_nothing_is_called_real_of_which_most_was_not_seen(
    probability: float, coverage: float, label: str
) -> None:
    verdict = judge(person(probability), stats=replace(STATS, coverage=coverage))
    assert verdict.label == label
    named = "most of the file was not seen" in said(verdict)
    assert named == (probability == 0.1 and label == "uncertain")


@pytest.mark.parametrize(
    ("probability", "label"),
    [
        (0.0, "likely_real"),
        (0.2, "likely_real"),
        (0.2001, "uncertain"),
        (0.7999, "uncertain"),
        (0.8, "likely_fake"),
        (1.0, "likely_fake"),
    ],
)
def test_thresholds_belong_to_their_labels(probability: float, label: str) -> None:
    assert judge(person(probability)).label == label
    assert label_of(probability, THRESHOLDS) == label


def test_where_both_thresholds_meet_a_probability_on_them_is_fake() -> None:
    assert label_of(0.5, Thresholds(real=0.5, fake=0.5)) == "likely_fake"


def test_nobody_is_no_face_and_has_no_probability() -> None:
    verdict = judge()
    assert verdict.label == "no_face"
    assert verdict.abstained
    assert verdict.probability is None
    assert verdict.thresholds is None
    assert verdict.people == ()
    assert verdict.reasons[0] == "No face was found in 32 frames read."
    assert judge(stats=None).reasons[0] == "No face was found."


def test_the_most_suspicious_person_decides_not_the_first() -> None:
    # The published code took the first face above 0.55.
    verdict = judge(person(0.6, id=1), person(0.95, id=2), person(0.1, id=3))
    assert verdict.label == "likely_fake"
    assert verdict.probability == 0.95
    assert [item.score.track.id for item in verdict.people] == [2, 1, 3]
    assert [item.label for item in verdict.people] == ["likely_fake", "uncertain", "likely_real"]
    assert "Person 2, seen in 32 frames, decides: probability of fake 0.950" in said(verdict)


def test_a_person_seen_too_little_does_not_decide_but_is_named() -> None:
    verdict = judge(person(0.1, id=1), person(0.99, id=2, frames=3))
    assert verdict.label == "likely_real"
    assert verdict.probability == 0.1
    assert [item.sufficient for item in verdict.people] == [True, False]
    assert verdict.people[1].label == "uncertain"
    assert "Person 2 is more suspicious (0.990) but was not seen sufficiently" in said(verdict)


def test_a_face_too_small_does_not_decide() -> None:
    verdict = judge(person(0.1, id=1), person(0.99, id=2, face_px=47.0))
    assert verdict.label == "likely_real"
    assert judge(person(0.1, id=1), person(0.99, id=2, face_px=48.0)).label == "likely_fake"


def test_a_less_suspicious_bystander_is_not_worth_a_sentence() -> None:
    assert "Person 2" not in said(judge(person(0.9, id=1), person(0.1, id=2, frames=1)))


@pytest.mark.parametrize("probability", [0.01, 0.5, 0.99])
def test_nobody_sufficiently_seen_is_uncertain(probability: float) -> None:
    verdict = judge(person(probability, frames=3))
    assert verdict.label == "uncertain"
    assert verdict.probability == probability
    assert "Nobody was seen sufficiently for a verdict" in said(verdict)
    assert "3 frames where 4 are needed" in said(verdict)


def test_the_probability_of_whoever_was_seen_best_stands_in() -> None:
    verdict = judge(person(0.9, id=1, frames=1), person(0.3, id=2, frames=3, face_px=30.0))
    assert verdict.label == "uncertain"
    assert verdict.probability == 0.3
    assert "3 frames where 4 are needed and 30 pixels where 48 are needed" in said(verdict)
    assert "best seen, person 2" in said(verdict)


# Images and very short videos


def test_an_image_is_judged_by_its_one_frame_and_says_so() -> None:
    verdict = judge(person(0.9, frames=1), info=IMAGE)
    assert verdict.label == "likely_fake"
    assert "single image: nothing over time could be examined" in said(verdict)
    assert "fewer frames to look at (1) than the 4" in said(verdict)
    assert "All faces are from one moment, at 0.0 s." in said(verdict)


def test_a_small_face_in_an_image_is_still_too_small() -> None:
    assert judge(person(0.9, frames=1, face_px=20.0), info=IMAGE).label == "uncertain"


def test_a_video_of_two_frames_is_judged_by_both() -> None:
    short = replace(VIDEO, listed_frames=2, declared_frames=2)
    assert judge(person(0.9, frames=2), info=short).label == "likely_fake"
    assert judge(person(0.9, frames=1), info=short).label == "uncertain"


def test_a_video_of_which_one_frame_is_left_is_no_image() -> None:
    damaged = replace(VIDEO, listed_frames=1, declared_frames=300)
    assert judge(person(0.9, frames=1), info=damaged).label == "uncertain"


def test_without_facts_about_the_file_the_cards_rules_hold() -> None:
    assert judge(person(0.9, frames=3), info=None, stats=None).label == "uncertain"
    assert judge(person(0.9, frames=4), info=None, stats=None).label == "likely_fake"


# A threshold of one's own


def test_an_own_threshold_replaces_the_cards() -> None:
    assert judge(person(0.6), threshold=0.55).label == "likely_fake"
    verdict = judge(person(0.85), threshold=0.9)
    assert verdict.label == "uncertain"
    assert verdict.thresholds == Thresholds(real=0.2, fake=0.9)


def test_an_own_threshold_caps_the_threshold_for_real() -> None:
    verdict = judge(person(0.15), threshold=0.1)
    assert verdict.thresholds == Thresholds(real=0.1, fake=0.1)
    assert verdict.label == "likely_fake"


# Reasons


def test_reasons_of_a_plain_case_word_for_word() -> None:
    assert judge(person(0.913)).reasons == (
        "One person was found, with faces in 32 of 32 frames read.",
        "The faces span 9.3 seconds, from 0.0 s to 9.3 s.",
        "The face is 200 pixels large.",
        "Person 1, seen in 32 frames, decides: probability of fake 0.913, "
        "at or above the threshold for fake, 0.80.",
        "The whole file could be decoded.",
    )


def test_frames_with_two_faces_count_once() -> None:
    verdict = judge(person(0.1, id=1, frames=6), person(0.1, id=2, frames=6, start=3, face_px=90))
    assert verdict.reasons[0] == "2 people were found, with faces in 9 of 32 frames read."
    assert "The faces are 90 to 200 pixels large." in verdict.reasons


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"coverage": 0.4}, "Only 40% of the file could be decoded."),
        ({"coverage": 0.9949}, "Only 99% of the file could be decoded."),
        ({"corrupt_packets": 1}, "Decoding skipped 1 corrupt packet."),
        ({"corrupt_packets": 3}, "Decoding skipped 3 corrupt packets."),
        ({"positions_read": 30}, "Only 30 of 32 sampling positions were read."),
        ({"size_changes": 2}, "The picture's size changed 2 times."),
    ],
)
@pytest.mark.parametrize("people", [(), (person(0.5),)], ids=["no face", "a face"])
def test_what_limits_trust_in_the_decoding_is_said(
    people: tuple[TrackScore, ...], changes: dict[str, float], sentence: str
) -> None:
    assert sentence in judge(*people, stats=replace(STATS, **changes)).reasons


def test_traits_and_the_callers_limits_are_said_in_order() -> None:
    odd = replace(VIDEO, traits=("hdr", "rotated", "interlaced"))
    verdict = judge(person(0.5), info=odd, limits_of_trust=("All frames are identical.",))
    interlaced, hdr = (verdict.reasons.index(TRAIT_LIMITS[key]) for key in ("interlaced", "hdr"))
    assert interlaced < hdr
    assert "rotated" not in said(verdict)
    assert verdict.reasons[-1] == "All frames are identical."


def test_every_trait_of_a_file_is_either_a_limit_of_trust_or_known_to_be_none() -> None:
    harmless = {
        "rotated",
        "mirrored",
        "anamorphic",
        "high_bit_depth",
        "variable_frame_rate",
        "edit_list",
    }
    assert set(TRAIT_LIMITS) | harmless == set(TRAITS)


def test_abstentions_carry_their_reasons() -> None:
    verdict = abstain("undecodable", "No frame could be decoded.", "12 packets are corrupt.")
    assert verdict.label == "undecodable"
    assert verdict.reasons == ("No frame could be decoded.", "12 packets are corrupt.")
    assert verdict.probability is None


@pytest.mark.parametrize(("frames", "px"), [(0, 1.0), (1, -1.0), (1, float("nan"))])
def test_rules_that_ask_for_nothing_sensible_are_refused(frames: int, px: float) -> None:
    with pytest.raises(ValueError, match="min_f"):
        EvidenceRules(min_frames=frames, min_face_px=px)


# Properties


PEOPLE = st.lists(
    st.builds(
        person,
        st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.2, 0.8, 1.0])),
        id=st.integers(1, 9),
        frames=st.integers(1, 8),
        face_px=st.floats(1, 500),
        start=st.integers(0, 20),
    ),
    max_size=5,
    unique_by=lambda score: score.track.id,
)
INFOS = st.one_of(
    st.none(),
    st.builds(
        lambda kind, listed, declared, traits: replace(
            VIDEO, kind=kind, listed_frames=listed, declared_frames=declared, traits=traits
        ),
        st.sampled_from(["video", "image"]),
        st.integers(0, 400),
        st.one_of(st.none(), st.integers(0, 400)),
        st.sampled_from([(), ("hdr",), ("rotated", "interlaced")]),
    ),
)
STATISTICS = st.one_of(
    st.none(),
    st.builds(
        lambda coverage, corrupt, read: replace(
            STATS, coverage=coverage, corrupt_packets=corrupt, positions_read=read
        ),
        st.floats(0, 1),
        st.integers(0, 9),
        st.integers(0, 32),
    ),
)
OWN = st.one_of(st.none(), st.floats(0.01, 0.99))


@settings(deadline=None, max_examples=200)
@given(people=PEOPLE, info=INFOS, stats=STATISTICS, threshold=OWN, data=st.data())
def test_whatever_comes_in_the_verdict_is_one_of_the_list_and_has_its_reasons(
    people: list[TrackScore],
    info: VideoInfo | None,
    stats: DecodeStats | None,
    threshold: float | None,
    data: st.DataObject,
) -> None:
    verdict = judge(*people, info=info, stats=stats, threshold=threshold)
    assert verdict.label in get_args(Label)
    if not people:
        assert verdict.label == "no_face"
    if verdict.label in ("likely_fake", "likely_real"):
        assert any(item.sufficient for item in verdict.people)
        deciding = max(item.score.probability for item in verdict.people if item.sufficient)
        assert verdict.probability == deciding
    assert all(reason.endswith(".") and not reason[0].islower() for reason in verdict.reasons)
    assert len(verdict.people) == len(people)
    shuffled = data.draw(st.permutations(people))
    other = judge(*shuffled, info=info, stats=stats, threshold=threshold)
    assert (other.label, other.probability) == (verdict.label, verdict.probability)
    assert other.reasons == verdict.reasons
    assert [item.score.track.id for item in other.people] == [
        item.score.track.id for item in verdict.people
    ]


@settings(deadline=None)
@given(people=PEOPLE.filter(len), info=INFOS)
def test_more_suspicion_never_makes_a_verdict_milder(
    people: list[TrackScore], info: VideoInfo | None
) -> None:
    severity = {"likely_real": 0, "uncertain": 1, "likely_fake": 2}
    before = judge(*people, info=info)
    raised = [replace(item, probability=min(1.0, item.probability + 0.3)) for item in people]
    assert severity[judge(*raised, info=info).label] >= severity[before.label]


def test_the_two_lists_of_labels_are_the_whole_list() -> None:
    assert set(get_args(Label)) == set(JUDGED_LABELS) | set(ABSTENTION_LABELS)
