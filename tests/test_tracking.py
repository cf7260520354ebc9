"""Tracks: one per person, whatever is missed, crossed, cut or reordered."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from portraits import portrait, scene, stranger

from forensics.config import FacesConfig
from forensics.crops import face_crop
from forensics.faces import MtcnnDetector
from forensics.structures import Face, Observation, Track
from forensics.tracking import describe, link, overlaps

# A person is three bands of colour: hair, skin, clothes.
PALETTES = {
    "anna": [(60, 40, 30), (220, 170, 140), (40, 60, 160)],
    "bert": [(170, 130, 60), (150, 95, 70), (180, 30, 40)],
    "cleo": [(20, 20, 22), (95, 60, 45), (60, 150, 70)],
}
SIDE = 40


def crop(who: str, shade: int) -> NDArray[np.uint8]:
    """A crop (64, 64, 3) of a person; `shade` varies its grain and its exposure."""
    rng = np.random.default_rng(shade)
    bands = np.repeat(np.array(PALETTES[who], float), (20, 24, 20), axis=0)[:, None]
    picture = bands * (0.8 + 0.05 * (shade % 5)) + rng.normal(0, 3, (64, 64, 1))
    return np.clip(picture, 0, 255).astype(np.uint8)


def seen(who: str, frame: int, x: float, y: float = 50.0, *, gap: float = 0.3) -> Observation:
    box = np.array([x, y, x + SIDE, y + SIDE * 1.2], np.float32)
    face = Face(xyxy=box, landmarks=np.zeros((5, 2), np.float32), probability=0.99)
    return Observation(frame_index=frame, time_s=frame * gap, face=face, crop=crop(who, frame))


def people(tracks: list[Track], observations: list[Observation]) -> list[list[str]]:
    """Who is in each track, in the order of its faces; found again by the crops' bytes."""
    names = {
        (crop(who, item.frame_index).tobytes(), item.frame_index): who
        for item in observations
        for who in PALETTES
    }
    return [
        [
            names[picture.tobytes(), int(frame)]
            for picture, frame in zip(track.crops, track.frame_indices, strict=True)
        ]
        for track in tracks
    ]


def test_no_faces_give_no_tracks() -> None:
    assert link([]) == []


def test_one_face_gives_one_track_that_keeps_everything() -> None:
    item = seen("anna", 3, 100)
    (track,) = link([item])
    assert track.id == 0
    np.testing.assert_array_equal(track.crops, item.crop[None])
    np.testing.assert_array_equal(track.boxes, item.face.xyxy[None])
    assert track.times_s.tolist() == [item.time_s]
    assert track.frame_indices.tolist() == [3]
    assert track.crops.dtype == np.uint8
    assert track.boxes.dtype == np.float32


def test_a_moving_person_is_one_track() -> None:
    tracks = link([seen("anna", i, 100 + 15 * i) for i in range(12)])
    assert [len(track.times_s) for track in tracks] == [12]
    assert (np.diff(tracks[0].times_s) > 0).all()


@pytest.mark.parametrize("gap", [0.04, 0.3, 5.0, 240.0])
def test_two_people_side_by_side_are_two_tracks_at_any_sampling(gap: float) -> None:
    items = [
        item
        for i in range(10)
        for item in (seen("bert", i, 300, gap=gap), seen("anna", i, 100, gap=gap))
    ]
    assert people(link(items), items) == [["anna"] * 10, ["bert"] * 10]


def test_ids_count_first_appearances_then_from_left_to_right() -> None:
    items = [seen("cleo", 1, 10), seen("bert", 0, 300), seen("anna", 0, 100), seen("anna", 1, 100)]
    tracks = link(items)
    assert [track.id for track in tracks] == [0, 1, 2]
    assert people(tracks, items) == [["anna", "anna"], ["bert"], ["cleo"]]


def test_missed_detections_do_not_break_a_track() -> None:
    items = [seen("anna", i, 100) for i in range(20) if i % 4 != 1]
    items += [seen("bert", i, 220) for i in range(20) if i % 3 != 0]
    assert [set(names) for names in people(link(items), items)] == [{"anna"}, {"bert"}]


def test_a_person_gone_for_long_is_found_again_elsewhere() -> None:
    items = [seen("anna", i, 100) for i in range(4)]
    items += [seen("anna", i, 400, 200) for i in range(300, 304)]
    assert len(link(items)) == 1


