"""What each network costs on this machine, with its reference beside it, in one run.

    python benchmarks/models.py [NAME...] [--batch 16] [--repeat 5] [--threads N]

For each network: parameters (millions) and GMACs of one image (attention products included), then
milliseconds per image in float32 and bfloat16, and those of the same network in timm or
transformers. Both take turns, so that a noisy neighbour disturbs both; the shortest time counts.
Random weights. The extractor's part of a hybrid runs with channels last, as in a scan.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable
from typing import Any

import timm
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import CvtConfig, CvtForImageClassification

from forensics.models import MODELS, build

# Shown when no name is given: one line per family and size that runs in seconds.
SHOWN = (
    "efficientnet-b0", "efficient-vit", "efficient-vit-published", "cross-efficient-vit",
    "cross-efficient-vit-published", "vit-tiny", "vit-small", "vit-base-p32", "vit-base",
    "convit-tiny", "convit-small", "cvt-13", "cvt-21", "cmt-ti", "cmt-xs", "cmt-s",
)  # fmt: skip
HYBRIDS: dict[str, dict[str, Any]] = {
    f"hybrid {transformer}, B0 {'whole' if cut is None else f'to block {cut}'}": {
        "cut": cut,
        "transformer": transformer,
        "options": {"width": 256, "depth": 4, "heads": 4, **more},
    }
    for cut in (None, 10)
    for transformer, more in (
        ("vit", {}),
        ("convit", {"local_depth": 3}),
        ("cvt", {}),
        ("cmt", {}),
    )
}


def cvt_of_transformers(depths: list[int]) -> nn.Module:
    return CvtForImageClassification(
        CvtConfig(embed_dim=[64, 192, 384], depth=depths, num_heads=[1, 3, 6], num_labels=1)
    )


REFERENCES: dict[str, Callable[[], nn.Module]] = {
    "efficientnet-b0": lambda: timm.create_model("tf_efficientnet_b0", num_classes=1),
    "vit-tiny": lambda: timm.create_model("vit_tiny_patch16_224", num_classes=1),
    "vit-small": lambda: timm.create_model("vit_small_patch16_224", num_classes=1),
    "vit-base": lambda: timm.create_model("vit_base_patch16_224", num_classes=1),
    "vit-base-p32": lambda: timm.create_model("vit_base_patch32_224", num_classes=1),
    "convit-tiny": lambda: timm.create_model("convit_tiny", num_classes=1),
    "convit-small": lambda: timm.create_model("convit_small", num_classes=1),
    "cvt-13": lambda: cvt_of_transformers([1, 2, 10]),
    "cvt-21": lambda: cvt_of_transformers([1, 4, 16]),
}


def gmacs(model: nn.Module, size: int) -> float:
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model(torch.zeros(1, 3, size, size))
    return counter.get_total_flops() / 2e9


def shortest(
    models: list[nn.Module], images: torch.Tensor, dtype: torch.dtype, repeat: int
) -> list[float]:
    """Milliseconds per image of each, taking turns."""
    best = [float("inf")] * len(models)
    with (
        torch.inference_mode(),
        torch.autocast("cpu", dtype, enabled=dtype != torch.float32),
    ):
        for turn in range(repeat + 1):  # the first turn warms up
            for i, model in enumerate(models):
                start = time.perf_counter()
                model(images)
                taken = 1000 * (time.perf_counter() - start) / len(images)
                if turn:
                    best[i] = min(best[i], taken)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    print(
        f"{os.cpu_count()} cores, {options.threads} threads, load {os.getloadavg()[0]:.1f}, "
        f"Python {platform.python_version()}, torch {torch.__version__}, batch {options.batch}\n"
    )
    print(
        "| network | parameters, M | GMACs | float32, ms | bfloat16, ms "
        "| reference float32, bfloat16, ms |"
    )
    print("|---|---|---|---|---|---|")
    names = options.names or [*SHOWN, *HYBRIDS]
    for name in names:
        words: dict[str, Any] = HYBRIDS.get(name, {})
        model = build("hybrid" if name in HYBRIDS else name, words).eval().requires_grad_(False)
        assert name in MODELS or name in HYBRIDS
        size = int(model.image_size)  # pyright: ignore
        count = sum(p.numel() for p in model.parameters()) / 1e6
        cost = gmacs(model, size)
        models = [model.to(memory_format=torch.channels_last)]
        if name in REFERENCES:
            models.append(REFERENCES[name]().eval())
        images = torch.randn(options.batch, 3, size, size)
        images = images.to(memory_format=torch.channels_last)
        single = shortest(models, images, torch.float32, options.repeat)
        half = shortest(models, images, torch.bfloat16, options.repeat)
        reference = f"{single[1]:.1f}, {half[1]:.1f}" if len(models) > 1 else "-"
        print(
            f"| {name} | {count:.1f} | {cost:.2f} | {single[0]:.1f} | {half[0]:.1f} "
            f"| {reference} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
