"""What happens to training crops: one pipeline for both classes, so that it carries no label.

But for `tilt`, which is there to: in recordings the worse picture scores higher, and a real half
that is degraded more often than its fake teaches the contrary (docs/log.md).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from forensics.crops import cut, square_box
from forensics.datasets.recompress import as_h264

with warnings.catch_warnings():
    # 2.0.8 warns on import that it is the last of its line; CONTRIBUTING says why it stays.
    warnings.simplefilter("ignore")
    import albumentations as A

_RECODED = 0.35  # of the pairs
_BARRED, _BAR = 0.06, 0.25  # of the images, and at most this much of the side
_SHIFT = 0.06  # of the face, around the place that scanning uses: it is not found to the pixel

Image = NDArray[np.uint8]
Pair = tuple[Image, Image]


class _H264(A.ImageOnlyTransform):
    """A picture as a key frame of a video: CRF 18 (fine) to 40 (FaceForensics++'s c40)."""

    def get_params(self) -> dict[str, Any]:
        return {"crf": self.py_random.randint(18, 40)}

    def apply(self, img: NDArray[np.uint8], crf: int, **_: Any) -> NDArray[np.uint8]:
        return as_h264(img, crf)


# Sizes change in both directions alike: no stretching, which no camera does.
_RESAMPLINGS: tuple[Any, ...] = (
    {"downscale": cv2.INTER_AREA, "upscale": cv2.INTER_LINEAR},
    {"downscale": cv2.INTER_AREA, "upscale": cv2.INTER_CUBIC},
    {"downscale": cv2.INTER_LINEAR, "upscale": cv2.INTER_LINEAR},
)


def pipeline(seed: int, degraded: float = 1.0) -> Any:
    """Flip, shift, scale, turn, colour, grey, size, blur, noise and compression; the last four come
    `degraded` times as often as usual.

    Applied alike to `image` and, where it is given, `other`: (S, S, 3) uint8 RGB each. After
    Coccomini et al. (ICIAP 2022), with stronger degradations and a video codec, because each camera
    and codec otherwise moves all scores of its videos together (docs/log.md). Compression comes
    last, as in a file.
    """
    one_of: Any = A.OneOf  # its types refuse lists of one kind of transform
    transforms: list[Any] = [
        A.HorizontalFlip(p=0.5),
        A.Affine(
            rotate=(-8, 8),
            scale=(0.92, 1.08),
            translate_percent=(-0.04, 0.04),
            keep_ratio=True,
            border_mode=cv2.BORDER_REFLECT_101,
            p=0.4,
        ),
        # One of them: together they left faces black or white.
        one_of(
            [
                A.RandomBrightnessContrast(0.2, 0.25),
                A.HueSaturationValue(12, 40, 20),
                A.RGBShift(25, 25, 25),
            ],
            p=0.75,
        ),
        A.ToGray(p=0.2),
        one_of(
            [
                A.Downscale(scale_range=(0.35, 0.9), interpolation_pair=pair)
                for pair in _RESAMPLINGS
            ],
            p=0.35 * degraded,
        ),
        one_of(
            [A.GaussianBlur((3, 5)), A.MotionBlur((3, 5)), A.Sharpen((0.1, 0.4))],
            p=0.3 * degraded,
        ),
        # Not ISONoise: 2.0.8 turns dark pixels white with it (docs/log.md).
        A.GaussNoise(std_range=(0.01, 0.06), p=0.25 * degraded),
        one_of(
            [
                A.ImageCompression("jpeg", quality_range=(30, 95), p=0.55),
                A.ImageCompression("webp", quality_range=(30, 95), p=0.15),
                _H264(p=0.3),
            ],
            p=0.65 * degraded,
        ),
    ]
    return A.Compose(transforms, additional_targets={"other": "image"}, seed=seed)


class Augmentation:
    """From crops of a shard to what the network is shown: one image, or a real and its fake.

    No label is asked for: both classes get the same, but for `tilt`. All images of a call are cut
    at one place and changed alike, but for the share `apart` of the pairs, whose halves are changed
    each in its own way. What becomes of them follows from `rng` alone.
    """

    def __init__(
        self,
        size: int,
        *,
        margin: float = 1.3,
        factors: tuple[float, float] = (0.85, 1.19),
        apart: float = 0.0,
        degraded: float = 1.0,
        tilt: float = 0.0,
    ) -> None:
        """`size` is the side of the network's input, `margin` that of a scan over the face, which
        is changed by one of the `factors` (from, to); `degraded` as for `pipeline`, and for how
        often pictures are stored small and coarse: `1 + tilt` times that for the first half of a
        pair whose halves are changed apart, and `1 - tilt` times for the second."""
        self._size, self._margin, self._factors, self._apart = size, margin, factors, apart
        self._halves = degraded * (1 + tilt), degraded * (1 - tilt)
        self._degraded = degraded
        # Made in the process that uses them: they do not pickle well.
        self._pipelines: dict[float, Any] = {}

    def __call__(
        self,
        images: Sequence[Image],
        boxes_xyxy: Sequence[NDArray[np.float32]],
        rng: np.random.Generator,
    ) -> list[Image]:
        """One or two crops (H, W, 3) uint8, each with its face's box (4,) in its pixels -> (S, S,
        3)."""
        shift = np.tile(rng.uniform(-_SHIFT, _SHIFT, 2), 2).astype(np.float32)
        margin = self._margin * rng.uniform(*self._factors)
        shown = [
            face_cut(image, box + shift * np.max(box[2:] - box[:2]), margin, self._size)
            for image, box in zip(images, boxes_xyxy, strict=True)
        ]
        if len(shown) == 1:
            return [self._changed((shown[0], shown[0]), self._degraded, rng)[0]]
        if self._apart and rng.random() < self._apart:
            halves = zip(shown, self._halves, strict=True)
            return [self._changed((image, image), often, rng)[0] for image, often in halves]
        return list(self._changed((shown[0], shown[1]), self._degraded, rng))

    def _changed(self, pair: Pair, degraded: float, rng: np.random.Generator) -> Pair:
        """Both halves alike."""
        if degraded not in self._pipelines:
            self._pipelines[degraded] = pipeline(0, degraded)
        change = self._pipelines[degraded]
        first, second = recoded(barred(pair, rng), rng, _RECODED * degraded)
        change.set_random_seed(int(rng.integers(2**31)))
        if pair[0] is pair[1]:
            made = change(image=first)["image"]
            return made, made
        made = change(image=first, other=second)
        return made["image"], made["other"]


def face_cut(image: Image, box_xyxy: NDArray[np.float32], margin: float, size: int) -> Image:
    """The square around a face of a wide crop, as a scan cuts it from a frame: (S, S, 3)."""
    height, width = image.shape[:2]
    return cut(image, square_box(box_xyxy, margin, (0, 0, width, height)), size)


def barred(pair: Pair, rng: np.random.Generator) -> Pair:
    """Sometimes both halves with the same black bar at one side, as letterboxing that was not
    recognised leaves it. Such pictures were all called fake (docs/log.md)."""
    if rng.random() >= _BARRED:
        return pair
    share, level, turns = rng.uniform(0.03, _BAR), rng.integers(0, 20), int(rng.integers(4))
    result: list[Image] = []
    for image in pair:
        turned = np.rot90(np.array(image), turns)
        turned[: round(share * len(turned))] = level
        result.append(np.ascontiguousarray(np.rot90(turned, -turns)))
    return result[0], result[1]


def recoded(pair: Pair, rng: np.random.Generator, share: float = _RECODED) -> Pair:
    """Sometimes both halves as an old upload has them: stored small and coarse, then enlarged.

    Detectors otherwise call exactly such recordings fake (docs/log.md).
    """
    if rng.random() >= share:
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
