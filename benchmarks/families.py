"""The families of networks under one budget and one recipe, beside each other.

    python benchmarks/families.py CROPS MANIFEST.csv --start b0.safetensors --out DIR [--steps 600]
        [--size 160] [--seed 1] [--at-once 4] [NAME...]

Each is trained as the earliest run of `configs/default.yaml` is, with the same draws, one core
each, `--at-once` side by side; EfficientNet and what stands behind it start from `--start`, the
others from random weights. Then each is judged by `deepfake evaluate` on the manifest's validation
split, through the scan. What is done stays in DIR: the same command goes on, and prints the table.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from models import shortest

from forensics.checkpoint import load_checkpoint
from forensics.models.inference import for_inference

_SMALL = "{width: 256, depth: 4, heads: 4}"


def _behind_b0(transformer: str, options: str = _SMALL) -> list[str]:
    words = f"{{extractor: efficientnet-b0, transformer: {transformer}, options: {options}}}"
    return ["model.name=hybrid", f"model.options={words}", _frozen("extractor.net")]


def _frozen(net: str) -> str:
    """Stem and two blocks of the EfficientNet at that place of a network, as in the recipe."""
    parts = (f"{net}.{part}" for part in ("_conv_stem", "_bn0", "_blocks.0", "_blocks.1"))
    return f"model.freeze=[{', '.join(parts)}]"


# What the earliest run of configs/default.yaml changes in it, in batches for one process.
BATCH = 36
RECIPE = [
    "first={}",
    "optimizer.lr=3.5e-4",
    "data.self_blended=0.5",
    "data.matched=0.28",
    "data.balance=[class, dataset, method, source]",
    "data.shuffled=0.6",
    "data.degraded=0.4",
    f"data.batch={BATCH}",
    "data.workers=1",
    "device=cpu",
    "card.views=[]",
]
# What each changes in configs/default.yaml, which is an Efficient ViT.
FAMILIES: dict[str, list[str]] = {
    "Efficient ViT": [],
    "Convolutional Cross ViT": [
        "model.name=cross-efficient-vit",
        "model.options={extractor: efficientnet-b0}",
        _frozen("extractor.net"),
    ],
    "EfficientNet-B0 + CvT": _behind_b0("cvt"),
    "EfficientNet-B0 + CMT": _behind_b0("cmt"),
    "EfficientNet-B0 + ConViT": _behind_b0(
        "convit", "{width: 256, depth: 4, heads: 4, local_depth: 3}"
    ),
    "EfficientNet-B0": [
        "model.name=efficientnet-b0",
        "model.options={}",
        _frozen("net"),
    ],
    "CvT-13": ["model.name=cvt-13", "model.options={}"],
    "CMT-Ti": ["model.name=cmt-ti", "model.options={}"],
}
_ALONE = ("CvT-13", "CMT-Ti")
# Columns: the tables of `deepfake evaluate` they come from.
SHOWN = {
    "all": ("all", "all"),
    "FF++ clips": ("dataset", "FaceForensics++"),
    "FF++ crops": ("dataset", "FaceForensics++ crops"),
    "demos": ("dataset", "GeneratorDemos"),
}


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME")
    args = parser.parse_intermixed_args()
    names: list[str] = args.names or list(FAMILIES)
    if unknown := [name for name in names if name not in FAMILIES]:
        parser.error(f"unknown: {', '.join(unknown)}; known: {', '.join(FAMILIES)}")
    args.out.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(args.at_once) as pool:
        list(pool.map(lambda name: train(folder(name, args), settings(name, args), args), names))
    for name in names:
        evaluate(folder(name, args), args)
    print(f"{os.cpu_count()} cores, torch {torch.__version__}, seed {args.seed}, {args.size} px\n")
    print(f"| network | parameters, M | ms a face | images | {' | '.join(SHOWN)} |")
    print("|---|---|---|---|" + "---|" * len(SHOWN))
    for name in names:
        print(row(name, args), flush=True)


def options(doc: str) -> argparse.ArgumentParser:
    """What every comparison of short runs is asked for."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("crops", type=Path)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--start", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--at-once", type=int, default=os.cpu_count() or 1)
    return parser


def folder(name: str, args: argparse.Namespace) -> Path:
    return args.out / name.lower().replace(" + ", "-").replace(" ", "-")


def deepfake(*words: str, **environment: str) -> None:
    """Run the command; its output goes to stderr. Raises CalledProcessError."""
    command = [str(Path(sys.executable).with_name("deepfake")), *words]
    subprocess.run(command, check=True, env=os.environ | environment, stdout=sys.stderr)


def settings(name: str, args: argparse.Namespace) -> list[str]:
    start = "model.freeze=[]" if name in _ALONE else f"model.init={args.start}"
    return [*FAMILIES[name], start]


def train(run: Path, changes: list[str], args: argparse.Namespace) -> None:
    """One run of the recipe with these settings, or what is left of it, on one core."""
    if (run / "last.safetensors").exists():
        deepfake("train", "--out", str(run), "--resume", OMP_NUM_THREADS="1")
        return
    sets = [
        *RECIPE,
        *changes,
        f"data.size={args.size}",
        f"steps={args.steps}",
        f"seed={args.seed}",
        f"validation.every={args.steps}",
    ]
    words = [word for one in sets for word in ("--set", one)]
    words = ["--config", "default", "--data", str(args.crops), "--out", str(run), *words]
    deepfake("train", *words, OMP_NUM_THREADS="1")  # beside the others


def evaluate(run: Path, args: argparse.Namespace) -> None:
    deepfake(
        *("evaluate", str(args.manifest), "--root", str(args.manifest.parent), "--split", "val"),
        *("--detector", str(run / "best.safetensors"), "--out", str(run / "val"), "--allow-leak"),
        *("--workers", str(os.cpu_count() or 1)),
    )


def row(name: str, args: argparse.Namespace) -> str:
    run = folder(name, args)
    checkpoint = load_checkpoint(run / "best.safetensors")
    count = sum(parameter.numel() for parameter in checkpoint.model.parameters()) / 1e6
    torch.set_num_threads(1)
    model = for_inference(checkpoint.model.eval()).requires_grad_(False)
    images = torch.randn(4, 3, args.size, args.size).to(memory_format=torch.channels_last)
    (ms,) = shortest([model], images, torch.float32, 20)
    seen = args.steps * BATCH
    return f"| {name} | {count:.1f} | {ms:.1f} | {seen} | {' | '.join(aucs(run))} |"


def aucs(run: Path) -> list[str]:
    """AUC of videos with its 95% interval, in each of the columns shown."""
    rows: list[dict[str, Any]] = json.loads((run / "val" / "summary.json").read_text())["rows"]
    cells: list[str] = []
    for by, of in SHOWN.values():
        found = [one for one in rows if (one["by"], one["name"], one["level"]) == (by, of, "video")]
        auc = found[0]["measures"].get("auc") if found else None
        cells.append(f"{auc['value']:.3f} [{auc['low']:.3f}, {auc['high']:.3f}]" if auc else "-")
    return cells


if __name__ == "__main__":
    main()
