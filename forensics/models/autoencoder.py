"""Small convolutional autoencoders: a picture drawn again from a few numbers for every block of it.

What generators leave behind is left by their last layers, which make pixels out of a coarse map;
autoencoders that differ in how they do that stand for generators nobody has (Jeong et al.,
"FingerprintNet", ECCV 2022). Written from the idea alone.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Enlargement = Literal["nearest", "bilinear", "transposed", "shuffle"]

_WIDTHS = (16, 48, 64, 96)  # channels at the size of the picture, at half of it, and so on
_SLOPE = 0.1  # of a rectifier below 0
_REACH = 3.0  # numbers of a block lie within plus and minus this
_NOISE = 0.1  # added to them while learning, so that close ones mean about the same


class Plan(NamedTuple):
    """A block's side in pixels (4 or 8), numbers kept for each beside its mean colour, and how the
    decoder doubles a map's size; `critic`: whether it learns against one."""

    block: int
    numbers: int
    enlargement: Enlargement
    critic: bool


# As generators differ: by how much detail they must invent, and how they enlarge. Without a critic
# detail is not invented but left out, as autoencoders for face swaps do.
PLANS: dict[str, Plan] = {
    "nearest": Plan(8, 8, "nearest", critic=True),
    "transposed": Plan(4, 4, "transposed", critic=True),
    "shuffle": Plan(8, 16, "shuffle", critic=True),
    "bilinear": Plan(8, 12, "bilinear", critic=False),
}


class Autoencoder(nn.Module):
    """(B, 3, H, W) float32 in -1..1 -> the same pictures drawn again; H and W are multiples of the
    block's side."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        widths = _WIDTHS[: {4: 3, 8: 4}[plan.block]]
        self.block = plan.block
        layers: list[nn.Module] = [_convolution(3, widths[0])]
        for below, above in pairwise(widths):
            layers.append(_convolution(below, above, stride=2))
        layers += [_Residual(widths[-1]), nn.Conv2d(widths[-1], plan.numbers, 1)]
        self.encoder = nn.Sequential(*layers)
        layers = [nn.Conv2d(plan.numbers + 3, widths[-1], 3, padding=1), _Residual(widths[-1])]
        for above, below in pairwise(widths[::-1]):
            layers.append(_Enlarged(above, below, plan.enlargement))
            if below > widths[0]:
                layers.append(_Residual(below))
        layers.append(nn.Conv2d(widths[0], 3, 3, padding=1))
        self.decoder = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        # The mean colours go round the encoder: what is left to learn is the detail alone.
        coarse = F.avg_pool2d(x, self.block)
        code = torch.tanh(self.encoder(x) / _REACH) * _REACH
        if self.training:
            code = code + _NOISE * torch.randn_like(code)
        detail = self.decoder(torch.cat([code, coarse.to(code.dtype)], dim=1))
        return detail + F.interpolate(coarse, scale_factor=self.block, mode="bilinear")


class Critic(nn.Module):
    """(B, 3, H, W) in -1..1 -> (B, 1, H / 4, W / 4): above 0 where it takes a patch for a
    photograph's."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for below, above, kernel, stride in ((3, 32, 4, 2), (32, 64, 4, 2), (64, 96, 3, 1)):
            convolution = nn.Conv2d(below, above, kernel, stride, padding=1)
            layers += [nn.utils.spectral_norm(convolution), nn.LeakyReLU(0.2)]
        layers.append(nn.utils.spectral_norm(nn.Conv2d(96, 1, 3, padding=1)))
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            _convolution(width, width), nn.Conv2d(width, width, 3, padding=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class _Enlarged(nn.Module):
    """A map of twice the height and width."""

    def __init__(self, below: int, above: int, how: Enlargement) -> None:
        super().__init__()
        self._how = how
        if how == "transposed":
            self.convolution: nn.Module = nn.ConvTranspose2d(below, above, 4, 2, 1)
        else:
            made = 4 * above if how == "shuffle" else above
            self.convolution = nn.Conv2d(below, made, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        if self._how in ("nearest", "bilinear"):
            x = F.interpolate(x, scale_factor=2, mode=self._how)
        x = self.convolution(x)
        if self._how == "shuffle":
            x = F.pixel_shuffle(x, 2)
        return F.leaky_relu(x, _SLOPE)


def _convolution(below: int, above: int, *, stride: int = 1) -> nn.Module:
    return nn.Sequential(nn.Conv2d(below, above, 3, stride, padding=1), nn.LeakyReLU(_SLOPE))
