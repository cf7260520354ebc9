"""Batch normalisation folded into the convolution before it, for inference.

In eval mode the normalisation is a fixed scale and offset per channel; a convolution can carry both
in its own weights. Where an activation lies between the two (CMT's stem), nothing can be folded.
"""

from __future__ import annotations

import copy
from itertools import pairwise

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

# Attributes of one parent that follow each other without anything between: convolution, norm.
_PAIRS = (
    ("_conv_stem", "_bn0"),  # efficientnet-pytorch
    ("_conv_head", "_bn1"),
    ("_expand_conv", "_bn0"),
    ("_depthwise_conv", "_bn1"),
    ("_project_conv", "_bn2"),
    ("conv", "bn"),  # CvT's projections
    ("_fc", "_bn"),  # CMT's head
)


def fold_batch_norms(model: nn.Module) -> nn.Module:
    """A copy of `model`, in eval mode, whose foldable batch norms have become identities.

    Logits stay the same up to rounding. The copy is for inference: its state dict has other names
    and it cannot be trained as the original was.
    """
    folded = copy.deepcopy(model).eval()
    for parent in folded.modules():
        for conv_name, norm_name in _PAIRS:
            _fold(parent, conv_name, norm_name)
        if isinstance(parent, nn.Sequential):  # CMT: a convolution and its norm side by side
            names = [name for name, _ in parent.named_children()]
            for first, second in pairwise(names):
                _fold(parent, first, second)
    return folded


def _fold(parent: nn.Module, conv_name: str, norm_name: str) -> None:
    children = dict(parent.named_children())
    conv, norm = children.get(conv_name), children.get(norm_name)
    if not isinstance(conv, nn.Conv2d) or not isinstance(norm, nn.BatchNorm2d):
        return
    if norm.running_mean is None or norm.running_var is None:
        return  # normalises by the batch: nothing fixed to fold
    weight, bias = fuse_conv_bn_weights(
        conv.weight,
        conv.bias,
        norm.running_mean,
        norm.running_var,
        norm.eps,
        norm.weight,
        norm.bias,
    )
    conv.weight, conv.bias = weight, bias
    setattr(parent, norm_name, nn.Identity())
