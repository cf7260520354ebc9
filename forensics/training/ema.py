"""The exponential moving average of a network: what is validated and kept.

Tarvainen and Valpola, "Mean teachers are better role models", 2017.
"""

from __future__ import annotations

import torch
from torch import nn


def decay_at(step: int, decay: float) -> float:
    """The decay after `step` updates (from 0): small at first, or random weights would linger."""
    return min(decay, (step + 1) / (step + 10))


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, decay: float) -> None:
    """Move the average's weights and buffers towards the model's; counters are copied."""
    current = model.state_dict()
    for name, value in average.state_dict().items():
        if value.is_floating_point():
            value.lerp_(current[name], 1 - decay)
        else:
            value.copy_(current[name])
