"""The card of a run's checkpoint: what it learned from, and a first calibration.

The calibration rests on the crops of the validation split; `deepfake calibrate` makes one from
whole videos through the scan itself.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import numpy as np

from forensics.calibration import Platt, apply, choose_thresholds, class_weights, fit_platt
from forensics.card import Card
from forensics.datasets.shards import CropStore
from forensics.metrics import expected_calibration_error
from forensics.preprocess import Preprocessing
from forensics.structures import Thresholds
from forensics.training.config import TrainConfig
from forensics.training.network import options_of
from forensics.training.rows import rows_of
from forensics.training.validation import Scores
from forensics.verdict import EvidenceRules

_MAX_FALSE_ALARM = 0.05
_UNCALIBRATED = Platt(scale=1.0, offset=0.0)
_HASHED = ("label", "video", "split", "track", "time_s", "shard", "offset", "size")


def crops_sha256(store: CropStore) -> str:
    """Hash of which crops there are: of what and when, with which label, and where they lie."""
    digest = hashlib.sha256(json.dumps(store.names, sort_keys=True).encode())
    for name in _HASHED:
        digest.update(np.ascontiguousarray(getattr(store.rows, name)).data)
    return digest.hexdigest()


def card_of(
    config: TrainConfig,
    store: CropStore,
    scores: Scores,
    preprocessing: Preprocessing,
    *,
    name: str,
    step: int,
    seen_before: int,
    manifest: str,
    sha256: str,
) -> Card:
    """The card of the weights that scored `scores` after `step` steps; `manifest` beside them says
    what they learned from, `sha256` is its hash; `seen_before` images are those of `model.init`."""
    platt, thresholds = _calibrated(scores)
    images = seen_before + step * config.accumulate * config.data.batch
    if views := config.card.views:
        preprocessing = replace(preprocessing, margin=max(v.margin for v in views), views=views)
    measured: dict[str, float | tuple[float, ...] | str] = {
        "set": "crops of the validation split, also used for calibration and thresholds",
        "video_auc": round(scores.auc(), 4),
        "real_videos": float((scores.labels == 0).sum()),
        "fake_videos": float((scores.labels == 1).sum()),
        "frames_per_video": float(config.validation.frames),
        "ece": round(_ece(platt, scores), 4),
        "ece_uncalibrated": round(_ece(_UNCALIBRATED, scores), 4),
        "images_seen": float(images),
    }
    return Card(
        name=config.card.name or name,
        version=config.card.version,
        model=config.model.name,
        options=options_of(config.model, config.data),
        preprocessing=preprocessing,
        calibration=platt,
        thresholds=thresholds,
        evidence=EvidenceRules(min_frames=4, min_face_px=32),
        training_data=training_data(config, store, seen_before=seen_before),
        manifest_sha256=sha256,
        training_manifest=manifest,
        metrics=measured,
        licence=config.card.licence,
    )


def _calibrated(scores: Scores) -> tuple[Platt, Thresholds]:
    labels = scores.labels
    try:
        platt = fit_platt(scores.logits, labels, class_weights(labels))
        probabilities = apply(platt, scores.logits)
        return platt, choose_thresholds(probabilities, labels, max_false_alarm=_MAX_FALSE_ALARM)
    except ValueError:
        # A detector that does not tell fakes from reals yet: every verdict is `uncertain`.
        return _UNCALIBRATED, Thresholds(real=0.0, fake=1.0)


def _ece(platt: Platt, scores: Scores) -> float:
    labels = scores.labels
    probabilities = apply(platt, scores.logits)
    return expected_calibration_error(labels, probabilities, weights=class_weights(labels))


def training_data(config: TrainConfig, store: CropStore, *, seen_before: int) -> str:
    """Which videos of which data sets, in words, and what the run started from."""
    rows = rows_of(store, "train", config.data.leave_out)
    table = store.rows
    parts: list[str] = []
    for code in np.unique(table.dataset[rows]):
        within = rows[table.dataset[rows] == code]
        fake = table.label[within] == 1
        reals, fakes = (len(np.unique(table.video[within[part]])) for part in (~fake, fake))
        names = store.names["method"]
        methods = [names[int(m)] for m in np.unique(table.method[within[fake]])]
        made = f" ({', '.join(m for m in methods if m)})" if any(methods) else ""
        parts.append(f"{store.names['dataset'][int(code)]}: {reals} real, {fakes} fake{made}")
    text = f"{len(rows)} crops. {'; '.join(parts)}."
    if config.data.leave_out:
        text += f" Left out: {', '.join(config.data.leave_out)}."
    for share, what in (
        (config.data.self_blended, "self-blended pairs"),
        (
            config.data.self_blended * config.data.reconstructed,
            "pairs of a real and what an autoencoder made of it, which count among those",
        ),
        (config.data.matched, "pairs of a fake and its original"),
    ):
        if share:
            text += f" {share:.0%} of the images in {what}."
    if config.model.init:
        known = f", which had seen {seen_before:,} images" if seen_before else ""
        text += f" Started from {config.model.init.rpartition('/')[2]}{known}."
    return text
