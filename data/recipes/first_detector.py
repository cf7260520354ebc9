"""Make the first shipped detector: crops, training, then calibration from scanned videos.

    R="python data/recipes/first_detector.py"
    $R crops --manifest M.csv --work DIR
    $R train --work DIR --init B0.safetensors --size 160 --seconds 4360 --threads 3 --seed 1
    $R train --work DIR --resume --lr 0.5 --size 224 --seconds 1560 --threads 3 --seed 42
    $R provisional --work DIR --manifest M.csv --out raw.safetensors
    python benchmarks/accuracy.py M.csv --split val --detector ./raw.safetensors --out scores.csv
    $R calibrate --work DIR --scores scores.csv --manifest M.csv --out default.safetensors

`--init` holds efficientnet-pytorch's B0 state dict (fp16 or fp32, without pickles). Training starts
at 160 px, where an image costs half, and ends at the size that scanning uses; `--resume` takes the
averaged weights of the stage before and stretches their position table.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import hashlib
import json
import sys
import time
from pathlib import Path
from typing import cast

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

from forensics import calibration, metrics
from forensics.checkpoint import Card, save_checkpoint
from forensics.config import FacesConfig
from forensics.datasets.crop_set import extract, read_manifest
from forensics.datasets.pairs import Pairs
from forensics.faces import MtcnnDetector
from forensics.models import build
from forensics.preprocess import Preprocessing, View
from forensics.structures import Thresholds
from forensics.training.loop import TrainConfig, train
from forensics.verdict import EvidenceRules

SIZE = 224
OPTIONS: dict[str, str | int | float] = {
    "extractor": "efficientnet-b0",
    "image_size": SIZE,
    "width": 256,
    "depth": 4,
    "heads": 4,
    "mlp_ratio": 4.0,
    "dropout": 0.1,
}
PREPROCESSING = Preprocessing(size=SIZE, margin=1.3, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
# How faces are looked at in the end: closely, where no hair or background tells the source, and
# upside down, where the network recognises nobody. Chosen on the validation videos (docs/log.md).
SCANNING = dataclasses.replace(
    PREPROCESSING,
    margin=1.2,
    views=(View(margin=0.7, weight=0.45), View(margin=1.2, weight=0.55, upside_down=True)),
)
FROZEN_BLOCKS = 2  # their maps are the largest: half of the backward pass for generic edges
TRAINING_DATA = (
    "Excerpts of FaceForensics++ (clips c23 and c40, crops), DFDC, generator demos with the "
    "recordings beside them, real-world camera clips, All-Age-Faces and SCUT-FBP5500 photographs; "
    "40% of the pairs are self-blended from the reals."
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("step", choices=("crops", "train", "provisional", "calibrate"))
    parser.add_argument("--manifest", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--init", type=Path)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--lr", type=float, default=1.0, help="factor on the learning rates")
    parser.add_argument("--size", type=int, default=SIZE)
    parser.add_argument("--scores", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--seconds", type=float, default=900)
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    {"crops": crops, "train": run, "provisional": provisional, "calibrate": calibrate}[args.step](
        args
    )


def crops(args: argparse.Namespace) -> None:
    rows = read_manifest(args.manifest)
    detector = MtcnnDetector(FacesConfig(), max_faces=8)

    def on_file(path: str, found: int) -> None:
        print(f"{found:3d} {path}", file=sys.stderr)

    extract(rows, args.manifest.parent, args.work / "crops", detector, frames=20, on_file=on_file)


def run(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    with (args.work / "crops" / "crops.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "train"]
    model = build("efficient-vit", OPTIONS | {"image_size": args.size})
    extractor = cast(nn.Module, model.extractor)
    if args.resume:
        model.load_state_dict(stretched(load_file(args.work / "ema.safetensors"), args.size))
    else:
        state = {k: v for k, v in load_file(args.init).items() if not k.startswith("_fc")}
        extractor.load_state_dict(state)
    frozen = [extractor._conv_stem, extractor._bn0, *list(extractor._blocks)[:FROZEN_BLOCKS]]
    for part in cast(list[nn.Module], frozen):
        part.requires_grad_(False)
    model = model.to(memory_format=torch.channels_last)
    pairs = Pairs(args.work / "crops", rows, size=args.size, length=10**7, seed=args.seed)
    config = TrainConfig(
        steps=10**6,
        seconds=args.seconds,
        lr_extractor=1.5e-4 * args.lr,
        lr_transformer=1e-4 * args.lr,
    )
    started = time.monotonic()
    losses: list[float] = []

    def on_step(step: int, loss: float, progress: float) -> None:
        losses.append(loss)
        if step % 25 == 24:
            rate = (step + 1) * 2 * config.pairs_per_batch / (time.monotonic() - started)
            recent = np.mean(losses[-100:])
            print(
                f"step {step + 1} loss {recent:.4f} {progress:.1%} {rate:.1f} images/s", flush=True
            )

    preprocessing = dataclasses.replace(PREPROCESSING, size=args.size)
    train(model, extractor, pairs, preprocessing, config, out=args.work, on_step=on_step)
    facts = args.work / "run.json"
    stages = json.loads(facts.read_text()) if args.resume else []
    images = len(losses) * 2 * config.pairs_per_batch
    stages.append(
        {"size": args.size, "images_seen": images, "seconds": args.seconds, "seed": args.seed}
    )
    facts.write_text(json.dumps(stages))


def stretched(state: dict[str, torch.Tensor], size: int) -> dict[str, torch.Tensor]:
    """The state dict with its table of patch positions interpolated to `size` // 32 squared."""
    table = state["position"]  # (1, 1 + G * G, D): class token, then row by row
    grid, width = round((table.shape[1] - 1) ** 0.5), table.shape[2]
    places = table[:, 1:].reshape(1, grid, grid, width).permute(0, 3, 1, 2)
    places = nn.functional.interpolate(places, (size // 32,) * 2, mode="bicubic")
    places = places.permute(0, 2, 3, 1).reshape(1, -1, width)
    return state | {"position": torch.cat([table[:, :1], places], dim=1)}


def card(args: argparse.Namespace, **changes: object) -> Card:
    fields: dict[str, object] = {
        "name": "default",
        "version": "0.3",
        "model": "efficient-vit",
        "options": OPTIONS,
        "preprocessing": SCANNING,
        "calibration": calibration.Platt(scale=1.0, offset=0.0),
        "thresholds": Thresholds(real=0.5, fake=0.5),
        "evidence": EvidenceRules(min_frames=4, min_face_px=32),
        "training_data": TRAINING_DATA,
        "manifest_sha256": hashlib.sha256(args.manifest.read_bytes()).hexdigest(),
        "metrics": {},
        "licence": "Apache-2.0 for the weights; the training media are third-party research data",
    }
    return Card(**(fields | changes))  # pyright: ignore


def trained(args: argparse.Namespace) -> nn.Module:
    model = build("efficient-vit", OPTIONS)
    model.load_state_dict(load_file(args.work / "ema.safetensors"))
    return model


def provisional(args: argparse.Namespace) -> None:
    save_checkpoint(args.out, trained(args), card(args))


def calibrate(args: argparse.Namespace) -> None:
    """Platt scaling and thresholds from the scores of the provisional checkpoint (identity map)."""
    with args.scores.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["probability"]]
    labels = np.array([row["label"] == "fake" for row in rows], dtype=np.int64)
    raw = np.clip([float(row["probability"]) for row in rows], 1e-6, 1 - 1e-6)
    logits = np.log(raw / (1 - raw))
    # Each class counts the same: the share of fakes in this collection is nobody's base rate.
    weights = np.where(labels == 1, 0.5 / labels.sum(), 0.5 / (labels == 0).sum()) * len(labels)
    platt = calibration.fit_platt(logits, labels, weights)
    probabilities = calibration.apply(platt, logits)
    thresholds = calibration.choose_thresholds(probabilities, labels, max_false_alarm=0.05)
    groups = np.array([row["group"] for row in rows])
    low, high = metrics.bootstrap_interval(metrics.roc_auc, labels, logits, groups, seed=0)
    facts = json.loads((args.work / "run.json").read_text())
    measured: dict[str, float | tuple[float, ...] | str] = {
        "set": "held-out validation videos, also used for calibration and thresholds",
        "real_videos": float((labels == 0).sum()),
        "fake_videos": float(labels.sum()),
        "video_auc": round(metrics.roc_auc(labels, logits), 4),
        "video_auc_95": (round(low, 4), round(high, 4)),
        "false_alarm_rate": round(float((probabilities[labels == 0] >= thresholds.fake).mean()), 4),
        "fakes_found": round(float((probabilities[labels == 1] >= thresholds.fake).mean()), 4),
        "images_seen": float(sum(stage["images_seen"] for stage in facts)),
    }
    final = card(args, calibration=platt, thresholds=thresholds, metrics=measured)
    save_checkpoint(args.out, trained(args), final)
    print(json.dumps(measured, indent=1), platt, thresholds)


if __name__ == "__main__":
    main()
