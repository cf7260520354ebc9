"""Lay a trained and calibrated detector, and what it learned from, where the package ships them.

    python data/recipes/ship.py run/best.safetensors --data DIR

The table beside the checkpoint (`trained_on.csv`) gets the names of people and recordings that
`deepfake evaluate` knows FaceForensics++ and DFDC by: else it would find no leak in them. DIR is
the folder that the table's paths are relative to. Crops of FaceForensics++ are known by an estimate
of their video's number; whoever is up to four numbers away counts as seen.
"""

from __future__ import annotations

import argparse
import hashlib
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from forensics.checkpoint import load_checkpoint, replace_card
from forensics.datasets.adapters import read
from forensics.datasets.manifest import Sample
from forensics.datasets.manifest_file import read_manifest, write_manifest

WEIGHTS = Path(__file__).parents[2] / "forensics" / "weights"
TREES = ("clips/ffpp", "clips/dfdc")
ESTIMATED, ABOUT = re.compile(r"ffpp~(\d+)"), 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    args = parser.parse_args()
    card = load_checkpoint(args.checkpoint).card
    samples = read_manifest(args.checkpoint.parent / card.training_manifest)
    table = WEIGHTS / card.training_manifest
    write_manifest(named(samples, args.data), table)
    sha256 = hashlib.sha256(table.read_bytes()).hexdigest()
    target = WEIGHTS / f"{card.name}.safetensors"
    replace_card(args.checkpoint, target, replace(card, manifest_sha256=sha256))
    print(f"{target}: {target.stat().st_size / 1e6:.1f} MB, learned from {len(samples)} files")


def named(samples: Sequence[Sample], data: Path) -> list[Sample]:
    """The samples, with identities, sources and groups as the adapters of their trees tell."""
    told = {
        f"{tree}/{sample.path}": sample for tree in TREES for sample in read(data / tree).samples
    }
    result: list[Sample] = []
    for sample in samples:
        names = {"identities": sample.identities, "sources": sample.sources, "group": sample.group}
        if known := told.get(sample.path):
            names = {"identities": known.identities, "sources": known.sources}
            names["group"] = known.group or sample.group
        elif match := ESTIMATED.search(sample.group):
            near = range(max(0, int(match[1]) - ABOUT), min(999, int(match[1]) + ABOUT) + 1)
            names["sources"] = tuple(f"ffpp:{number:03d}" for number in near)
        result.append(replace(sample, **names))
    return result


if __name__ == "__main__":
    main()
