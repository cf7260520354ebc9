"""`deepfake calibrate`: a manifest's videos scanned, and the card they lead to."""

from __future__ import annotations

from pathlib import Path

from forensics.calibration import Isotonic
from forensics.card import Card
from forensics.checkpoint import load_checkpoint, replace_card, shipped
from forensics.datasets.manifest import Sample
from forensics.datasets.manifest_file import read_manifest
from forensics.errors import CheckpointError, ConfigError, ManifestError
from forensics.recalibration import Scored, recalibrated, score_videos

from .show import Screen
from .terminal import emit, error_line

WRITTEN, SOME_NOT_JUDGED = 0, 1
_SHOWN = 10


def run(
    checkpoint: str,
    manifest: Path,
    *,
    max_fpr: float,
    method: str,
    split: str,
    out: Path | None,
    quiet: bool,
) -> int:
    """Calibrate and write; the result is the exit status."""
    if not 0.0 <= max_fpr < 1.0:
        raise ConfigError(f"--max-fpr {max_fpr}: a share from 0 to below 1, such as 0.05")
    if out is None and checkpoint in shipped():
        raise ConfigError(f"{checkpoint} is part of this package; name the new file with --out")
    loaded = load_checkpoint(checkpoint)
    target = out or loaded.path
    if out is not None and out.exists():
        raise CheckpointError(f"{out}: exists already; choose another --out")
    samples = _chosen(manifest, split)
    with Screen(len(samples), quiet=quiet) as screen:
        screen.file_started(manifest)

        def on_file(done: int, total: int, path: str, outcome: str) -> None:
            screen.file_finished(Path(path), outcome)
            if done < total:
                screen.file_started(Path(samples[done].path))

        scored = score_videos(loaded.path, samples, manifest.parent, on_file=on_file)
    material = f"{manifest.name}, split {split}" if samples[0].split else manifest.name
    card = recalibrated(loaded.card, scored, method=method, max_fpr=max_fpr, material=material)
    replace_card(loaded.path, target, card)
    emit(_summary(target, card))
    return _not_judged(scored)


def _chosen(manifest: Path, split: str) -> list[Sample]:
    samples = read_manifest(manifest)
    videos = [sample for sample in samples if sample.kind == "video"]
    if any(sample.split for sample in videos):
        videos = [sample for sample in videos if sample.split == split]
    if not videos:
        raise ManifestError(f"{manifest}: no videos in the split {split!r}; see --split")
    return videos


def _summary(target: Path, card: Card) -> str:
    found, calibration = card.metrics, card.calibration
    if isinstance(calibration, Isotonic):
        shape = f"{len(calibration.logits)} knots"
    else:
        shape = f"scale {calibration.scale:.3f}, offset {calibration.offset:.3f}"
    crossed = found.get("ece_after_cross_validated")
    held_out = "" if crossed is None else f" ({crossed} on videos left out)"
    reals, fakes = found["calibration_real_videos"], found["calibration_fake_videos"]
    return (
        f"{target}: {found['calibration']}: {shape}; {reals:.0f} real, {fakes:.0f} fake, "
        f"AUC {found['calibration_auc']}\n"
        f"expected calibration error {found['ece_before']} -> {found['ece_after']}{held_out}\n"
        f"likely_real up to {card.thresholds.real:.3f}, likely_fake from "
        f"{card.thresholds.fake:.3f}: false positives {found['false_positive_rate']}, fakes found "
        f"{found['fakes_found']}\n"
    )


def _not_judged(scored: list[Scored]) -> int:
    missing = [one for one in scored if one.logit is None]
    for one in missing[:_SHOWN]:
        error_line(f"not judged: {one.sample.path}: {one.reason}")
    if len(missing) > _SHOWN:
        error_line(f"not judged: {len(missing) - _SHOWN} more")
    return SOME_NOT_JUDGED if missing else WRITTEN
