"""A contact sheet of what the network is shown: the scan's cut, augmented versions, blended pairs.

One column per crop, reals and fakes in turn; what is drawn follows from the seed alone.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from forensics.datasets.augment import Augmentation, Image, face_cut
from forensics.datasets.self_blend import self_blend
from forensics.datasets.shards import CropStore
from forensics.errors import ManifestError

COLUMNS, VERSIONS = 8, 4
_MARGIN = 1.3  # of a scan
_CAPTION, _GAP = 16, 2  # px
_REAL, _FAKE = (60, 160, 60), (200, 60, 60)


def contact_sheet(store: CropStore, *, size: int = 224, seed: int = 0) -> Image:
    """(H, W, 3) uint8 RGB, `size` px a tile, green above reals and red above fakes.

    First row: crops as a scan cuts them; below each, augmented versions. The last two rows are
    self-blended pairs of the reals with landmarks, before and after augmentation. Raises
    ManifestError for a store without crops.
    """
    chosen = _chosen(store, np.random.default_rng(seed))
    augment = Augmentation(size, margin=_MARGIN)
    columns = [
        _column(store, row, augment, size, np.random.default_rng((seed, number)))
        for number, row in enumerate(chosen)
    ]
    rows = [np.concatenate(tiles, axis=1) for tiles in zip(*columns, strict=True)]
    reals = [row for row in chosen if store.rows.label[row] == 0]
    reals = [row for row in reals if np.isfinite(store.rows.landmarks[row]).all()]
    pairs = [
        _pairs(store, row, augment, size, np.random.default_rng((seed, COLUMNS + number)))
        for number, row in enumerate(reals[: COLUMNS // 2])
    ]
    for halves in zip(*pairs, strict=True):
        shown = np.concatenate(halves, axis=1)
        rest = np.full((len(shown), rows[0].shape[1] - shown.shape[1], 3), 255, np.uint8)
        rows.append(np.concatenate([shown, rest], axis=1))
    return np.concatenate(rows)


def _chosen(store: CropStore, rng: np.random.Generator) -> list[int]:
    """Crops of the training split, where there is one: real, fake, real, fake, ..."""
    main = np.flatnonzero(store.rows.main)
    training = np.intersect1d(store.where(split="train"), main)
    rows = training if len(training) else main
    if not len(rows):
        raise ManifestError("there are no crops to show")
    classes = [rows[store.rows.label[rows] == label] for label in (0, 1)]
    classes = [part for part in classes if len(part)]
    return [
        # A video first: long ones would fill the sheet.
        _of_any_video(store, classes[column % len(classes)], rng)
        for column in range(COLUMNS)
    ]


def _of_any_video(store: CropStore, rows: NDArray[np.int64], rng: np.random.Generator) -> int:
    videos = store.rows.video[rows]
    return int(rng.choice(rows[videos == rng.choice(np.unique(videos))]))


def _column(
    store: CropStore, row: int, augment: Augmentation, size: int, rng: np.random.Generator
) -> list[Image]:
    crop, facts = store.read(row)
    method = store.names["method"][int(store.rows.method[row])]
    dataset = store.names["dataset"][int(store.rows.dataset[row])]
    colour, name = (_FAKE, f"{method}, {dataset}") if facts.label else (_REAL, dataset)
    tiles = [_tile(face_cut(crop, facts.box_xyxy, _MARGIN, size), name, colour)]
    for _ in range(VERSIONS):
        (image,) = augment([crop], [facts.box_xyxy], rng)
        tiles.append(_tile(image, "augmented", colour))
    return tiles


def _pairs(
    store: CropStore, row: int, augment: Augmentation, size: int, rng: np.random.Generator
) -> list[Image]:
    """Target and fake side by side: as blended, and augmented."""
    crop, facts = store.read(row)
    box = facts.box_xyxy
    pair = self_blend(crop, facts.landmarks, rng)
    shown = [face_cut(each, box, _MARGIN, size) for each in pair], augment(pair, [box, box], rng)
    return [
        np.concatenate(
            [
                _tile(target, f"target{state}", _REAL),
                _tile(fake, f"self-blended{state}", _FAKE),
            ],
            axis=1,
        )
        for (target, fake), state in zip(shown, ("", ", augmented"), strict=True)
    ]


def _tile(image: Image, caption: str, colour: tuple[int, int, int]) -> Image:
    """The picture below its caption, with a gap around."""
    height, width = image.shape[:2]
    tile = np.full((height + _CAPTION + 2 * _GAP, width + 2 * _GAP, 3), 255, np.uint8)
    tile[:_CAPTION] = colour
    text = caption.encode("ascii", "replace").decode()[: width // 6]
    cv2.putText(tile, text, (3, 12), cv2.FONT_HERSHEY_SIMPLEX, 0.35, (255, 255, 255), 1)
    tile[_CAPTION + _GAP : _CAPTION + _GAP + height, _GAP : _GAP + width] = image
    return tile
