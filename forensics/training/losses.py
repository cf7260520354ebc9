"""What a training step minimises: cross-entropy, and a ranking inside pairs; pure.

Legend: B images; label 1 is fake.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

NO_PAIR = -1


def detection_loss(
    logits: Tensor, labels: Tensor, pairs: Tensor, *, label_smoothing: float, rank: float
) -> Tensor:
    """The mean over images of binary cross-entropy, plus `rank` times the mean over pairs of
    softplus(real - fake).

    `logits` (B,), `labels` (B,) 0 or 1, `pairs` (B,) the number of the pair an image belongs to or
    NO_PAIR; of each pair there is one real and one fake, in the same order. An offset that both
    halves share (a camera, a codec) leaves the ranking term as it is.
    """
    logits, targets = logits.float(), labels.float()
    targets = targets * (1 - 2 * label_smoothing) + label_smoothing
    loss = F.binary_cross_entropy_with_logits(logits, targets)
    paired = pairs != NO_PAIR
    if rank > 0 and bool(paired.any()):
        real, fake = logits[paired & (labels == 0)], logits[paired & (labels == 1)]
        loss = loss + rank * F.softplus(real - fake).mean()
    return loss
