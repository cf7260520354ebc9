"""Which crops of a store a run uses: those of a split, without the data sets that it leaves out."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from forensics.datasets.manifest import require_known
from forensics.datasets.shards import CropStore


def rows_of(store: CropStore, split: str, leave_out: Collection[str]) -> NDArray[np.int64]:
    """Rising numbers of the crops of `split` that are in none of the data sets `leave_out`.

    Raises ConfigError for a data set that the store does not have.
    """
    names = store.names["dataset"]
    require_known(leave_out, names)
    rows = store.where(split=split)
    codes = [names.index(name) for name in leave_out]
    return rows[~np.isin(store.rows.dataset[rows], codes)]
