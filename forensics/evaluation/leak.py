"""Whether a test set shares people or recordings with what its detector was trained on.

A detector that has met a person before knows half the answer: such numbers are not comparable.
The training manifest lies beside the checkpoint under the name that its card gives.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from forensics.datasets.manifest import ASIDE, Sample
from forensics.datasets.manifest_file import read_manifest
from forensics.datasets.splits import links
from forensics.errors import ManifestError

_SHOWN = 3

State = Literal["clear", "leak", "unchecked"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """`sentence` stands on every table unless the state is `clear`."""

    state: State
    sentence: str


def find(
    samples: Sequence[Sample], checkpoint: Path, *, manifest: str, manifest_sha256: str
) -> Finding:
    """Compare with the manifest that a checkpoint's card names (`training_manifest`).

    Its rows for training and validation count, and those without a split: thresholds were set on
    validation. Raises ManifestError where that manifest is no manifest.
    """
    if not manifest:
        return _unchecked("the detector's card names no training manifest")
    path = checkpoint.parent / manifest
    if not path.is_file():
        return _unchecked(f"{manifest} is not beside the checkpoint")
    if hashlib.sha256(path.read_bytes()).hexdigest() != manifest_sha256:
        return _unchecked(f"{manifest} is not the manifest whose hash the card gives")
    seen = {
        link: sample.place
        for sample in read_manifest(path)
        if sample.split not in ("test", ASIDE)
        for link in links(sample)
    }
    shared = [(sample.place, *link) for sample in samples for link in links(sample) if link in seen]
    if not shared:
        return Finding(
            state="clear", sentence=f"Nobody and no recording of {manifest} is in this test set."
        )
    files = len({place for place, _, _ in shared})
    shown = "; ".join(f"{place} ({kind} {name})" for place, kind, name in shared[:_SHOWN])
    return Finding(
        state="leak",
        sentence=f"LEAK: {files} of {len(samples)} files share people or recordings with the "
        f"training set {manifest}: {shown}{'; ...' if len(shared) > _SHOWN else ''}.",
    )


def require_clear(finding: Finding, *, allowed: bool) -> None:
    """Raises ManifestError for a leak that was not allowed."""
    if finding.state == "leak" and not allowed:
        raise ManifestError(
            f"{finding.sentence} Choose another --split, or say --allow-leak: every table will "
            "then bear this sentence"
        )


def _unchecked(reason: str) -> Finding:
    return Finding(
        state="unchecked", sentence=f"Leaks from the training set were not checked: {reason}."
    )
