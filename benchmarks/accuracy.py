"""How right the shipped path is: scan every labelled video of a manifest and compare.

    python benchmarks/accuracy.py MANIFEST.csv --split val [--detector NAME|PATH] [--out scores.csv]

Paths in the manifest are relative to its folder. AUC is at video level over the videos that got a
probability; the others are counted and listed. The interval is a 95% bootstrap over groups (videos
of one person or source are drawn together).
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections import Counter
from pathlib import Path

import numpy as np

import forensics
from forensics import metrics


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--split", default="val")
    parser.add_argument("--detector", default="default")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with args.manifest.open(newline="", encoding="utf-8") as file:
        rows = [
            r for r in csv.DictReader(file) if r["kind"] == "video" and r["split"] == args.split
        ]
    scored: list[dict[str, str]] = []
    with forensics.Scanner(args.detector) as scanner:
        for row in rows:
            report = scanner.scan(args.manifest.parent / row["path"])
            verdict = report.verdict
            scored.append(
                {key: row[key] for key in ("path", "label", "dataset", "method", "group")}
                | {
                    "verdict": verdict.label,
                    "probability": ""
                    if verdict.probability is None
                    else f"{verdict.probability:.6f}",
                }
            )
            print(
                f"{len(scored)}/{len(rows)} {row['label']} {scored[-1]['probability']}",
                file=sys.stderr,
            )
    if args.out:
        with args.out.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, scored[0].keys())
            writer.writeheader()
            writer.writerows(scored)
    print(f"{len(rows)} videos, verdicts: {dict(Counter(row['verdict'] for row in scored))}")
    judged = [row for row in scored if row["probability"]]
    summarise("all", judged, args.seed)
    for dataset in sorted({row["dataset"] for row in judged}):
        summarise(dataset, [row for row in judged if row["dataset"] == dataset], args.seed)


def summarise(name: str, rows: list[dict[str, str]], seed: int) -> None:
    labels = np.array([row["label"] == "fake" for row in rows], dtype=np.int64)
    scores = np.array([float(row["probability"]) for row in rows])
    text = f"{name}: {int((labels == 0).sum())} real, {int(labels.sum())} fake"
    flagged = np.array([row["verdict"] == "likely_fake" for row in rows])
    if (labels == 0).any():
        text += f", false alarms {flagged[labels == 0].mean():.3f}"
    if labels.any():
        text += f", fakes found {flagged[labels == 1].mean():.3f}"
    if 0 < labels.sum() < len(labels):
        groups = np.array([row["group"] for row in rows])
        low, high = metrics.bootstrap_interval(metrics.roc_auc, labels, scores, groups, seed=seed)
        text += f", AUC {metrics.roc_auc(labels, scores):.3f} [{low:.3f}, {high:.3f}]"
        text += f", ECE {metrics.expected_calibration_error(labels, scores):.3f}"
    print(text)


if __name__ == "__main__":
    main()
