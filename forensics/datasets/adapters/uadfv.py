"""UADFV (Yang et al., ICASSP 2019): real/NNNN.mp4 and fake/NNNN_fake.mp4, 49 of each.

A fake's number is that of its original. People are not named: each recording counts as one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from forensics.datasets.adapters.tree import child, videos
from forensics.datasets.manifest import Label, Note, Problem, Sample

_FOLDERS: dict[Label, re.Pattern[str]] = {
    "real": re.compile(r"(\d{4})"),
    "fake": re.compile(r"(\d{4})_fake", re.IGNORECASE),
}


def fits(root: Path) -> bool:
    """Told from any other real/ and fake/ by the names of its fakes."""
    real, fake = child(root, "real"), child(root, "fake")
    if real is None or fake is None:
        return False
    return any(_FOLDERS["fake"].fullmatch(path.stem) for path in videos(fake))


def read(root: Path) -> Iterator[Sample | Problem | Note]:
    for label, pattern in _FOLDERS.items():
        folder = child(root, label)
        for path in videos(folder) if folder is not None else []:
            match = pattern.fullmatch(path.stem)
            if match is None:
                example = "0000" if label == "real" else "0000_fake"
                detail = f"expected a name like {example}"
                yield Problem(kind="unexpected name", where=str(path), detail=detail)
                continue
            yield Sample(
                path=str(path),
                label=label,
                kind="video",
                dataset="UADFV",
                method="FakeApp" if label == "fake" else "",
                identities=(f"uadfv:{match[1]}",),
                sources=(f"uadfv:{match[1]}",),
            )
    yield Note("UADFV has no official split")
