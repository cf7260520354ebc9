"""The shipped detector's scores on the sample clip: no new library version may move them unseen."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

import forensics

CLIP = Path(__file__).parents[1] / "data" / "samples" / "astronaut.mp4"
# Uncalibrated logits of the 32 frames, from `forensics.scan(CLIP)` with the weights below; the same
# with one thread and with several. A new detector brings new numbers, nothing else may.
WEIGHTS = "319dd205f59ba1b738f564463a6caa455bdb8735add77fa276b84dad23cf3742"
# fmt: off
LOGITS = [
    -2.05526, -1.83759, -1.59360, -1.68398, -1.79373, -1.63596, -1.39330, -1.17604,
    -1.08589, -1.19690, -1.36289, -1.44553, -1.27336, -1.09494, -1.07383, -0.90696,
    -0.85088, -0.85405, -0.70497, -0.90835, -1.00249, -0.60916, -0.41654, -0.55369,
    -0.63935, -0.56973, -0.61734, -0.70673, -0.75185, -0.68731, -0.41075, -0.26295,
]
# fmt: on
PROBABILITY = 0.23232
TOLERANCE = 1e-3


def test_the_sample_clip_scores_what_it_scored() -> None:
    report = forensics.scan(CLIP)
    assert forensics.load_checkpoint().card.weights_sha256 == WEIGHTS
    (person,) = report.verdict.people
    np.testing.assert_allclose(person.score.logits, LOGITS, atol=TOLERANCE)
    assert abs(person.score.probability - PROBABILITY) < TOLERANCE
    assert report.verdict.label == "uncertain"


def test_the_error_rates_name_the_detector_as_reports_do() -> None:
    checkpoint = forensics.load_checkpoint()
    digest = hashlib.sha256(checkpoint.path.read_bytes()).hexdigest()
    page = CLIP.parents[2] / "docs" / "error-rates.md"
    assert checkpoint.sha256 == digest
    assert (
        f"`default` {checkpoint.card.version} (sha256 of its file `{digest[:12]}…`"
        in page.read_text(encoding="utf-8")
    )
