"""Celeb-DF v1 and v2 (Li et al., CVPR 2020).

Celeb-real/id<a>_<n>.mp4    YouTube-real/NNNNN.mp4 (also Youtube-real)
Celeb-synthesis/id<target>_id<source>_<n>.mp4      List_of_testing_videos.txt

The list has no header, and in it **1 is real and 0 is fake**: the folders decide the label here,
the list is checked against them. What it does not name is training material, though it shows the
same people (`forensics.datasets.division` keeps them apart). `videos/` below each folder, which
benchmarks insert, is accepted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from forensics.datasets.adapters.tree import child, plain, read_lines, videos
from forensics.datasets.manifest import Label, Note, Problem, Sample

_LABELS: dict[str, Label] = {"1": "real", "0": "fake"}  # as the list has it
_FOLDERS: dict[str, tuple[Label, re.Pattern[str]]] = {
    "celeb_real": ("real", re.compile(r"id(?P<target>\d+)_(?P<take>\d+)")),
    "youtube_real": ("real", re.compile(r"(?P<take>\d{5})")),
    "celeb_synthesis": (
        "fake",
        re.compile(r"id(?P<target>\d+)_id(?P<source>\d+)_(?P<take>\d+)"),
    ),
}
_V1_LINES = 100  # of its test list; that of v2 has 518

Key = tuple[str, str]  # folder and stem, as compared


def fits(root: Path) -> bool:
    return child(root, "Celeb-real") is not None and child(root, "Celeb-synthesis") is not None


def read(root: Path) -> Iterator[Sample | Problem | Note]:
    listed: dict[Key, Label] = {}
    file = child(root, "List_of_testing_videos.txt")
    lines: list[str] = []
    if file is None:
        yield Note("Celeb-DF: no List_of_testing_videos.txt here, so no file has a split")
    else:
        lines = read_lines(file)
        for number, line in enumerate(lines, 1):
            label, _, path = line.partition(" ")
            parts = [plain(part) for part in PurePosixPath(path.strip()).parts]
            parts = [part for part in parts if part != "videos"]
            if label not in _LABELS or len(parts) != 2 or parts[0] not in _FOLDERS:
                where = f"{file}, line {number}"
                yield Problem(kind="unreadable list", where=where, detail=f"not understood: {line}")
                continue
            listed[parts[0], PurePosixPath(parts[1]).stem] = _LABELS[label]
    dataset = "Celeb-DF" if not lines else "Celeb-DF-v2"
    if lines and len(lines) <= _V1_LINES:
        dataset = "Celeb-DF-v1"
    present: set[Key] = set()
    for name, (label, pattern) in _FOLDERS.items():
        folder = child(root, name)
        for path in videos(folder) if folder is not None else []:
            key = name, plain(path.stem)
            present.add(key)
            if listed.get(key, label) != label:
                detail = f"its folder says {label}, the test list {listed[key]} (1 is real there)"
                yield Problem(kind="label conflict", where=str(path), detail=detail)
                continue
            match = pattern.fullmatch(path.stem)
            if match is None:
                detail = f"not the form of a name in {folder.name if folder else name}"
                yield Problem(kind="unexpected name", where=str(path), detail=detail)
                continue
            yield _sample(path, label, match, dataset, tested=key in listed, listed=bool(listed))
    for name, stem in sorted(listed.keys() - present):
        yield Problem(
            kind="missing file",
            where=str((child(root, name) or root / name) / stem),
            detail="the test list names it",
        )


def _sample(
    path: Path, label: Label, match: re.Match[str], dataset: str, *, tested: bool, listed: bool
) -> Sample:
    found = match.groupdict()
    people = [f"celebdf:id{found[key]}" for key in ("target", "source") if found.get(key)]
    # A fake shows the target's recording: id0_id16_0003 is made from id0_0003.
    recording = f"id{found['target']}_{found['take']}" if people else f"youtube-{found['take']}"
    return Sample(
        path=str(path),
        label=label,
        kind="video",
        dataset=dataset,
        method="Celeb-synthesis" if label == "fake" else "",
        identities=tuple(people),
        sources=(f"celebdf:{recording}",),
        split="" if not listed else "test" if tested else "train",
    )
