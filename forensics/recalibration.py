"""A new calibration for a checkpoint, from labelled videos scored by the scan itself.

Legend: V videos that got a probability.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forensics.calibration import (
    Calibration,
    Platt,
    apply,
    choose_thresholds,
    class_weights,
    fit_isotonic,
    fit_platt,
    fit_temperature,
)
from forensics.card import Card
from forensics.config import ScanConfig
from forensics.datasets.manifest import Sample
from forensics.datasets.splits import components
from forensics.errors import CheckpointError, ConfigError, ForensicsError, ManifestError
from forensics.faces import FaceDetector
from forensics.metrics import expected_calibration_error, roc_auc
from forensics.pipeline import Scanner

METHODS: dict[str, Callable[..., Calibration]] = {
    "temperature": fit_temperature,
    "platt": fit_platt,
    "isotonic": fit_isotonic,
}
_FOLDS = 5

# Done, of how many, the file, what became of it.
OnFile = Callable[[int, int, str, str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """One video: the uncalibrated logit of whoever decides its verdict, or None and the reason."""

    sample: Sample
    logit: float | None
    reason: str


def score_videos(
    checkpoint: str | Path,
    samples: Sequence[Sample],
    folder: Path,
    *,
    config: ScanConfig | None = None,
    on_file: OnFile | None = None,
    face_detector: FaceDetector | None = None,
) -> list[Scored]:
    """Scan the videos among `samples`, whose paths are relative to `folder`.

    A video that abstains, or shows nobody sufficiently, has no logit: its verdict does not depend
    on the calibration. Raises CheckpointError and ConfigError.
    """
    videos = [sample for sample in samples if sample.kind == "video"]
    scored: list[Scored] = []
    with Scanner(checkpoint, config, face_detector=face_detector) as scanner:
        for sample in videos:
            one = _score(scanner, sample, folder)
            scored.append(one)
            if on_file is not None:
                on_file(len(scored), len(videos), sample.path, one.reason or "scored")
    return scored


def _score(scanner: Scanner, sample: Sample, folder: Path) -> Scored:
    try:
        verdict = scanner.scan(folder / sample.path).verdict
    except (CheckpointError, ConfigError):
        raise  # no other video would fare better
    except ForensicsError as error:
        return Scored(sample=sample, logit=None, reason=str(error))
    if verdict.abstained or not verdict.people[0].sufficient:
        reason = verdict.label if verdict.abstained else "nobody seen sufficiently"
        return Scored(sample=sample, logit=None, reason=reason)
    return Scored(sample=sample, logit=verdict.people[0].score.score, reason="")


def recalibrated(
    card: Card, scored: Sequence[Scored], *, method: str, max_fpr: float, material: str
) -> Card:
    """The card with a calibration, thresholds and their measured quality from `scored`.

    `method` is a key of METHODS. At most `max_fpr` of the reals get likely_fake, and at most that
    share of the fakes likely_real. Both classes count the same, also in the calibration errors.
    A temperature keeps the logit at which the card says 0.5. `material` says in words what was
    scored. The expected calibration error after is given twice: on the videos themselves, and,
    where there are enough, cross-validated over groups that share no person or recording.

    Raises ConfigError for an unknown method, ManifestError where the videos allow no calibration:
    one class only, or fakes that do not score above reals.
    """
    if method not in METHODS:
        raise ConfigError(f"method {method!r} is unknown; known: {', '.join(METHODS)}")
    judged = [one for one in scored if one.logit is not None]
    logits = np.array([one.logit for one in judged], dtype=np.float64)
    labels = np.array([one.sample.label == "fake" for one in judged], dtype=np.int64)
    lost = next((one for one in scored if one.logit is None), None)
    hint = f"; not judged: {lost.sample.path}: {lost.reason}" if lost else ""
    for label, wanted in ((0, "real"), (1, "fake")):
        if not (labels == label).any():
            raise ManifestError(
                f"{material}: none of the {len(scored)} videos is a {wanted} that could be judged; "
                f"a calibration needs both classes{hint}"
            )
    fit = _fitter(method, card.calibration)
    try:
        calibration = fit(logits, labels, class_weights(labels))
        probabilities = apply(calibration, logits)
        thresholds = choose_thresholds(
            probabilities, labels, max_false_alarm=max_fpr, max_missed=max_fpr
        )
    except ValueError as error:
        raise ManifestError(f"{material}: {error}") from error
    reals, fakes = probabilities[labels == 0], probabilities[labels == 1]
    measured: dict[str, float | tuple[float, ...] | str] = {
        **card.metrics,
        "calibration": f"{method}, from {material}",
        "calibration_real_videos": float(len(reals)),
        "calibration_fake_videos": float(len(fakes)),
        "calibration_not_judged": float(len(scored) - len(judged)),
        "calibration_auc": round(roc_auc(labels, logits), 4),
        "max_false_positive_rate": max_fpr,
        "false_positive_rate": round(float((reals >= thresholds.fake).mean()), 4),
        "fakes_found": round(float((fakes >= thresholds.fake).mean()), 4),
        "ece_before": round(_ece(labels, apply(card.calibration, logits)), 4),
        "ece_after": round(_ece(labels, probabilities), 4),
    }
    held_out = _held_out([one.sample for one in judged], logits, labels, fit)
    if held_out is not None:
        measured["ece_after_cross_validated"] = round(_ece(labels, held_out), 4)
    else:
        measured.pop("ece_after_cross_validated", None)
    return replace(card, calibration=calibration, thresholds=thresholds, metrics=measured)


def _fitter(method: str, before: Calibration) -> Callable[..., Calibration]:
    if method != "temperature" or not isinstance(before, Platt):
        return METHODS[method]

    def sharpen(logits: NDArray[np.float64], *rest: Any) -> Platt:
        found = fit_temperature(before.scale * logits + before.offset, *rest)
        return Platt(scale=found.scale * before.scale, offset=found.scale * before.offset)

    return sharpen


def _ece(labels: NDArray[np.int64], probabilities: NDArray[np.float64]) -> float:
    return expected_calibration_error(labels, probabilities, weights=class_weights(labels))


def _held_out(
    samples: Sequence[Sample],
    logits: NDArray[np.float64],
    labels: NDArray[np.int64],
    fit: Callable[..., Any],
) -> NDArray[np.float64] | None:
    """(V,) probabilities, each from a calibration that saw nobody of that video; None where the
    groups are too few to leave some out."""
    groups = components(samples)
    if len(groups) < _FOLDS:
        return None
    fold = np.empty(len(samples), dtype=np.int64)
    for number, rows in enumerate(sorted(groups, key=len, reverse=True)):
        fold[rows] = number % _FOLDS
    result = np.empty(len(samples))
    for number in range(_FOLDS):
        seen, unseen = fold != number, fold == number
        try:
            calibration = fit(logits[seen], labels[seen], class_weights(labels[seen]))
        except ValueError:
            return None
        result[unseen] = apply(calibration, logits[unseen])
    return result
