"""Pictures averaged down: equal to PyTorch's area mode, whole and by boxes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from forensics.downscale import averaged, averaged_boxes, shrink, summed_areas


def test_shrinking_never_enlarges_and_keeps_the_longer_side() -> None:
    assert shrink(np.zeros((90, 160, 3), np.uint8), 640).shape == (90, 160, 3)
    assert shrink(np.zeros((1080, 1920, 3), np.uint8), 640).shape == (360, 640, 3)
    assert shrink(np.zeros((1920, 1080, 3), np.uint8), 640).shape == (640, 360, 3)
    assert shrink(np.zeros((1, 5000, 3), np.uint8), 640).shape == (1, 640, 3)


@pytest.mark.parametrize("size", [(45, 61), (12, 13), (7, 50), (1, 1)])
def test_whole_frames_are_averaged_as_pytorch_does_it(size: tuple[int, int]) -> None:
    batch = np.random.default_rng(0).integers(0, 256, (2, 45, 61, 3), np.uint8)
    expected = interpolate(torch.from_numpy(batch).permute(0, 3, 1, 2).float(), size, mode="area")
    torch.testing.assert_close(averaged(summed_areas(batch), size), expected)


def test_boxes_larger_and_smaller_than_the_result_are_averaged_from_their_own_frames() -> None:
    batch = np.random.default_rng(1).integers(0, 256, (2, 40, 50, 3), np.uint8)
    corners = np.array([[0, 0, 50, 40], [3, 5, 33, 29], [48, 38, 50, 40], [10, 0, 11, 40]])
    owners = torch.tensor([0, 1, 1, 0])
    found = averaged_boxes(summed_areas(batch), corners, owners, 12)
    assert found.shape == (4, 3, 12, 12)
    for (x0, y0, x1, y1), owner, content in zip(corners, owners, found, strict=True):
        box = torch.from_numpy(batch[int(owner), y0:y1, x0:x1]).permute(2, 0, 1)[None].float()
        torch.testing.assert_close(content, interpolate(box, (12, 12), mode="area")[0])
