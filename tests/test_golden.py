"""The shipped detector's scores on the sample clip: no new library version may move them unseen."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import forensics

CLIP = Path(__file__).parents[1] / "data" / "samples" / "astronaut.mp4"
# Uncalibrated logits of the 32 frames, from `forensics.scan(CLIP)` with the weights below; the same
# with one thread and with several. A new detector brings new numbers, nothing else may.
WEIGHTS = "c3f871f4a4195efb2741dca93d483b1974bbd78281aadf75e9b53160da816425"
# fmt: off
LOGITS = [
    -0.35499, -0.44664, -0.58804, -0.55178, -0.43520, -0.66538, -0.48821, -0.83622,
    -0.49856, -0.72591, -0.76344, -0.50472, -0.72210, -0.40965, -0.62482, -0.25862,
    -0.67677, -0.49816, 0.07369, -0.50651, -0.25120, -0.09501, -0.28299, -0.04336,
    -0.65350, -0.20432, 0.05189, -0.49705, -0.38815, -0.34275, -0.22580, -0.14255,
]
# fmt: on
PROBABILITY = 0.20042
TOLERANCE = 1e-3


def test_the_sample_clip_scores_what_it_scored() -> None:
    report = forensics.scan(CLIP)
    assert forensics.load_checkpoint().card.weights_sha256 == WEIGHTS
    (person,) = report.verdict.people
    np.testing.assert_allclose(person.score.logits, LOGITS, atol=TOLERANCE)
    assert abs(person.score.probability - PROBABILITY) < TOLERANCE
    assert report.verdict.label == "uncertain"
