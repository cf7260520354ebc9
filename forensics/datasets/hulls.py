"""Which part of a face a self-blended fake replaces: hulls over the parts of a face's shape.

Four kinds as in Shiohara and Yamasaki (CVPR 2022), who take them from the masks of "Face X-ray" (Li
et al., CVPR 2020): one hull around everything; jaw, nose and eyes; eight parts; the same with the
brows raised. A fifth, a single region, stands for forgeries that change the mouth or eyes alone.
Variety matters: with one kind of hull reproductions lost some ten points on Celeb-DF.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from forensics.datasets.face_shape import TEMPLATE, Points, placed

Mask = NDArray[np.float32]

KINDS = ("face", "full", "components", "extended", "region")
_FOREHEAD = 0.75  # of the masks; the others end at the brows
# Of a face's width and height, and of each point, in eye distances: as people differ.
_SCALES, _POINT_NOISE = (0.9, 1.08), 0.04
_RAISE = 0.5  # of the way from an eye to its brow, when brows are raised

_SIDES = ("right", "left")
# Hulls over groups of points; `{side}` stands for either side.
_HULLS: dict[str, tuple[tuple[str, ...], ...]] = {
    "full": (
        ("right_jaw", "left_jaw", "chin", "mouth", "right_lips", "left_lips"),
        ("ridge", "right_wing", "left_wing", "chin"),
        ("{side}_eye", "{side}_brow", "ridge"),
    ),
    "components": (
        ("{side}_jaw", "chin"),
        ("{side}_brow", "chin", "{side}_lips"),
        ("{side}_eye", "{side}_brow", "ridge", "{side}_wing"),
        ("ridge", "right_wing", "left_wing"),
        ("ridge", "right_lips", "left_lips", "mouth", "chin"),
    ),
}
_REGIONS: tuple[tuple[str, ...], ...] = (
    ("right_lips", "left_lips", "mouth"),
    ("right_lips", "left_lips", "mouth", "chin", "right_wing", "left_wing"),
    ("right_eye", "right_brow", "left_eye", "left_brow"),
    ("ridge", "right_wing", "left_wing", "right_lips", "left_lips", "mouth"),
)


def hull_mask(
    size_hw: tuple[int, int], landmarks: NDArray[np.float32], rng: np.random.Generator
) -> Mask:
    """One of the kinds, jittered: (H, W) float32, 1 inside and 0 outside; never empty.

    float32 and not uint8: blurred as integers, an edge from 0 to 1 stays where it is.
    """
    kind = KINDS[int(rng.integers(len(KINDS)))]
    points = _jittered(rng)
    if kind == "extended":
        _raise_brows(points)
    hulls = _hulls(kind, rng)
    mask = np.zeros(size_hw, dtype=np.float32)
    for groups in hulls:
        shape = placed(np.concatenate([points[name] for name in groups]), landmarks)
        corners = cv2.convexHull(np.round(shape).astype(np.int32))
        cv2.fillConvexPoly(mask, corners, 1.0)
    if not mask.any():  # landmarks outside the picture: a fake must differ all the same
        height, width = size_hw
        axes = max(1, width // 4), max(1, height // 3)
        cv2.ellipse(mask, (width // 2, height // 2), axes, 0, 0, 360, 1.0, -1)
    return mask


def _jittered(rng: np.random.Generator) -> dict[str, Points]:
    scale = rng.uniform(*_SCALES, 2)
    return {
        name: points * scale + rng.normal(0, _POINT_NOISE, points.shape)
        for name, points in TEMPLATE.items()
    }


def _raise_brows(points: dict[str, Points]) -> None:
    for side in _SIDES:
        brow, eye = points[f"{side}_brow"], points[f"{side}_eye"]
        points[f"{side}_brow"] = brow + _RAISE * (brow.mean(axis=0) - eye.mean(axis=0))


def _hulls(kind: str, rng: np.random.Generator) -> list[tuple[str, ...]]:
    if kind == "face":
        every = [name for name in TEMPLATE if "forehead" not in name and name != "crown"]
        above = ["right_forehead", "left_forehead", "crown"]
        return [tuple(every + above if rng.random() < _FOREHEAD else every)]
    if kind == "region":
        return [_REGIONS[int(rng.integers(len(_REGIONS)))]]
    return [
        tuple(name.format(side=side) for name in groups)
        for groups in _HULLS["full" if kind == "full" else "components"]
        for side in (_SIDES if any("{side}" in name for name in groups) else ("",))
    ]
