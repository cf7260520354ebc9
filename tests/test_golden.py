"""The shipped detector's scores on the sample clip: no new library version may move them unseen."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import forensics

CLIP = Path(__file__).parents[1] / "data" / "samples" / "astronaut.mp4"
# Uncalibrated logits of the 32 frames, from `forensics.scan(CLIP)` with the weights below; the same
# with one thread and with several. A new detector brings new numbers, nothing else may.
WEIGHTS = "8ff6a495ec5e49df636643712fdfd1ba1b39043b01e7f3289f8b306dcf4782df"
# fmt: off
LOGITS = [
    -0.12094, -0.12645, -0.22773, -0.31685, -0.31771, -0.24791, 0.32496, -0.42839,
    -0.18186, -0.64366, -0.52715, -0.01432, -0.53786, -0.32348, -0.11293, -0.15545,
    -0.25230, -0.10612, 0.25206, 0.25041, 0.01513, 0.29695, 0.10857, 0.17157,
    -0.18482, -0.28040, 0.62794, 0.17712, 0.04922, 0.07812, -0.00341, 0.44051,
]
# fmt: on
PROBABILITY = 0.15235
TOLERANCE = 1e-3


def test_the_sample_clip_scores_what_it_scored() -> None:
    report = forensics.scan(CLIP)
    assert forensics.load_checkpoint().card.weights_sha256 == WEIGHTS
    (person,) = report.verdict.people
    np.testing.assert_allclose(person.score.logits, LOGITS, atol=TOLERANCE)
    assert abs(person.score.probability - PROBABILITY) < TOLERANCE
    assert report.verdict.label == "likely_real"
