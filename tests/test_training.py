"""The averaged weights, and the faster gradients."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from efficientnet_pytorch import EfficientNet  # pyright: ignore[reportMissingTypeStubs]
from torch import Tensor, nn

from forensics.models.efficientnet import efficientnet
from forensics.training.depthwise import fast_depthwise
from forensics.training.ema import update_average


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.extractor = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.head = nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.extractor(x).mean((2, 3))).squeeze(1)


def test_the_average_moves_weights_and_statistics_by_the_decay() -> None:
    model, average = Tiny(), Tiny()
    before = average.state_dict()["extractor.1.running_var"].clone()
    model.extractor[1].running_var.fill_(3.0)
    update_average(average, model, 0.75)
    after = average.state_dict()["extractor.1.running_var"]
    assert torch.allclose(after, 0.75 * before + 0.25 * 3.0)


def of_the_library(size: int) -> nn.Module:
    return EfficientNet.from_name("efficientnet-b0", image_size=size, include_top=False)


def of_the_house(size: int) -> nn.Module:
    return efficientnet("efficientnet-b0", size, include_top=False)  # pads in its convolutions


@pytest.mark.parametrize("make", [of_the_library, of_the_house])
@pytest.mark.parametrize("size", [33, 64, 75])
def test_the_fast_depthwise_gradients_are_those_of_pytorch(
    size: int, make: Callable[[int], nn.Module]
) -> None:
    extractor = make(size).double().eval()
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 3, size, size, generator=generator, dtype=torch.float64)

    def gradients() -> list[torch.Tensor]:
        extractor.zero_grad()
        x = images.clone().requires_grad_()
        extractor.extract_features(x).square().sum().backward()  # pyright: ignore
        grads = [p.grad.clone() for p in extractor.parameters() if p.grad is not None]
        assert x.grad is not None
        return [x.grad, *grads]

    expected = gradients()
    with fast_depthwise(extractor) as found:
        assert found == 16
        actual = gradients()
    assert len(actual) == len(expected)
    for mine, theirs in zip(actual, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(gradients()[0], expected[0], rtol=0, atol=0)  # and is undone
