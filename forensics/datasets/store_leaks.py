"""Whether the splits of a store of crops share somebody: asked of its columns, not row by row."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from forensics.datasets.manifest import SEPARATOR, SPLITS
from forensics.datasets.shards import CropStore
from forensics.errors import ManifestError

_SHOWN = 5  # leaks named in the error; the rest is counted


def check_store_no_leak(store: CropStore) -> None:
    """Raise ManifestError, naming the manifest's rows, when splits share anybody.

    As `splits.check_no_leak` does for samples: an identity, a source or a group. Crops without a
    split are in none.
    """
    found: list[str] = []
    splits, none = np.asarray(store.rows.split), np.empty(0, np.int32)
    for column in ("identity", "source", "group"):
        codes = np.asarray(getattr(store.rows, column))
        # Name -> split -> a code that bears it there: a fake's `a;b` is both a and b.
        seen: dict[str, dict[int, int]] = defaultdict(dict)
        for split, split_name in enumerate(store.names["split"]):
            present = np.unique(codes[splits == split]) if split_name in SPLITS else none
            for code in (int(value) for value in present):
                whole = store.names[column][code]
                for name in [whole] if column == "group" else whole.split(SEPARATOR):
                    if name:
                        seen[name].setdefault(split, code)
        for name, places in seen.items():
            if len(places) > 1:
                rows = [np.argmax((codes == code) & (splits == s)) for s, code in places.items()]
                where = " and ".join(sorted(_row(store, int(i)) for i in rows))
                found.append(f"{column} {name} in {where}")
    if found:
        more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise ManifestError(
            f"the splits share people or recordings: {'; '.join(found[:_SHOWN])}{more}; make splits"
            " that do not with `deepfake data check --split` and extract again"
        )


def _row(store: CropStore, i: int) -> str:
    rows, names = store.rows, store.names
    video, split = names["video"][int(rows.video[i])], names["split"][int(rows.split[i])]
    return f"row {int(rows.row[i]) + 1} {video} ({split})"
