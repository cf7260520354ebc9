"""Sharpness-aware minimisation: the gradient is taken where the loss is worst nearby.

Foret et al., "Sharpness-Aware Minimization for Efficiently Improving Generalization", ICLR 2021.
A step is: gradients, `climb`, gradients again, `descend`, then the step of the optimizer below.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

Origin = list[tuple[Tensor, Tensor]]


@torch.no_grad()
def climb(parameters: Iterable[Tensor], rho: float) -> Origin:
    """Move every weight along its gradient, all together by `rho` (L2 norm).

    Returns what `descend` needs. Weights without a gradient stay; so do all when it is zero.
    """
    moved = [(p, p.grad) for p in parameters if p.grad is not None]
    if not moved:
        return []
    norm = torch.stack([grad.float().square().sum() for _, grad in moved]).sum().sqrt()
    origin = [(p, p.detach().clone()) for p, _ in moved]
    for p, grad in moved:
        p.add_(grad * (rho / (norm + 1e-12)))
    return origin


@torch.no_grad()
def descend(origin: Origin) -> None:
    """Put the weights back, to the bit; their gradients stay those of the top."""
    for p, before in origin:
        p.copy_(before)
