"""Crops: square, inside the picture, without bars and without invented pixels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from forensics.crops import cut, face_crop, picture_area, square_box

Picture = NDArray[np.uint8]


def grey(height: int, width: int) -> Picture:
    return np.full((height, width, 3), 120, np.uint8)


def barred(picture: Picture, top: int, bottom: int, left: int, right: int, level: int) -> Picture:
    """The picture with bars of these widths painted over its edges."""
    height, width = picture.shape[:2]
    canvas = np.full_like(picture, level)
    inner = slice(top, height - bottom), slice(left, width - right)
    canvas[inner] = picture[inner]
    return canvas


@pytest.mark.parametrize("level", [0, 16, 20])
@pytest.mark.parametrize(
    ("bars", "expected"),
    [
        pytest.param((0, 0, 0, 0), (0, 0, 160, 90), id="none"),
        pytest.param((12, 12, 0, 0), (0, 12, 160, 78), id="letterbox"),
        pytest.param((0, 0, 40, 40), (40, 0, 120, 90), id="pillarbox"),
        pytest.param((10, 10, 20, 20), (20, 10, 140, 80), id="both"),
        pytest.param((20, 0, 0, 0), (0, 20, 160, 90), id="one side"),
    ],
)
def test_bars_are_not_picture(
    bars: tuple[int, int, int, int], expected: tuple[int, int, int, int], level: int
) -> None:
    assert picture_area(barred(grey(90, 160), *bars, level)) == expected


def test_bars_of_large_frames_are_found_to_the_pixel_pair() -> None:
    area = picture_area(barred(grey(1080, 1920), 140, 140, 0, 0, 16))
    assert np.abs(np.subtract(area, (0, 140, 1920, 940))).max() <= 1


def test_noise_in_bars_is_still_a_bar() -> None:
    picture = barred(grey(90, 160), 12, 12, 0, 0, 16)
    picture[3, 40] = 200  # one bright pixel: a hot pixel, the tip of a subtitle
    assert picture_area(picture) == (0, 12, 160, 78)


def test_a_dark_picture_is_not_all_bar() -> None:
    assert picture_area(np.zeros((90, 160, 3), np.uint8)) == (0, 0, 160, 90)
    candle = np.zeros((90, 160, 3), np.uint8)
    candle[80:88, 130:150] = 200
    assert picture_area(candle) == (0, 0, 160, 90)


@pytest.mark.parametrize(
    ("xyxy", "margin", "area", "expected"),
    [
        pytest.param((40, 40, 60, 60), 1.0, (0, 0, 100, 100), (40, 40, 60, 60), id="as it is"),
        pytest.param((40, 40, 60, 60), 1.5, (0, 0, 100, 100), (35, 35, 65, 65), id="margin"),
        pytest.param((45, 40, 55, 60), 1.0, (0, 0, 100, 100), (40, 40, 60, 60), id="squared"),
        pytest.param((0, 40, 20, 60), 2.0, (0, 0, 100, 100), (0, 30, 40, 70), id="moved right"),
        pytest.param((80, 80, 100, 100), 2.0, (0, 0, 100, 100), (60, 60, 100, 100), id="moved up"),
        pytest.param((10, 10, 90, 90), 2.0, (0, 0, 100, 80), (10, 0, 90, 80), id="shrunk"),
        pytest.param((40, 12, 60, 32), 2.0, (0, 12, 100, 88), (30, 12, 70, 52), id="below a bar"),
        pytest.param((5, 5, 5.2, 5.2), 1.0, (0, 0, 10, 10), (5, 5, 6, 6), id="at least a pixel"),
    ],
)
def test_squares_are_moved_then_shrunk(
    xyxy: tuple[float, ...],
    margin: float,
    area: tuple[int, int, int, int],
    expected: tuple[int, int, int, int],
) -> None:
    assert square_box(np.array(xyxy, np.float32), margin, area) == expected


@given(
    corner=st.tuples(st.floats(-50, 250), st.floats(-50, 250)),
    sides=st.tuples(st.floats(0.5, 300), st.floats(0.5, 300)),
    margin=st.floats(0.5, 3.0),
    area=st.tuples(
        st.integers(0, 50), st.integers(0, 50), st.integers(51, 200), st.integers(51, 200)
    ),
)
def test_squares_are_square_and_lie_inside_the_picture(
    corner: tuple[float, float],
    sides: tuple[float, float],
    margin: float,
    area: tuple[int, int, int, int],
) -> None:
    box = np.array([*corner, corner[0] + sides[0], corner[1] + sides[1]], np.float32)
    x0, y0, x1, y1 = square_box(box, margin, area)
    assert x1 - x0 == y1 - y0 >= 1
    assert area[0] <= x0 < x1 <= area[2]
    assert area[1] <= y0 < y1 <= area[3]


def test_a_cut_of_the_asked_size_is_the_pixels_themselves() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    np.testing.assert_array_equal(cut(picture, (10, 20, 42, 52), 32), picture[20:52, 10:42])


def test_shrinking_averages_areas() -> None:
    picture = np.zeros((8, 8, 3), np.uint8)
    picture[:, ::2] = 200  # stripes of one pixel: picking pixels would alias to all or nothing
    assert (cut(picture, (0, 0, 8, 8), 4) == 100).all()


@pytest.mark.parametrize("size", [1, 24, 112, 224])
def test_crops_have_the_asked_size(size: int) -> None:
    frame = grey(90, 160)
    crop = face_crop(frame, np.array([10, 10, 50, 60], np.float32), margin=1.3, size=size)
    assert crop.shape == (size, size, 3)
    assert crop.dtype == np.uint8
    assert crop.flags.c_contiguous


def test_a_crop_that_needs_no_scaling_still_lets_go_of_its_frame() -> None:
    frame = grey(64, 64)
    crop = face_crop(frame, np.array([0, 0, 64, 64], np.float32), margin=1.0, size=64)
    assert not np.shares_memory(crop, frame)


@pytest.mark.parametrize("corner", [(0, 0), (140, 0), (0, 70), (140, 70)])
def test_crops_at_the_edge_hold_no_invented_pixels(corner: tuple[int, int]) -> None:
    x, y = corner
    box = np.array([x, y, x + 20, y + 20], np.float32)
    assert (face_crop(grey(90, 160), box, margin=3.0, size=64) == 120).all()


def test_crops_beside_bars_hold_no_bar() -> None:
    frame = barred(grey(90, 160), 0, 0, 40, 40, 16)
    crop = face_crop(frame, np.array([42, 30, 62, 50], np.float32), margin=3.0, size=32)
    assert (crop == 120).all()
