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
    -1.49209, -1.40372, -1.29110, -1.30710, -1.35435, -1.19240, -1.03208, -1.08893,
    -1.10388, -1.10944, -1.19488, -1.22994, -1.18489, -1.11726, -1.09708, -1.08439,
    -1.05172, -0.99461, -0.91719, -0.95180, -0.98097, -0.99368, -1.04337, -1.14006,
    -1.25427, -1.18417, -1.11994, -1.30432, -1.46097, -1.33925, -1.16404, -1.11139,
]
# fmt: on
PROBABILITY = 0.25430
TOLERANCE = 1e-3


def test_the_sample_clip_scores_what_it_scored() -> None:
    report = forensics.scan(CLIP)
    assert forensics.load_checkpoint().card.weights_sha256 == WEIGHTS
    (person,) = report.verdict.people
    np.testing.assert_allclose(person.score.logits, LOGITS, atol=TOLERANCE)
    assert abs(person.score.probability - PROBABILITY) < TOLERANCE
    assert report.verdict.label == "uncertain"
