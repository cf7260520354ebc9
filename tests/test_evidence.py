"""Evidence for a report: which views a face's heat map is made of."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from forensics import evidence
from forensics.preprocess import Preprocessing, View

SIZE = 8


@pytest.mark.parametrize(
    ("everies", "expected"),
    [
        # Upright in turns, and a fourth looked at in tiles: only what each face was seen in.
        (((2, 0), (2, 1), (4, 0)), {0: 0.5 + 0.2, 1: 0.3, 2: 0.5, 3: 0.3}),
        # A face between two turns has its score from its neighbours in every view.
        (((4, 0), (4, 0), (4, 1)), {0: 0.8, 1: 0.2, 2: 1.0, 3: 1.0}),
        (((1, 0), (1, 0), (1, 0)), dict.fromkeys(range(4), 1.0)),
    ],
)
def test_a_heat_map_is_made_of_the_views_a_face_was_seen_in(
    monkeypatch: pytest.MonkeyPatch,
    everies: tuple[tuple[int, int], ...],
    expected: dict[int, float],
) -> None:
    views = tuple(
        View(margin=1.0, weight=weight, every=every, start=start)
        for weight, (every, start) in zip((0.5, 0.3, 0.2), everies, strict=True)
    )
    preprocessing = Preprocessing(
        size=SIZE, margin=1.0, mean=(0.5,) * 3, std=(0.5,) * 3, views=views
    )
    monkeypatch.setattr(evidence, "heat_maps", lambda _, x: torch.ones(len(x), SIZE, SIZE))
    checkpoint = SimpleNamespace(card=SimpleNamespace(preprocessing=preprocessing), model=None)
    track = SimpleNamespace(
        times_s=np.arange(5.0), crops=np.zeros((5, SIZE, SIZE, 3), dtype=np.uint8)
    )
    few = list(expected)
    maps = evidence._heat(track, few, checkpoint, torch.device("cpu"))  # type: ignore[arg-type]
    assert maps.shape == (len(few), SIZE, SIZE)
    for found, heat in zip(maps, expected.values(), strict=True):
        np.testing.assert_allclose(found, heat, rtol=1e-6)