def test_people_who_cross_keep_their_tracks() -> None:
    items = [
        item
        for i in range(11)
        for item in (seen("anna", i, 100 + 30 * i), seen("bert", i, 400 - 30 * i))
    ]
    assert people(link(items), items) == [["anna"] * 11, ["bert"] * 11]


def test_one_hidden_while_crossing_keeps_the_track() -> None:
    items = [seen("anna", i, 100 + 30 * i) for i in range(11)]
    items += [seen("bert", i, 400 - 30 * i) for i in range(11) if i not in (4, 5, 6)]
    assert people(link(items), items) == [["anna"] * 11, ["bert"] * 8]


@pytest.mark.parametrize("gap", [0.04, 0.3, 30.0])
def test_a_cut_to_another_person_at_the_same_place_starts_a_track(gap: float) -> None:
    items = [seen("anna" if i < 5 else "cleo", i, 100, gap=gap) for i in range(10)]
    assert people(link(items), items) == [["anna"] * 5, ["cleo"] * 5]


def test_cutting_back_and_forth_gives_a_track_per_person() -> None:
    items = [seen("anna" if i // 3 % 2 == 0 else "bert", i, 100) for i in range(12)]
    assert people(link(items), items) == [["anna"] * 6, ["bert"] * 6]


def test_people_who_swap_places_at_a_cut_keep_their_tracks() -> None:
    items = [seen("anna", i, 100 if i < 5 else 400) for i in range(10)]
    items += [seen("bert", i, 400 if i < 5 else 100) for i in range(10)]
    assert people(link(items), items) == [["anna"] * 10, ["bert"] * 10]


def blend(share: float) -> NDArray[np.uint8]:
    """Anna with this share of her columns taken from Bert: somewhat like both."""
    picture = crop("anna", 0)
    width = round(share * 64)
    picture[:, :width] = crop("bert", 0)[:, :width]
    return picture


def test_position_tells_twins_apart() -> None:
    # They pass each other, one above the other: their order from left to right turns round.
    items = [seen("anna", i, 100 + 8 * i, 50) for i in range(8)]
    items += [seen("anna", i, 150 - 8 * i, 200) for i in range(8)]
    tracks = link(items)
    assert [set(track.boxes[:, 1].tolist()) for track in tracks] == [{50.0}, {200.0}]


def test_standing_in_the_same_place_does_not_make_two_people_one() -> None:
    other = blend(0.5)
    assert 0.4 < describe(crop("anna", 0)) @ describe(other) < 0.65
    items = [seen("anna", i, 100, gap=0.04) for i in range(5)]
    items += [replace(seen("anna", i, 100, gap=0.04), crop=other) for i in range(5, 10)]
    assert [len(track.times_s) for track in link(items)] == [5, 5]


def test_a_somewhat_changed_look_after_a_jump_is_joined_in_the_end() -> None:
    # Too different to follow across a sudden jump, alike enough once everything has been seen.
    changed = blend(20 / 64)
    alike = float(describe(crop("anna", 0)) @ describe(changed))
    assert 0.71 < alike < 0.74
    first, second = seen("anna", 0, 100, gap=0.01), seen("anna", 1, 500, gap=0.01)
    items = [replace(first, crop=crop("anna", 0)), replace(second, crop=changed)]
    assert len(link(items)) == 1
    both = [*items, replace(seen("anna", 1, 100, gap=0.01), crop=crop("anna", 0))]
    assert [len(track.times_s) for track in link(both)] == [2, 1]


def test_two_faces_of_one_frame_never_share_a_track_however_alike() -> None:
    items = [seen("anna", i, x) for i in range(6) for x in (100, 250)]
    tracks = link(items)
    assert [len(track.times_s) for track in tracks] == [6, 6]
    assert [set(track.boxes[:, 0].tolist()) for track in tracks] == [{100.0}, {250.0}]


def test_a_twin_seen_once_alone_does_not_merge_the_two() -> None:
    items = [seen("anna", i, x) for i in range(6) for x in (100, 250)] + [seen("anna", 6, 250)]
    tracks = link(items)
    assert [len(track.times_s) for track in tracks] == [6, 7]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_the_order_of_faces_leaves_no_trace(data: st.DataObject) -> None:
    items: list[Observation] = []
    for frame in range(data.draw(st.integers(1, 6))):
        who = data.draw(st.lists(st.sampled_from(sorted(PALETTES)), max_size=3))
        places = data.draw(
            st.lists(st.integers(0, 600), min_size=len(who), max_size=len(who), unique=True)
        )
        items += [seen(name, frame, x) for name, x in zip(who, places, strict=True)]
    shuffled = data.draw(st.permutations(items))
    before, after = link(items), link(shuffled)
    assert len(before) == len(after)
    for a, b in zip(before, after, strict=True):
        assert a.id == b.id
        np.testing.assert_array_equal(a.boxes, b.boxes)
        np.testing.assert_array_equal(a.times_s, b.times_s)
        np.testing.assert_array_equal(a.frame_indices, b.frame_indices)
        np.testing.assert_array_equal(a.crops, b.crops)


@settings(max_examples=60, deadline=None)
@given(
    faces=st.lists(
        st.tuples(st.integers(0, 8), st.sampled_from(sorted(PALETTES)), st.integers(0, 600)),
        max_size=20,
        unique_by=lambda face: (face[0], face[2]),
    )
)
def test_every_face_is_in_exactly_one_track_and_no_track_is_twice_in_a_frame(
    faces: list[tuple[int, str, int]],
) -> None:
    items = [seen(who, frame, x) for frame, who, x in faces]
    tracks = link(items)
    linked = [
        (int(frame), float(box[0]))
        for track in tracks
        for frame, box in zip(track.frame_indices, track.boxes, strict=True)
    ]
    assert sorted(linked) == sorted((frame, float(x)) for frame, _, x in faces)
    for track in tracks:
        assert len(set(track.frame_indices.tolist())) == len(track.frame_indices)
        assert (np.diff(track.times_s) > 0).all()


def test_descriptors_ignore_exposure_and_grain_and_tell_people_apart() -> None:
    picture = portrait()[40:200, 50:210]
    look = describe(picture)
    assert np.linalg.norm(look) == pytest.approx(1.0, abs=1e-5)
    grain = np.random.default_rng(0).normal(0, 4, picture.shape)
    for changed in (picture * 0.45, picture + grain, picture[:, ::-1]):
        assert look @ describe(np.clip(changed, 0, 255).astype(np.uint8)) > 0.85
    assert look @ describe(stranger()[40:200, 50:210]) < 0.5


@pytest.mark.parametrize("level", [0, 128, 255])
@pytest.mark.parametrize("size", [1, 7, 224])
def test_any_crop_has_a_descriptor(level: int, size: int) -> None:
    look = describe(np.full((size, size, 3), level, np.uint8))
    assert np.isfinite(look).all()
    assert np.linalg.norm(look) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ((0, 0, 10, 10), (0, 0, 10, 10), 1.0),
        ((0, 0, 10, 10), (5, 0, 15, 10), 1 / 3),
        ((0, 0, 10, 10), (10, 0, 20, 10), 0.0),
        ((0, 0, 10, 10), (30, 30, 40, 40), 0.0),
        ((0, 0, 10, 10), (2, 2, 7, 7), 0.25),
    ],
)
def test_overlap_is_intersection_over_union(
    a: tuple[int, ...], b: tuple[int, ...], expected: float
) -> None:
    boxes = np.array([a], np.float32), np.array([b], np.float32)
    assert overlaps(*boxes)[0, 0] == pytest.approx(expected)


def test_two_real_faces_in_one_clip_are_one_track_each() -> None:
    frames = [
        scene(360, 640, [(portrait(), 10 * i, 40), (stranger(), 380 - 10 * i, 60)])
        for i in range(6)
    ]
    detector = MtcnnDetector(FacesConfig(), max_faces=8)
    items = [
        Observation(
            frame_index=i,
            time_s=0.3 * i,
            face=face,
            crop=face_crop(frames[i], face.xyxy, margin=1.3, size=64),
        )
        for i, faces in enumerate(detector.detect(frames))
        for face in faces
    ]
    tracks = link(items)
    assert [len(track.times_s) for track in tracks] == [6, 6]
    left, right = (track.boxes[:, 0] for track in tracks)
    assert (np.diff(left) > 0).all()
    assert (np.diff(right) < 0).all()
