"""DeepFakeDetection (Google and Jigsaw, 2019), which is delivered inside FaceForensics++'s tree.

original_sequences/actors/<compression>/videos/<actor>__<scene>.mp4
manipulated_sequences/DeepFakeDetection/<compression>/videos/<target>_<source>__<scene>__<8>.mp4
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from forensics.datasets.adapters.tree import child, folders, plain, videos
from forensics.datasets.manifest import Note, Problem, Sample

REAL = re.compile(r"(?P<actor>\d{2})__(?P<scene>.+)")
FAKE = re.compile(r"(?P<actor>\d{2})_(?P<other>\d{2})__(?P<scene>.+)__\w{8}")
_COMPRESSIONS = {"raw": "raw", "c0": "raw", "c23": "c23", "c40": "c40"}


def fits(root: Path) -> bool:
    return any(folder is not None for folder, _ in _homes(root))


def read(root: Path) -> Iterator[Sample | Problem | Note]:
    for home, pattern in _homes(root):
        for folder in folders(home) if home is not None else []:
            for path in videos(folder) if plain(folder.name) in _COMPRESSIONS else []:
                yield _sample(path, pattern, _COMPRESSIONS[plain(folder.name)])
    yield Note(
        "DeepFakeDetection has no official split; several people are in some pictures, and only the"
        " masks say which face was changed"
    )


def _homes(root: Path) -> list[tuple[Path | None, re.Pattern[str]]]:
    return [
        (child(root, "original_sequences", "actors"), REAL),
        (child(root, "manipulated_sequences", "DeepFakeDetection"), FAKE),
    ]


def _sample(path: Path, pattern: re.Pattern[str], compression: str) -> Sample | Problem:
    match = pattern.fullmatch(path.stem)
    if match is None:
        example = "01__walking" if pattern is REAL else "01_02__walking__ABCD1234"
        detail = f"expected a name like {example}"
        return Problem(kind="unexpected name", where=str(path), detail=detail)
    actors = [match["actor"], *([match["other"]] if pattern is FAKE else [])]
    return Sample(
        path=str(path),
        label="fake" if pattern is FAKE else "real",
        kind="video",
        dataset="DeepFakeDetection",
        method="DeepFakeDetection" if pattern is FAKE else "",
        identities=tuple(f"dfd:{actor}" for actor in actors),
        sources=(f"dfd:{match['actor']}__{match['scene'].casefold()}",),
        compression=compression,
    )
