"""forensics.preprocess: what the network sees is what the card says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torchvision.transforms import functional as vision

from forensics.preprocess import Preprocessing, View, look, normalise, unlook
from forensics.tiles import in_tiles

IMAGENET = Preprocessing(size=8, margin=1.3, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def crops(count: int = 3, size: int = 8) -> NDArray[np.uint8]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def test_equals_torchvision_normalisation() -> None:
    pixels = crops()
    expected = torch.stack(
        [
            vision.normalize(vision.to_tensor(crop), list(IMAGENET.mean), list(IMAGENET.std))
            for crop in pixels
        ]
    )
    torch.testing.assert_close(normalise(pixels, IMAGENET), expected)


def test_one_pixel_by_hand() -> None:
    pixels = np.full((1, 8, 8, 3), (255, 0, 51), dtype=np.uint8)
    red, green, blue = normalise(pixels, IMAGENET)[0, :, 0, 0].tolist()
    assert red == pytest.approx((1 - 0.485) / 0.229, abs=1e-5)
    assert green == pytest.approx((0 - 0.456) / 0.224, abs=1e-5)
    assert blue == pytest.approx((0.2 - 0.406) / 0.225, abs=1e-5)


def test_the_published_efficient_vit_input_can_be_expressed() -> None:
    # BGR, 0..255, nothing subtracted: undocumented there, and re-users fed it RGB / 255.
    published = Preprocessing(
        size=8, margin=1.0, mean=(0, 0, 0), std=(1, 1, 1), colour_order="bgr", scale=1.0
    )
    pixels = crops()
    x = normalise(pixels, published)
    np.testing.assert_array_equal(x[:, 0].numpy(), pixels[..., 2])
    np.testing.assert_array_equal(x[:, 2].numpy(), pixels[..., 0])


def test_result_is_float32_and_channels_last_in_memory() -> None:
    x = normalise(crops(), IMAGENET)
    assert x.dtype == torch.float32
    assert x.shape == (3, 3, 8, 8)
    assert x.is_contiguous(memory_format=torch.channels_last)


def test_input_pixels_are_left_alone() -> None:
    pixels = crops()
    before = pixels.copy()
    normalise(pixels, IMAGENET)
    np.testing.assert_array_equal(pixels, before)


def test_an_empty_batch_stays_empty() -> None:
    assert normalise(crops(0), IMAGENET).shape == (0, 3, 8, 8)


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((1, 9, 9, 3), dtype=np.uint8),
        np.zeros((8, 8, 3), dtype=np.uint8),
        np.zeros((1, 8, 8, 4), dtype=np.uint8),
        np.zeros((1, 3, 8, 8), dtype=np.uint8),
        np.zeros((1, 8, 8, 3), dtype=np.float32),
    ],
    ids=["size", "no batch", "alpha", "channels first", "float"],
)
def test_crops_of_another_kind_are_refused(wrong: NDArray[np.uint8]) -> None:
    with pytest.raises(ValueError, match="crops must be"):
        normalise(wrong, IMAGENET)


@pytest.mark.parametrize(
    "wrong", [{"size": 0}, {"margin": 0.0}, {"std": (1.0, 0.0, 1.0)}, {"scale": 0.0}]
)
def test_a_preprocessing_that_cannot_work_is_refused(wrong: dict[str, object]) -> None:
    good = {"size": 8, "margin": 1.3, "mean": (0.5,) * 3, "std": (0.5,) * 3}
    with pytest.raises(ValueError, match="above 0"):
        Preprocessing(**{**good, **wrong})  # type: ignore[arg-type]


TIGHT = View(margin=0.5, weight=0.25)
WIDE = View(margin=1.5, weight=0.75, upside_down=True)
VIEWS = Preprocessing(size=8, margin=1.5, mean=(0.5,) * 3, std=(0.5,) * 3, views=(TIGHT, WIDE))


def test_without_views_the_crop_itself_is_looked_at() -> None:
    pixels = crops()
    assert IMAGENET.crop_size == 8
    (whole,) = IMAGENET.looks
    assert (whole.weight, whole.every) == (1.0, 1)
    assert look(pixels, whole, IMAGENET) is pixels
    heat = [np.ones((3, 8, 8), np.float32)]
    assert unlook(heat, IMAGENET) is heat[0]


def test_the_tightest_view_is_cut_as_it_is_and_the_widest_is_the_whole_crop() -> None:
    assert VIEWS.crop_size == 24
    pixels = crops(2, 24)
    tight, wide = (look(pixels, view, VIEWS) for view in VIEWS.looks)
    np.testing.assert_array_equal(tight, pixels[:, 8:16, 8:16])
    thirds = pixels.reshape(2, 8, 3, 8, 3, 3).astype(float).mean((2, 4))  # areas of 3 x 3 pixels
    np.testing.assert_allclose(wide, thirds[:, ::-1], atol=0.51)


def test_what_views_found_lies_over_the_crop_where_they_looked() -> None:
    tight, wide = np.ones((1, 8, 8), np.float32), np.zeros((1, 8, 8), np.float32)
    wide[:, 0] = 1.0  # upside down: the crop's lower edge
    heat = unlook([tight, wide], VIEWS)
    assert heat.shape == (1, 24, 24)
    np.testing.assert_allclose(heat[0, 8:16, 8:16], 0.25)
    np.testing.assert_allclose(heat[0, 23], 0.75)
    assert heat[0, :5].max() == 0


def test_a_view_in_tiles_shows_every_pixel_elsewhere_and_its_map_goes_back() -> None:
    view = View(margin=1.5, weight=1.0, tiles=2, upside_down=True)
    whole = Preprocessing(size=8, margin=1.5, mean=(0.5,) * 3, std=(0.5,) * 3, views=(view,))
    pixels = crops(2, 8)
    seen = look(pixels, view, whole)
    assert not np.array_equal(seen, pixels[:, ::-1])
    for one, before in zip(seen, pixels, strict=True):
        assert np.array_equal(np.sort(one, axis=None), np.sort(before, axis=None))
    heat = unlook([seen[..., 0].astype(np.float32)], whole)
    np.testing.assert_array_equal(heat, pixels[..., 0])


def test_a_mirrored_view_shows_the_other_side_first_and_its_map_goes_back() -> None:
    plain, tiled = (View(margin=1.5, weight=1.0, mirrored=True, tiles=n) for n in (1, 2))
    pixels = crops(2, 8)
    for view in (plain, tiled):
        whole = Preprocessing(size=8, margin=1.5, mean=(0.5,) * 3, std=(0.5,) * 3, views=(view,))
        seen = look(pixels, view, whole)
        expected = [in_tiles(np.ascontiguousarray(one[:, ::-1]), view.tiles) for one in pixels]
        np.testing.assert_array_equal(seen, np.stack(expected))
        heat = unlook([seen[..., 0].astype(np.float32)], whole)
        np.testing.assert_array_equal(heat, pixels[..., 0])


def test_views_take_turns_and_each_sees_a_still() -> None:
    first, second = (View(margin=1.0, weight=0.5, every=4, start=start) for start in (0, 3))
    assert [list(view.turns(9)) for view in (first, second)] == [[0, 4, 8], [3, 7]]
    for faces in range(1, 9):
        for view in (first, second):
            assert view.turns(faces), faces
            assert set(view.turns(faces)) <= set(range(faces))
    assert list(View(margin=1.0, weight=1.0).turns(3)) == [0, 1, 2]


def test_no_crops_make_no_views() -> None:
    assert [look(crops(0, 24), view, VIEWS).shape for view in VIEWS.looks] == [(0, 8, 8, 3)] * 2


def test_crops_of_another_size_are_not_looked_at() -> None:
    with pytest.raises(ValueError, match=r"crops must be \(B, 24, 24, 3\)"):
        look(crops(1, 8), WIDE, VIEWS)


@pytest.mark.parametrize(
    ("views", "words"),
    [
        ((TIGHT, View(margin=1.4, weight=0.75)), "widest"),
        ((TIGHT, View(margin=1.5, weight=0.5)), "add up to 1"),
        ((View(margin=0.0, weight=0.5), View(margin=1.5, weight=0.5)), "above 0"),
        ((View(margin=1.0, weight=-1.0), View(margin=1.5, weight=2.0)), "above 0"),
        ((TIGHT, View(margin=1.5, weight=0.75, every=0)), "above 0"),
        ((TIGHT, View(margin=1.5, weight=0.75, tiles=9)), "a pixel wide"),
        ((TIGHT, View(margin=1.5, weight=0.75, every=2, start=2)), "below its every"),
        ((TIGHT, View(margin=1.5, weight=0.75, every=2, start=-1)), "below its every"),
    ],
)
def test_views_that_contradict_the_card_are_refused(views: tuple[View, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Preprocessing(size=8, margin=1.5, mean=(0.5,) * 3, std=(0.5,) * 3, views=views)
