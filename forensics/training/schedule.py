"""The learning rate over a run; pure. It depends on the step alone, so a resumed run has no state
of it to restore."""

from __future__ import annotations

import math

from forensics.training.config import ScheduleConfig


def rate(step: int, total: int, config: ScheduleConfig) -> float:
    """The share of the full learning rate in step 0 to `total` - 1.

    A linear warm-up over the first `config.warmup` of the run, then half a cosine that ends at
    `config.floor` (Loshchilov and Hutter, "SGDR", 2017, without restarts).
    """
    warm = round(config.warmup * total)
    if step < warm:
        return (step + 1) / warm
    done = (step - warm) / max(1, total - 1 - warm)
    return config.floor + (1 - config.floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
