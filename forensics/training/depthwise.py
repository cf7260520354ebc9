"""A faster backward pass for depthwise convolutions on CPUs.

PyTorch's CPU kernels spend half of an EfficientNet's training step in the gradients of its
depthwise convolutions. Both gradients can be had from fast parts: that of the input is a forward
depthwise convolution of the (dilated) output gradient with the flipped kernel, and that of the
weight is, per kernel position, one product and one sum over images and places.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from types import MethodType
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class DepthwiseConv(torch.autograd.Function):
    """conv2d(x, weight, groups=C, padding=0) for x (N, C, H, W) and weight (C, 1, k, k)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(x, weight)
        ctx.stride = stride
        return F.conv2d(x, weight, None, stride, 0, 1, weight.shape[0])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:  # type: ignore[override]
        x, weight = cast(tuple[Tensor, Tensor], ctx.saved_tensors)
        stride = int(ctx.stride)
        return (
            _input_gradient(grad, x, weight, stride) if ctx.needs_input_grad[0] else None,
            _weight_gradient(grad, x, weight, stride) if ctx.needs_input_grad[1] else None,
            None,
        )


def _input_gradient(grad: Tensor, x: Tensor, weight: Tensor, stride: int) -> Tensor:
    channels, _, size, _ = weight.shape
    shape = (x.shape[0], channels, x.shape[2] - size + 1, x.shape[3] - size + 1)
    if stride > 1:
        # A stride leaves zeros between the gradients, and input rows beyond the last window.
        spread = torch.zeros(shape, dtype=grad.dtype).contiguous(memory_format=torch.channels_last)
        spread[:, :, ::stride, ::stride] = grad
    else:
        spread = grad
    return F.conv2d(spread, weight.flip(2, 3), None, 1, size - 1, 1, channels)


def _weight_gradient(grad: Tensor, x: Tensor, weight: Tensor, stride: int) -> Tensor:
    channels, _, size, _ = weight.shape
    out = grad.permute(0, 2, 3, 1)  # channels last: neighbours in memory are neighbours here
    places = x.permute(0, 2, 3, 1)
    height, width = out.shape[1], out.shape[2]
    result = torch.empty((channels, 1, size, size), dtype=weight.dtype)
    for i in range(size):
        for j in range(size):
            rows = slice(i, i + stride * (height - 1) + 1, stride)
            columns = slice(j, j + stride * (width - 1) + 1, stride)
            # sum() accumulates bf16 in float32; only the product and the result are rounded.
            result[:, 0, i, j] = (places[:, rows, columns] * out).sum((0, 1, 2))
    return result


@contextmanager
def fast_depthwise(module: nn.Module) -> Generator[int]:
    """Within the block, efficientnet-pytorch's depthwise convolutions in `module` use it on CPUs.

    Yields how many convolutions were found; none is changed when the module is not on the CPU.
    """
    found: list[nn.Module] = []
    for part in module.modules():
        if (
            isinstance(part, nn.Conv2d)
            and hasattr(part, "static_padding")
            and 1 < part.groups == part.in_channels == part.out_channels
            and part.dilation == (1, 1)
            and part.bias is None
            and part.weight.device.type == "cpu"
        ):
            part.forward = MethodType(_forward, part)
            found.append(part)
    try:
        yield len(found)
    finally:
        for part in found:
            del part.forward


def _forward(self: Any, x: Tensor) -> Tensor:
    x, weight = self.static_padding(x), self.weight
    if any(self.padding):  # static padding alike on all sides, which our networks leave to conv2d
        rows, columns = self.padding
        x = F.pad(x, (columns, columns, rows, rows))
    if torch.is_autocast_enabled("cpu"):
        dtype = torch.get_autocast_dtype("cpu")
        x, weight = x.to(dtype), weight.to(dtype)
    return cast(Tensor, DepthwiseConv.apply(x, weight, self.stride[0]))
