"""Augmentation: alike for both classes and both halves of a pair, repeatable, and never ruinous."""

from __future__ import annotations

import inspect
import pickle
from typing import Any

import cv2
import numpy as np
import pytest
from portraits import FACE_XYXY, portrait

from forensics.crops import face_crop
from forensics.datasets import augment
from forensics.datasets.augment import Augmentation, face_cut, pipeline, recoded
from forensics.datasets.recompress import as_h264
from forensics.tiles import in_tiles, put_back, shuffled

BOX = np.array(FACE_XYXY, dtype=np.float32)


def test_both_halves_of_a_pair_get_the_same_and_a_single_image_gets_what_a_first_half_gets() -> (
    None
):
    augmentation = Augmentation(96)
    image = portrait()
    for seed in range(60):
        first, second = augmentation([image, image], [BOX, BOX], np.random.default_rng(seed))
        assert np.array_equal(first, second), seed
        (alone,) = augmentation([image], [BOX], np.random.default_rng(seed))
        assert np.array_equal(first, alone), seed
        assert alone.shape == (96, 96, 3)
        assert alone.dtype == np.uint8


def test_halves_that_are_changed_apart_share_the_cut_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    image = portrait()
    for share, expected in ((0.0, 0), (0.5, 20), (1.0, 40)):
        augmentation = Augmentation(96, apart=share)
        unlike = 0
        for seed in range(40):
            first, second = augmentation([image, image], [BOX, BOX], np.random.default_rng(seed))
            unlike += not np.array_equal(first, second)
        assert abs(unlike - expected) <= (8 if share == 0.5 else 5 * share)
    monkeypatch.setattr(Augmentation, "_changed", lambda _self, pair, _often, _rng: pair)
    first, second = augmentation([image, image], [BOX, BOX], np.random.default_rng(1))
    assert np.array_equal(first, second)


