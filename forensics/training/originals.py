"""The real that a fake was made from, at the same moment and in the same place of the picture.

Where both are shown side by side, all they differ in is the forgery: not the person, the camera or
the codec.

Legend: N crops.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

from forensics.datasets.manifest import SEPARATOR
from forensics.datasets.shards import CropStore

Rows = NDArray[np.int64]

_APART_S = 0.1  # a head moves by a few pixels
# Overlap of the two faces in the full frame, the mean over a video. A swapped face stays where it
# was; faces of two recordings overlap so far by chance only.
_OVERLAP = 0.7
NONE = -1


def find_originals(store: CropStore, rows: Rows) -> Rows:
    """For each of `rows` (N,) of the store the row of its original, or NONE; (N,) int64.

    Looked for among those of `rows` that are real and share a source or a group with the fake, of
    the same compression where there is such a one.
    """
    table = store.rows
    result = np.full(len(rows), NONE, dtype=np.int64)
    places: dict[int, Rows] = {}
    reals: dict[str, list[int]] = defaultdict(list)
    videos = np.asarray(table.video[rows])
    order = np.lexsort((table.time_s[rows], videos))
    for part in np.split(order, np.flatnonzero(np.diff(videos[order])) + 1):
        if not len(part):
            continue
        row = int(rows[part[0]])
        places[int(table.video[row])] = part
        if table.label[row] == 0:
            for name in _links(store, row):
                reals[name].append(int(table.video[row]))
    for part in places.values():
        first = int(rows[part[0]])
        if table.label[first] == 0:
            continue
        found = dict.fromkeys(v for name in _links(store, first) for v in reals.get(name, []))
        best = (False, _OVERLAP)
        for video in found:
            near, known = _nearest(store, rows[part], rows[places[video]])
            if 2 * known.sum() < len(part):
                continue
            overlap = _overlaps(store, rows[part][known], near[known]).mean()
            same = bool(table.compression[first] == table.compression[near[0]])
            if (same, overlap) >= best and overlap >= _OVERLAP:
                best = (same, float(overlap))
                result[part] = np.where(known, near, NONE)
    return result


def _links(store: CropStore, row: int) -> list[str]:
    """What a crop's recording is known by."""
    table, names = store.rows, store.names
    sources = names["source"][int(table.source[row])].split(SEPARATOR)
    group = names["group"][int(table.group[row])]
    return [f"source {name}" for name in sources if name] + [f"group {group}"] * bool(group)


def _nearest(store: CropStore, rows: Rows, others: Rows) -> tuple[Rows, NDArray[np.bool_]]:
    """For each of `rows` the nearest of `others` in time, and whether it is near enough; both in
    the order of time."""
    times, theirs = store.rows.time_s[rows], store.rows.time_s[others]
    after = np.minimum(np.searchsorted(theirs, times), len(theirs) - 1)
    before = np.maximum(after - 1, 0)
    nearer = np.abs(theirs[before] - times) <= np.abs(theirs[after] - times)
    chosen = np.where(nearer, before, after)
    return others[chosen], np.abs(theirs[chosen] - times) <= _APART_S


def _overlaps(store: CropStore, rows: Rows, others: Rows) -> NDArray[np.float64]:
    """Intersection over union of the faces in their frames, (N,) each."""
    a = np.asarray(store.rows.frame_xyxy[rows], dtype=np.float64)
    b = np.asarray(store.rows.frame_xyxy[others], dtype=np.float64)
    sides = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
    both = np.prod(np.maximum(sides, 0), axis=1)
    areas = np.prod(a[:, 2:] - a[:, :2], axis=1) + np.prod(b[:, 2:] - b[:, :2], axis=1)
    return both / np.maximum(areas - both, 1e-9)
