"""What a detector is worth on data sets that it never saw: each part of the sources left out once.

    python benchmarks/left_out.py CROPS MANIFEST.csv --start b0.safetensors --out DIR [--steps 600]
        [--size 160] [--seed 1] [--at-once 4]

An Efficient ViT is trained as `benchmarks/families.py` does it, with everything and without each
part, and judged by `deepfake evaluate` on the whole validation split. A part's column in the row
that leaves it out is what happens elsewhere. What is done stays in DIR: the same command goes on.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import torch
from families import BATCH, SHOWN, aucs, evaluate, options, train

# Of the manifest it was made for; those that hold both classes.
PARTS: dict[str, tuple[str, ...]] = {
    "nothing": (),
    "FaceForensics++": ("FaceForensics++", "FaceForensics++ crops"),
    "generator demos": ("GeneratorDemos",),
}


def main() -> None:
    args = options(__doc__).parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    runs = {part: args.out / part.lower().replace(" ", "-") for part in PARTS}

    def learn(part: str) -> None:
        without = f"data.leave_out=[{', '.join(PARTS[part])}]"
        train(runs[part], [f"model.init={args.start}", without], args)

    with ThreadPoolExecutor(args.at_once) as pool:
        list(pool.map(learn, PARTS))
    for run in runs.values():
        evaluate(run, args)
    print(f"{os.cpu_count()} cores, torch {torch.__version__}, {args.steps * BATCH} images\n")
    print(f"| left out | {' | '.join(SHOWN)} |")
    print("|---|" + "---|" * len(SHOWN))
    for part, run in runs.items():
        print(f"| {part} | {' | '.join(aucs(run))} |", flush=True)


if __name__ == "__main__":
    main()
