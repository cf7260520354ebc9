"""What each network costs on this machine, with its reference beside it, in one run.

    python benchmarks/models.py [NAME...] [--batch 16] [--repeat 5] [--threads N]

For each network: parameters (millions) and GMACs of one image (attention products included), then
milliseconds per image in float32 and bfloat16: as it is built, as a scan runs it (`for_inference`),
and those of the same network in timm, transformers or efficientnet-pytorch. All take turns, so that
a noisy neighbour disturbs all; the shortest time counts. With one thread it is the process's own
CPU time, which neighbours disturb least. Random weights, channels last, as in a scan.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import timm
import torch
from efficientnet_pytorch import EfficientNet
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import CvtConfig, CvtForImageClassification
from transformers.activations import QuickGELUActivation

from forensics.models import build
from forensics.models.inference import for_inference

# Shown when no name is given: one line per family and size that runs in seconds.
SHOWN = (
    "efficientnet-b0", "efficient-vit", "efficient-vit-published", "cross-efficient-vit",
    "cross-efficient-vit-published", "vit-tiny", "vit-small", "vit-base-p32", "vit-base",
    "convit-tiny", "convit-small", "cvt-13", "cvt-21", "cmt-ti", "cmt-xs", "cmt-s",
)  # fmt: skip
_SMALL: dict[str, Any] = {"width": 256, "depth": 4, "heads": 4}
# A transformer of four layers behind each place where an extractor may end.
HYBRIDS: dict[str, dict[str, Any]] = {
    f"{transformer} behind {extractor[-2:].upper()}{'' if cut is None else f' to block {cut}'}": {
        "extractor": extractor,
        "cut": cut,
        "transformer": transformer,
        "options": {**_SMALL, "local_depth": 3} if transformer == "convit" else _SMALL,
    }
    for extractor, cut in (
        ("efficientnet-b0", None),
        ("efficientnet-b0", 10),
        ("efficientnet-b0", 4),
        ("efficientnet-b4", None),
    )
    for transformer in ("vit", "convit", "cvt", "cmt")
}


def cvt_of_transformers(widths: list[int], depths: list[int], heads: list[int]) -> nn.Module:
    """With Microsoft's activation, so that both compute the same."""
    model = CvtForImageClassification(
        CvtConfig(embed_dim=widths, depth=depths, num_heads=heads, num_labels=1)
    )
    for module in model.modules():
        if isinstance(getattr(module, "activation", None), nn.GELU):
            module.activation = QuickGELUActivation()
    return model


def of_timm(name: str) -> Callable[[], nn.Module]:
    return lambda: timm.create_model(name, num_classes=1)


REFERENCES: dict[str, dict[str, Callable[[], nn.Module]]] = {
    **{
        f"efficientnet-b{i}": {
            "efficientnet-pytorch": partial(
                EfficientNet.from_name, f"efficientnet-b{i}", image_size=224, num_classes=1
            ),
            "timm": of_timm(f"tf_efficientnet_b{i}"),
        }
        for i in range(8)
    },
    **{
        f"vit-{ours}": {"timm": of_timm(f"vit_{theirs}_224")}
        for ours, theirs in (
            ("tiny", "tiny_patch16"), ("small", "small_patch16"), ("base", "base_patch16"),
            ("base-p32", "base_patch32"), ("large", "large_patch16"), ("huge", "huge_patch14"),
        )
    },
    **{f"convit-{size}": {"timm": of_timm(f"convit_{size}")} for size in ("tiny", "small", "base")},
    **{
        f"cvt-{name}": {"transformers": partial(cvt_of_transformers, *words)}
        for name, words in (
            ("13", ([64, 192, 384], [1, 2, 10], [1, 3, 6])),
            ("21", ([64, 192, 384], [1, 4, 16], [1, 3, 6])),
            ("w24", ([192, 768, 1024], [2, 2, 20], [3, 12, 16])),
        )
    },
}  # fmt: skip


def gmacs(model: nn.Module, size: int) -> float:
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model(torch.zeros(1, 3, size, size))
    return counter.get_total_flops() / 2e9


def shortest(
    models: list[nn.Module], images: torch.Tensor, dtype: torch.dtype, repeat: int
) -> list[float]:
    """Milliseconds per image of each, taking turns."""
    best = [float("inf")] * len(models)
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    with (
        torch.inference_mode(),
        torch.autocast("cpu", dtype, enabled=dtype != torch.float32),
    ):
        for turn in range(repeat + 1):  # the first turn warms up
            for i, model in enumerate(models):
                start = clock()
                model(images)
                taken = 1000 * (clock() - start) / len(images)
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
        f"Python {platform.python_version()}, torch {torch.__version__}, batch {options.batch}, "
        f"ms of {'CPU time' if options.threads == 1 else 'wall time'}: float32, bfloat16\n"
    )
    print("| network | parameters, M | GMACs | ms | in a scan | reference |")
    print("|---|---|---|---|---|---|")
    for name in options.names or [*SHOWN, *HYBRIDS]:
        print(row(name, options.batch, options.repeat), flush=True)


def row(name: str, batch: int, repeat: int) -> str:
    """One line of the table. Raises ConfigError for an unknown name."""
    words = HYBRIDS.get(name)
    model = build(name, {}) if words is None else build("hybrid", words)
    model = model.eval().requires_grad_(False)
    size = int(model.image_size)  # pyright: ignore
    count = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    cost = gmacs(model, size)
    models = {"": model}
    if any(isinstance(module, nn.BatchNorm2d) for module in model.modules()):
        models["scanning"] = for_inference(model)
    models |= {of: make().eval() for of, make in REFERENCES.get(name, {}).items()}
    for each in models.values():
        each.requires_grad_(False).to(memory_format=torch.channels_last)  # pyright: ignore
    images = torch.randn(batch, 3, size, size).to(memory_format=torch.channels_last)
    times = [
        shortest(list(models.values()), images, dtype, repeat)
        for dtype in (torch.float32, torch.bfloat16)
    ]
    taken = {
        of: f"{single:.1f}, {half:.1f}" for of, single, half in zip(models, *times, strict=True)
    }
    own, scanning = taken.pop(""), taken.pop("scanning", "-")
    references = "; ".join(f"{of} {ms}" for of, ms in taken.items()) or "-"
    return f"| {name} | {count:.1f} | {cost:.2f} | {own} | {scanning} | {references} |"


if __name__ == "__main__":
    main()
