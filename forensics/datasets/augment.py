"""What happens to a pair of training crops: one pipeline for both, so that it carries no label."""

from __future__ import annotations

import warnings
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from forensics.crops import cut, square_box

with warnings.catch_warnings():
    # 2.0.8 warns on import that it is the last of its line; CONTRIBUTING says why it stays.
    warnings.simplefilter("ignore")
    import albumentations as A

_RECODED = 0.35  # of the pairs

Pair = tuple[NDArray[np.uint8], NDArray[np.uint8]]


def pipeline(seed: int) -> Any:
    """Compression, scale, noise, blur, colour and geometry; applied alike to `image` and `other`.

    The degradations (JPEG and WebP quality, down-up-scaling, blur, noise) are strong because each
    camera and codec otherwise moves all scores of its videos together.
    """
    return A.Compose(
        [
            A.HorizontalFlip(p=0.5),
            A.Affine(rotate=(-8, 8), border_mode=cv2.BORDER_REFLECT_101, p=0.4),
            A.RandomBrightnessContrast(0.25, 0.25, p=0.5),
            A.HueSaturationValue(12, 40, 20, p=0.5),
            A.RGBShift(25, 25, 25, p=0.4),
            A.ToGray(p=0.2),
            A.Downscale(scale_range=(0.35, 0.9), p=0.35),
            A.OneOf([A.GaussianBlur((3, 5)), A.MotionBlur((3, 5)), A.Sharpen((0.1, 0.4))], p=0.3),
            A.GaussNoise(std_range=(0.01, 0.06), p=0.25),
            A.ImageCompression("jpeg", quality_range=(30, 95), p=0.5),
            A.ImageCompression("webp", quality_range=(30, 95), p=0.15),
        ],
        additional_targets={"other": "image"},
        seed=seed,
    )


def shuffled(image: NDArray[np.uint8], grid: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """The picture (S, S, 3) cut into `grid` x `grid` tiles, in another order, some mirrored.

    Pixels that fill no whole tile, at the right and the bottom, stay.
    """
    side = image.shape[0] // grid
    places = [(y * side, x * side) for y in range(grid) for x in range(grid)]
    result = np.array(image)
    order: list[int] = rng.permutation(len(places)).tolist()
    for (y, x), origin in zip(places, order, strict=True):
        top, left = places[origin]
        tile = image[top : top + side, left : left + side]
        result[y : y + side, x : x + side] = tile[:, ::-1] if rng.random() < 0.5 else tile
    return result


def recoded(pair: Pair, rng: np.random.Generator) -> Pair:
    """Sometimes both halves as an old upload has them: stored small and coarse, then enlarged.

    Detectors otherwise call exactly such recordings fake (docs/log.md).
    """
    if rng.random() >= _RECODED:
        return pair
    factor, quality = rng.uniform(0.25, 0.9), int(rng.integers(15, 80))
    mode = int(rng.choice([cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4]))
    sharper = rng.uniform(0.2, 1.2) if rng.random() < 0.4 else 0.0
    return (
        _recode(pair[0], factor, quality, mode, sharper),
        _recode(pair[1], factor, quality, mode, sharper),
    )


def _recode(
    image: NDArray[np.uint8], factor: float, quality: int, mode: int, sharper: float
) -> NDArray[np.uint8]:
    side = image.shape[0]
    small = cv2.resize(image, (round(side * factor),) * 2, interpolation=cv2.INTER_AREA)
    coded = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    small = cv2.imdecode(coded, cv2.IMREAD_COLOR)
    shown = cv2.resize(np.asarray(small, np.uint8), (side, side), interpolation=mode)
    if sharper:
        soft = cv2.GaussianBlur(shown, (0, 0), 1.2)
        shown = cv2.addWeighted(shown, 1 + sharper, soft, -sharper, 0)
    return np.asarray(shown, dtype=np.uint8)


def jittered_cut(
    crops: Pair,
    box: NDArray[np.float32],
    other_box: NDArray[np.float32],
    size: int,
    rng: np.random.Generator,
) -> Pair:
    """The same jittered square around each crop's own face box: (size, size, 3) each.

    The margin varies around the 1.3 that scanning uses, the centre by 6% of the face.
    """
    margin = rng.uniform(1.1, 1.55)
    shift = rng.uniform(-0.06, 0.06, 2)
    return (
        _cut(crops[0], box, margin, shift, size),
        _cut(crops[1], other_box, margin, shift, size),
    )


def _cut(
    crop: NDArray[np.uint8],
    box: NDArray[np.float32],
    margin: float,
    shift: NDArray[np.float64],
    size: int,
) -> NDArray[np.uint8]:
    side = float(max(box[2] - box[0], box[3] - box[1]))
    moved = (box + side * np.tile(shift, 2)).astype(np.float32)
    return cut(crop, square_box(moved, margin, (0, 0, crop.shape[1], crop.shape[0])), size)
