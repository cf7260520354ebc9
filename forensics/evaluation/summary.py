"""The summary of a run as plain values: schema "deepfake-evaluation/1" (`schema.json` here)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from forensics.datasets.manifest import Sample
from forensics.datasets.manifest_file import read_manifest
from forensics.evaluation.bootstrap import Estimate
from forensics.evaluation.leak import Finding
from forensics.evaluation.ledger import Results
from forensics.evaluation.measures import KAGGLE_CLIP, NUM_BINS
from forensics.evaluation.outcome import AS_IT_IS
from forensics.evaluation.run import MANIFEST
from forensics.evaluation.tables import (
    Items,
    Loss,
    Row,
    frame_rows,
    items_of,
    losses,
    video_rows,
)
from forensics.report.facts import software_versions
from forensics.structures import ABSTENTION_LABELS, Thresholds

SCHEMA = "deepfake-evaluation/1"
DRAWS = 1000  # of the bootstrap: the ends of a 95% interval are then known to about 0.3 of a point


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run as its folder tells it: facts, files with their probabilities under each condition."""

    facts: Mapping[str, Any]
    samples: tuple[Sample, ...]
    by_condition: Mapping[str, Items]
    labels: Mapping[str, str | None]  # of the unchanged files; place -> verdict
    states: Mapping[str, int]

    @property
    def clean(self) -> Items:
        return self.by_condition[AS_IT_IS]

    @property
    def thresholds(self) -> Thresholds | None:
        own: Mapping[str, float] | None = self.facts["detector"]["thresholds"]
        return Thresholds(**own) if own else None


def read_run(folder: Path) -> Run:
    """Raises ConfigError or ManifestError where `folder` holds no run."""
    with Results(folder) as results:
        facts = results.facts()
        outcomes = list(results.outcomes())
        states = dict(results.states())
    samples = tuple(read_manifest(folder / MANIFEST))
    clean = [outcome for outcome in outcomes if outcome.condition == AS_IT_IS]
    return Run(
        facts=facts,
        samples=samples,
        by_condition={
            condition: items_of(samples, outcomes, condition) for condition in facts["conditions"]
        },
        labels={outcome.place: outcome.label for outcome in clean},
        states=states,
    )


def summarise(
    folder: Path, finding: Finding | None, *, num_draws: int = DRAWS, seed: int = 0
) -> dict[str, Any]:
    """Every table of the run in `folder`, each number with what it rests on.

    `finding` is None where there is no detector whose training could be known.
    """
    run = read_run(folder)
    clean, thresholds = run.clean, run.thresholds
    rows = list(video_rows(clean, thresholds=thresholds, num=num_draws, seed=seed))
    with Results(folder) as results:
        frames = results.frame_maxima()
        rows += frame_rows(clean, frames, thresholds=thresholds, num=num_draws, seed=seed)
    changed = {name: items for name, items in run.by_condition.items() if name != AS_IT_IS}
    lost = losses(clean, changed, num=num_draws, seed=seed)
    facts = run.facts
    return {
        "schema": SCHEMA,
        "dataset": facts["dataset"],
        "split": facts["split"],
        "manifest_sha256": facts["manifest_sha256"],
        "detector": facts["detector"],
        "protocol": facts["protocol"],
        "statistics": {
            "bootstrap_draws": num_draws,
            "seed": seed,
            "interval": "95%, percentiles over clusters of files that share people, recordings or "
            "groups",
            "log_loss_clip": KAGGLE_CLIP,
            "ece_bins": NUM_BINS,
            "no_face": "excluded: files without a probability are left out; imputed 0.5: they "
            "count with 0.5, failed ones too",
            "tpr_at_fpr": "highest share of fakes found by a threshold with at most that share of "
            "false alarms, no interpolation",
        },
        "leak_guard": asdict(finding) if finding else None,
        "files": _files(run),
        "rows": [_row(row) for row in rows],
        "robustness": [_loss(loss) for loss in lost],
        "software": software_versions(),
    }


def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of `summarise`."""
    text = resources.files("forensics.evaluation").joinpath("schema.json").read_text("utf-8")
    return json.loads(text)


def _files(run: Run) -> dict[str, Any]:
    places = [sample.place for sample in run.samples]
    labels = Counter(run.labels[place] or "none" for place in places if place in run.labels)
    abstained = sum(labels[label] for label in ABSTENTION_LABELS)
    judged = run.clean.judged()
    return {
        "total": len(places),
        "judged": len(judged),
        "abstained": abstained,
        "abstention_rate": abstained / len(places),
        "failed": len(places) - len(judged) - abstained,
        "verdicts": dict(sorted(labels.items())),
        "without_probability": {
            "real": int((run.clean.labels == 0).sum() - (judged.labels == 0).sum()),
            "fake": int((run.clean.labels == 1).sum() - (judged.labels == 1).sum()),
        },
    }


def _row(row: Row) -> dict[str, Any]:
    return {
        "by": row.by,
        "name": row.name,
        "level": row.level,
        "no_face": row.no_face,
        "num_real": row.num_real,
        "num_fake": row.num_fake,
        "num_without_probability": row.num_without,
        "num_clusters": row.num_clusters,
        "measures": {name: _estimate(value) for name, value in row.measures.items()},
    }


def _loss(loss: Loss) -> dict[str, Any]:
    return {
        "condition": loss.condition,
        "num_files": loss.num_files,
        "auc": _estimate(loss.auc),
        "auc_change": _estimate(loss.change),
        "p_value": loss.p_value,
        "lost_probability": loss.lost,
    }


def _estimate(estimate: Estimate | None) -> dict[str, float | None] | None:
    return asdict(estimate) if estimate else None