def test_a_tilt_degrades_the_first_half_more_often(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[float] = []
    changed = Augmentation._changed

    def telling(self: Augmentation, pair: Any, often: float, rng: np.random.Generator) -> Any:
        told.append(round(often, 6))
        return changed(self, pair, often, rng)

    monkeypatch.setattr(Augmentation, "_changed", telling)
    for apart, count in ((0.0, 1), (1.0, 2)):
        augmentation = Augmentation(32, apart=apart, degraded=0.5, tilt=0.6)
        for pictures in (1, 2):
            augmentation([portrait()] * pictures, [BOX] * pictures, np.random.default_rng(0))
        assert told == [0.5, *([0.5] if count == 1 else [0.8, 0.2])]
        told.clear()


def test_no_label_can_reach_the_augmentation() -> None:
    """What is not handed in has no influence: pixels, box and generator are all there is."""
    assert list(inspect.signature(Augmentation.__call__).parameters) == [
        "self",
        "images",
        "boxes_xyxy",
        "rng",
    ]
    assert list(inspect.signature(Augmentation).parameters) == [
        "size",
        "margin",
        "factors",
        "apart",
        "degraded",
        "tilt",
    ]


def test_the_result_follows_from_the_generator_alone() -> None:
    image = portrait()
    used = Augmentation(64)
    for seed in range(5):  # whatever was augmented before
        used([image], [BOX], np.random.default_rng(100 + seed))
    fresh = pickle.loads(pickle.dumps(Augmentation(64)))
    for seed in range(10):
        a, b = (each([image], [BOX], np.random.default_rng(seed))[0] for each in (used, fresh))
        assert np.array_equal(a, b)
    assert not np.array_equal(
        fresh([image], [BOX], np.random.default_rng(1))[0],
        fresh([image], [BOX], np.random.default_rng(2))[0],
    )


def test_without_jitter_the_cut_is_that_of_a_scan() -> None:
    image = portrait()
    assert np.array_equal(face_cut(image, BOX, 1.3, 96), face_crop(image, BOX, margin=1.3, size=96))


def names_of(transforms: list[object]) -> set[str]:
    found: set[str] = set()
    for transform in transforms:
        inner = getattr(transform, "transforms", None)
        found |= names_of(inner) if inner else {type(transform).__name__}
    return found


def test_the_list_of_the_paper_is_there_with_a_video_codec() -> None:
    found = names_of(pipeline(0).transforms)
    assert {
        "HorizontalFlip",
        "Affine",
        "RandomBrightnessContrast",
        "HueSaturationValue",
        "RGBShift",
        "ToGray",
        "Downscale",
        "GaussianBlur",
        "GaussNoise",
        "ImageCompression",
        "_H264",
    } <= found


def test_pictures_are_degraded_as_often_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    usual, half = ([one.p for one in pipeline(0, share).transforms] for share in (1.0, 0.5))
    assert half[:4] == usual[:4]  # place, colour
    assert half[4:] == [p / 2 for p in usual[4:]]
    stored: list[int] = []
    monkeypatch.setattr(augment, "_recode", lambda image, *_: stored.append(1) or image)
    counts = []
    for share in (1.0, 0.3, 0.0):
        augmentation = Augmentation(32, degraded=share)
        for seed in range(60):
            augmentation([portrait()], [BOX], np.random.default_rng(seed))
        counts.append(len(stored) // 2)  # a single image is both halves
        stored.clear()
    assert 14 <= counts[0] <= 28
    assert 2 <= counts[1] <= 11
    assert counts[2] == 0


def test_faces_stay_faces() -> None:
    """Neither black nor white, and as a thumbnail still the same picture in half of all cases."""
    augmentation, image = Augmentation(96), portrait()
    plain = cv2.resize(face_cut(image, BOX, 1.3, 96), (12, 12), interpolation=cv2.INTER_AREA)
    alike = []
    for seed in range(150):
        (shown,) = augmentation([image], [BOX], np.random.default_rng(seed))
        small = cv2.resize(shown, (12, 12), interpolation=cv2.INTER_AREA)
        grey, other = (each.mean(axis=2).ravel() for each in (small, plain))
        assert 25 < shown.mean() < 235
        assert shown.std() > 12
        mirrored = small[:, ::-1].mean(axis=2).ravel()
        alike.append(max(np.corrcoef(grey, other)[0, 1], np.corrcoef(mirrored, other)[0, 1]))
    assert np.median(alike) > 0.8
    assert min(alike) > 0.3


def test_sizes_change_in_both_directions_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disc stays a disc, whatever is done to its size and place."""
    disc = np.zeros((256, 256, 3), np.uint8)
    cv2.circle(disc, (128, 118), 34, (255, 255, 255), -1)
    monkeypatch.setattr(augment, "_RECODED", 1.0)
    augmentation = Augmentation(128)
    for seed in range(60):
        (shown,) = augmentation([disc], [BOX], np.random.default_rng(seed))
        grey = shown.mean(axis=2)
        mask = grey > (grey.max() + grey.min()) / 2
        rows, columns = (np.ptp(np.flatnonzero(mask.any(axis=axis))) for axis in (1, 0))
        assert abs(rows - columns) <= 0.12 * max(rows, columns), seed


@pytest.mark.parametrize("size", [(64, 64), (65, 47), (224, 224)])
def test_a_video_codec_leaves_coarser_traces_at_higher_factors(size: tuple[int, int]) -> None:
    image = np.asarray(cv2.resize(portrait(), size[::-1]))
    errors = []
    for crf in (18, 30, 40):
        coded = as_h264(image, crf)
        assert coded.shape == image.shape
        assert coded.dtype == np.uint8
        assert np.array_equal(coded, as_h264(image, crf))
        errors.append(np.abs(coded.astype(int) - image).mean())
    assert errors == sorted(errors)
    assert 0.2 < errors[0] < 6 < 2 * errors[2] < 30


def test_without_x264_another_codec_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import av

    monkeypatch.setattr(av, "codecs_available", set(av.codecs_available) - {"libx264"})
    image = portrait()
    errors = [np.abs(as_h264(image, crf).astype(int) - image).mean() for crf in (18, 40)]
    assert 0.2 < errors[0] < errors[1] < 30


def test_shuffling_keeps_every_pixel_of_whole_tiles() -> None:
    image = np.random.default_rng(2).integers(0, 256, (50, 50, 3), dtype=np.uint8)
    made = shuffled(image, 4, np.random.default_rng(0))
    assert not np.array_equal(made, image)
    assert np.array_equal(made[48:], image[48:])
    assert np.array_equal(np.sort(made[:48, :48].ravel()), np.sort(image[:48, :48].ravel()))


def test_tiles_change_places_the_same_way_each_time_and_go_back() -> None:
    image = np.random.default_rng(3).integers(0, 256, (51, 51, 3), dtype=np.uint8)
    moved = in_tiles(image, 2)
    assert np.array_equal(moved, in_tiles(image, 2))
    assert not np.array_equal(moved[:25, :25], image[:25, :25])
    for grid in (1, 2, 3, 5):
        heat = image[..., 0].astype(np.float32)
        np.testing.assert_array_equal(put_back(in_tiles(heat, grid), grid), heat)


def test_both_halves_are_recoded_alike_and_lose_detail() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    touched = 0
    for seed in range(40):
        first, second = recoded((noise, noise), np.random.default_rng(seed))
        assert np.array_equal(first, second)
        assert first.shape == noise.shape
        if not np.array_equal(first, noise):
            touched += 1
            assert cv2.Laplacian(first, cv2.CV_32F).var() < cv2.Laplacian(noise, cv2.CV_32F).var()
    assert 8 <= touched <= 22
