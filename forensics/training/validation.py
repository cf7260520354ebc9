"""How good a network is on videos it does not learn from: mean of each video's logits, then AUC.

Legend: V videos.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from forensics import metrics
from forensics.datasets.shards import CropStore
from forensics.errors import ManifestError, TrainingError
from forensics.training.samples import Batch, Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """`logits` (V,) float64, the mean of each video's; `labels` (V,) 1 is fake. A video none of
    whose crops could be read is not among them."""

    logits: NDArray[np.float64]
    labels: NDArray[np.int64]

    def auc(self) -> float:
        """Raises ManifestError where no video of one class could be read."""
        if len(np.unique(self.labels)) < 2:
            raise ManifestError(
                "no crop of one class could be read from the validation split: no AUC to choose "
                "the best checkpoint by; extract its crops again"
            )
        return metrics.roc_auc(self.labels, self.logits)

    def loss(self) -> float:
        """Mean cross-entropy of the videos' logits as they are, uncalibrated."""
        signed = np.where(self.labels == 1, -self.logits, self.logits)
        return float(np.logaddexp(0.0, signed).mean())


def validation_rows(
    store: CropStore, rows: NDArray[np.int64], frames: int, *, blended: bool
) -> NDArray[np.int64]:
    """`frames` crops of the person seen most in each video of `rows` (N,), evenly spaced in time.

    With `blended` reals with landmarks only. Raises ManifestError when a class is missing.
    """
    rows = rows[store.rows.main[rows]]
    if not len(rows):
        raise ManifestError(
            "no crop is in the split `val`: validation chooses the best checkpoint; divide the "
            "manifest into splits and extract again"
        )
    labels = store.rows.label[rows]
    if blended:
        rows = rows[(labels == 0) & ~np.isnan(store.rows.landmarks[rows, 0, 0])]
        if not len(rows):
            raise ManifestError("the split `val` holds no real with landmarks to blend fakes from")
    elif len(np.unique(labels)) < 2:
        only = "fakes" if labels[0] else "reals"
        raise ManifestError(
            f"the split `val` holds {only} only: AUC compares both classes; change the splits"
        )
    # Time breaks ties of a video, row numbers those of a moment: the same crops every time.
    table = store.rows
    order = rows[np.lexsort((rows, table.time_s[rows], table.video[rows]))]
    videos = np.split(order, np.flatnonzero(np.diff(table.video[order])) + 1)
    chosen = [v[_evenly(len(v), frames)] if len(v) > frames else v for v in videos]
    return np.concatenate(chosen)


def _evenly(count: int, wanted: int) -> NDArray[np.int64]:
    return np.rint(np.linspace(0, count - 1, wanted)).astype(np.int64)


def score_videos(
    network: nn.Module,
    batches: Iterable[Batch],
    videos: NDArray[np.int64],
    *,
    forward: Callable[[Batch], Tensor],
    add_up: Callable[[Tensor], Tensor],
) -> tuple[Scores, tuple[Failure, ...]]:
    """Score every video with `network` in eval mode; also which crops could not be read.

    `videos` (N,) is the video, from 0, at each place of the validation crops. `forward` turns a
    batch into logits (B,); `add_up` adds a float64 tensor up over all processes. Raises
    TrainingError for a logit that is not finite. The network is left in eval mode.
    """
    network.eval()
    # A video's reals and its self-blended fakes are two: twice its number, and one for fakes.
    sums = torch.zeros(2, 2 * (int(videos.max()) + 1), dtype=torch.float64)
    failures: list[Failure] = []
    with torch.inference_mode():
        for batch in batches:
            failures += batch.failures
            if len(batch.labels):
                logits = forward(batch).to("cpu", torch.float64)
                found = torch.from_numpy(videos[batch.places.numpy()])  # pyright: ignore
                sums[0].index_add_(0, 2 * found + batch.labels, logits)
                sums[1].index_add_(0, 2 * found + batch.labels, torch.ones_like(logits))
    totals, counts = add_up(sums).cpu().numpy()
    seen = np.flatnonzero(counts)
    logits = totals[seen] / counts[seen]
    if not np.isfinite(logits).all():
        raise TrainingError("the network gives values that are not finite; lower optimizer.lr")
    return Scores(logits=logits, labels=seen % 2), tuple(failures)
