"""Frames in bounded batches, and every face cut out of them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from portraits import FACE_XYXY, portrait, scene

from forensics import observations
from forensics.crops import face_crop
from forensics.observations import batches, observe
from forensics.structures import Face, Frame


def frames(count: int, height: int = 40, width: int = 60) -> Iterator[Frame]:
    for index in range(count):
        yield Frame(
            index=index, time_s=index / 10, pixels=np.zeros((height, width, 3), dtype=np.uint8)
        )


@pytest.mark.parametrize(("count", "most", "sizes"), [(0, 4, []), (4, 4, [4]), (9, 4, [4, 4, 1])])
def test_every_frame_is_in_one_batch_in_order(count: int, most: int, sizes: list[int]) -> None:
    seen = [[frame.index for frame in batch] for batch in batches(frames(count), most)]
    assert [len(batch) for batch in seen] == sizes
    assert [index for batch in seen for index in batch] == list(range(count))


def test_large_frames_come_in_smaller_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observations, "_BATCH_BYTES", 3 * 40 * 60 * 3)
    assert [len(batch) for batch in batches(frames(7), 16)] == [3, 3, 1]
    monkeypatch.setattr(observations, "_BATCH_BYTES", 1)
    assert [len(batch) for batch in batches(frames(2), 16)] == [1, 1]


def test_each_face_is_cut_as_a_crop_of_its_own() -> None:
    picture = scene(300, 620, [(portrait(), 10, 20), (portrait(), 330, 20)])
    boxes = [np.array(FACE_XYXY, dtype=np.float32) + np.float32([x, 20, x, 20]) for x in (10, 330)]
    faces = [
        Face(xyxy=box, landmarks=np.zeros((5, 2), dtype=np.float32), probability=1.0)
        for box in boxes
    ]
    empty = Frame(index=0, time_s=0.0, pixels=np.zeros((8, 8, 3), dtype=np.uint8))
    shown = Frame(index=1, time_s=0.5, pixels=picture)
    seen = observe([empty, shown], [[], faces], margin=1.3, size=96)
    assert [(each.frame_index, each.time_s) for each in seen] == [(1, 0.5), (1, 0.5)]
    for each, box in zip(seen, boxes, strict=True):
        assert np.array_equal(each.crop, face_crop(picture, box, margin=1.3, size=96))
