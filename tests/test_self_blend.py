"""Self-blended fakes: what the method's reproductions got wrong must not be wrong here."""

from __future__ import annotations

import random

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from portraits import FACE_XYXY, portrait

from forensics.datasets import hulls
from forensics.datasets import self_blend as module
from forensics.datasets.face_shape import ANCHORS, TEMPLATE, placed
from forensics.datasets.hulls import KINDS, hull_mask
from forensics.datasets.self_blend import RATIOS, self_blend, soften

POINTS = np.array([[80, 90], [140, 90], [110, 125], [88, 155], [132, 155]], dtype=np.float32)
# Of the portrait, read off by eye: eyes, tip of the nose, corners of the mouth.
PORTRAIT_POINTS = np.array(
    [[112, 107], [147, 108], [131, 131], [115, 148], [144, 148]], dtype=np.float32
)


def picture(seed: int = 0, side: int = 220) -> NDArray[np.uint8]:
    rough = np.random.default_rng(seed).integers(0, 256, (14, 14, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(rough, (side, side)), dtype=np.uint8)


def test_a_self_blended_fake_differs_from_its_real_inside_the_face_only() -> None:
    image = picture()
    changed = np.zeros(image.shape[:2])
    for seed in range(40):
        target, fake = self_blend(image, POINTS, np.random.default_rng(seed))
        difference = np.abs(target.astype(int) - fake.astype(int)).max(axis=2)
        assert difference[:8].max() <= 1
        assert difference[:, :8].max() <= 1
        changed += difference
    assert changed[90:150, 90:130].mean() > 5 * changed[190:, :].mean()


def test_the_real_half_carries_the_colour_change_as_often_as_the_fake_half() -> None:
    image = picture()
    changed = [
        not np.array_equal(self_blend(image, POINTS, np.random.default_rng(seed))[0], image)
        for seed in range(120)
    ]
    assert 0.3 < np.mean(changed) < 0.7


def of_kind(kind: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> NDArray[np.float32]:
    monkeypatch.setattr(hulls, "KINDS", (kind,))
    return hull_mask((220, 220), POINTS, np.random.default_rng(seed))


def test_every_kind_of_hull_is_drawn_about_equally_often(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []
    original = hulls._hulls

    def watched(kind: str, rng: np.random.Generator) -> list[tuple[str, ...]]:
        drawn.append(kind)
        return original(kind, rng)

    monkeypatch.setattr(hulls, "_hulls", watched)
    for seed in range(400):
        mask = hull_mask((220, 220), POINTS, np.random.default_rng(seed))
        assert mask.dtype == np.float32
        assert set(np.unique(mask)) == {0.0, 1.0}
        assert 0.003 < mask.mean() < 0.6
    assert set(drawn) == set(KINDS)
    assert all(50 < drawn.count(kind) < 110 for kind in KINDS)


def test_kinds_of_hulls_differ_in_area_and_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    masks = {
        kind: np.stack([of_kind(kind, seed, monkeypatch) for seed in range(30)]) for kind in KINDS
    }
    area = {kind: masks[kind].mean() for kind in KINDS}
    assert area["region"] < 0.5 * area["components"] < 0.5 * area["face"]
    assert area["components"] < area["extended"]
    for kind in KINDS:
        # No two alike: template and points are jittered.
        assert len({mask.tobytes() for mask in masks[kind]}) == 30

    def solidity(mask: NDArray[np.float32]) -> float:
        points = np.argwhere(mask > 0)[:, ::-1].astype(np.int32)
        return float(mask.sum()) / max(cv2.contourArea(cv2.convexHull(points)), 1.0)

    assert np.mean([solidity(mask) for mask in masks["face"]]) > 0.98  # one convex hull
    assert np.mean([solidity(mask) for mask in masks["components"]]) < 0.97  # several


def test_the_template_lands_on_the_face_of_a_photograph() -> None:
    x0, y0, x1, y1 = FACE_XYXY
    outline = np.concatenate([TEMPLATE[f"{side}_jaw"] for side in ("right", "left")])
    jaw = placed(outline, PORTRAIT_POINTS)
    assert abs(jaw[:, 0].min() - x0) < 14
    assert abs(jaw[:, 0].max() - x1) < 14
    (chin,) = placed(TEMPLATE["chin"], PORTRAIT_POINTS)
    assert abs(chin[1] - y1) < 10
    (crown,) = placed(TEMPLATE["crown"], PORTRAIT_POINTS)
    assert abs(crown[1] - y0) < 14


def test_the_template_turns_and_grows_with_the_landmarks() -> None:
    points = np.concatenate(list(TEMPLATE.values()))
    angle = np.radians(25)
    turn = 3.0 * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    plain = placed(points, ANCHORS * 40 + 100)
    turned = placed(points, ((ANCHORS * 40 + 100) @ turn).astype(np.float32))
    assert np.abs(turned - plain @ turn).max() < 1e-3
    assert np.abs(placed(ANCHORS.astype(np.float64), POINTS) - POINTS).max() < 6


def test_the_edge_is_eroded_and_soft() -> None:
    """With a mask of integers 0 and 1 blurring and erosion leave 99.7 to 100% of the hull."""
    kept, soft = [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        hull = np.zeros((224, 224), np.float32)
        cv2.ellipse(hull, (112, 112), (55, 75), 0, 0, 360, 1.0, -1)
        mask = soften(hull, rng)
        assert mask.dtype == np.float32
        assert mask.max() == 1.0
        assert mask.min() >= 0.0
        kept.append((mask > 0.99).sum() / hull.sum())
        soft.append(((mask > 0.02) & (mask < 0.98)).sum() / hull.sum())
        assert mask[hull == 0].max() < 0.75
    assert 0.4 < np.mean(kept) < 0.9
    assert max(kept) < 0.97
    assert min(soft) > 0.05
    assert max(soft) > 3 * min(soft)  # edges differ in width


def test_a_thin_hull_keeps_its_shape() -> None:
    """A mouth is thinner than the widest kernel: eroded by that, one pixel of it would be left."""
    hull = np.zeros((224, 224), np.float32)
    cv2.ellipse(hull, (112, 150), (35, 9), 0, 0, 360, 1.0, -1)
    for seed in range(60):
        mask = soften(hull, np.random.default_rng(seed))
        columns = np.flatnonzero((mask > 0.5).any(axis=0))
        assert np.ptp(columns) > 25, seed


def test_source_and_target_differ_visibly_and_not_only_by_a_round_trip() -> None:
    image = portrait()
    differences = []
    for seed in range(100):
        changed = module.change(image, np.random.default_rng(seed))
        assert changed.dtype == np.uint8
        differences.append(np.abs(changed.astype(int) - image).mean())
    assert min(differences) > 0.8
    assert 5 < np.median(differences) < 25


def test_a_fake_always_differs_from_its_real() -> None:
    image = portrait()
    for seed in range(150):
        target, fake = self_blend(image, PORTRAIT_POINTS, np.random.default_rng(seed))
        assert np.abs(target.astype(int) - fake).max() >= 4, seed
        assert fake.shape == target.shape == image.shape


def test_blend_ratios_are_drawn_as_published(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a black source and a white target the darkest pixel tells the ratio."""
    found = []
    black, white = np.zeros((96, 96, 3), np.uint8), np.full((96, 96, 3), 255, np.uint8)
    monkeypatch.setattr(module, "change", lambda image, _: black)
    points = (POINTS * 96 / 220).astype(np.float32)
    for seed in range(300):
        target, fake = self_blend(white, points, np.random.default_rng(seed))
        contrast = np.abs(fake.astype(int) - target.astype(int)).max() / 255
        found.append(round(contrast * 4) / 4)
    assert set(found) == set(RATIOS)
    assert 0.38 < found.count(1.0) / 300 < 0.62


def test_one_generator_decides_everything_and_no_global_one_is_touched() -> None:
    image = portrait()
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    first = self_blend(image, PORTRAIT_POINTS, np.random.default_rng(7))
    state = random.getstate(), np.random.get_state()[1].tobytes()  # type: ignore[index]  # noqa: NPY002
    random.seed(2)
    np.random.seed(2)  # noqa: NPY002
    second = self_blend(image, PORTRAIT_POINTS, np.random.default_rng(7))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    assert state == (random.getstate(), np.random.get_state()[1].tobytes())  # type: ignore[index]  # noqa: NPY002
    other = self_blend(image, PORTRAIT_POINTS, np.random.default_rng(8))
    assert not np.array_equal(first[1], other[1])


def test_a_wide_crop_keeps_its_surroundings() -> None:
    """At the margin of extraction the blended part ends well inside: the context is the target."""
    image = portrait()
    x0, y0, x1, y1 = FACE_XYXY
    outside = np.ones(image.shape[:2], bool)
    outside[y0 - 30 : y1 + 30, x0 - 30 : x1 + 30] = False
    for seed in range(60):
        target, fake = self_blend(image, PORTRAIT_POINTS, np.random.default_rng(seed))
        assert np.abs(target.astype(int) - fake)[outside].max() <= 1, seed


@pytest.mark.parametrize("far", [1000.0, -500.0])
def test_landmarks_outside_the_picture_still_make_a_fake(far: float) -> None:
    points = POINTS + np.float32(far)
    target, fake = self_blend(picture(), points, np.random.default_rng(0))
    assert np.abs(target.astype(int) - fake).max() >= 4


def test_unknown_landmarks_are_refused() -> None:
    with pytest.raises(ValueError, match="expected five known landmarks"):
        self_blend(picture(), np.full((5, 2), np.nan, np.float32), np.random.default_rng(0))


@pytest.mark.parametrize("side", [40, 90, 320])
def test_crops_of_every_size_are_blended(side: int) -> None:
    points = (POINTS * side / 220).astype(np.float32)
    for seed in range(20):
        target, fake = self_blend(picture(1, side), points, np.random.default_rng(seed))
        assert target.shape == fake.shape == (side, side, 3)
