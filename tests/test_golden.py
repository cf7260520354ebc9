"""The shipped detector's scores on the sample clip: no new library version may move them unseen."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import forensics

CLIP = Path(__file__).parents[1] / "data" / "samples" / "astronaut.mp4"
# Uncalibrated logits of the 32 frames, from `forensics.scan(CLIP)` with the weights below; the same
# with one thread and with several. A new detector brings new numbers, nothing else may.
WEIGHTS = "71d8aaabda630b2b7b6ab8d8238cdb87876df10c57c02a071c475f52a2f4ede4"
# fmt: off
LOGITS = [
    -1.16625, -1.08777, -1.14655, -1.00611, -1.25513, -0.97836, -0.68213, -0.65395,
    -0.69217, -0.83486, -0.76255, -0.40687, -0.67785, -0.34104, -0.66374, -0.69633,
    -0.58219, -0.24801, -0.41399, -0.73200, -0.87966, -0.63791, -0.55696, -0.58442,
    -0.99954, -0.82268, -0.42480, -0.56338, -1.14385, -0.98134, -0.56116, -0.49748,
]
# fmt: on
PROBABILITY = 0.29310
TOLERANCE = 1e-3


def test_the_sample_clip_scores_what_it_scored() -> None:
    report = forensics.scan(CLIP)
    assert forensics.load_checkpoint().card.weights_sha256 == WEIGHTS
    (person,) = report.verdict.people
    np.testing.assert_allclose(person.score.logits, LOGITS, atol=TOLERANCE)
    assert abs(person.score.probability - PROBABILITY) < TOLERANCE
    assert report.verdict.label == "uncertain"
