"""The published Efficient ViT as a scan uses it: a face's score is its own."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from fill import fill, golden_input
from test_scoring import CPU, SIZE, checkpoint_of, track_of
from torch import nn

from forensics.models import build
from forensics.models.inference import for_inference
from forensics.models.published import PublishedEfficientViT, first_position
from forensics.scoring import score_tracks

OPTIONS: dict[str, Any] = {
    "image_size": SIZE, "patch_size": 2, "width": 32, "depth": 1, "heads": 1, "hidden": 32,
}  # fmt: skip


@pytest.fixture
def model() -> nn.Module:
    model = build("efficient-vit-published", OPTIONS).eval()
    model.load_state_dict(fill(model.state_dict()))
    return model


def test_as_published_one_image_has_as_many_logits_as_places(model: nn.Module) -> None:
    image = golden_input(SIZE, 1)
    with torch.no_grad():
        logits = model(image.repeat(32, 1, 1, 1))
        assert len(set(logits.tolist())) > 16
        with pytest.raises(ValueError, match="at most 32"):
            model(image.repeat(33, 1, 1, 1))


def test_the_first_position_is_that_of_an_image_alone(model: nn.Module) -> None:
    image = golden_input(SIZE, 1)
    with torch.no_grad():
        alone = model(image)
        with first_position(nn.Sequential(model)):  # wherever it is
            logits = model(image.repeat(40, 1, 1, 1))
        torch.testing.assert_close(logits, alone.expand(40), rtol=1e-5, atol=1e-5)
        assert len(set(model(image.repeat(4, 1, 1, 1)).tolist())) == 4  # and as published again


def test_the_way_of_positions_is_restored_after_an_error(model: nn.Module) -> None:
    with pytest.raises(RuntimeError, match="stop"), first_position(model):
        raise RuntimeError("stop")
    assert cast(PublishedEfficientViT, model).row is None


@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_a_score_does_not_depend_on_the_batch(model: nn.Module, batch_size: int) -> None:
    checkpoint = checkpoint_of(for_inference(model))
    tracks = [track_of(36, 0), track_of(3, 1)]
    together = score_tracks(tracks, checkpoint, batch_size=batch_size, device=CPU)
    (alone,) = score_tracks(tracks[1:], checkpoint, batch_size=1, device=CPU)
    assert together[1].logits == pytest.approx(alone.logits, abs=1e-4)
