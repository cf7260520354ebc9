"""DeeperForensics-1.0 (Jiang et al., CVPR 2020): fakes of FaceForensics++'s recordings.

manipulated_videos/<variant>/<target>_<actor>.mp4    target: a FaceForensics++ recording
source_videos/<actor>/...                            lists/splits/{train,val,test}.txt
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from forensics.datasets.adapters.tree import (
    child,
    folders,
    is_video,
    media_below,
    read_lines,
    videos,
)
from forensics.datasets.manifest import Note, Problem, Sample, Split

_NAME = re.compile(r"(?P<target>\d{3})_(?P<actor>[MW]\d{3})")


def fits(root: Path) -> bool:
    home = child(root, "manipulated_videos")
    return home is not None and any(
        folder.name.startswith(("end_to_end", "reenact_postprocess")) for folder in folders(home)
    )


def read(root: Path) -> Iterator[Sample | Problem | Note]:
    split_of: dict[str, Split] = {}
    splits: tuple[Split, ...] = ("train", "val", "test")
    for split in splits:
        file = child(root, "lists", "splits", f"{split}.txt")
        for line in read_lines(file) if file is not None else []:
            stem = PurePosixPath(line.split()[0]).stem
            if split_of.setdefault(stem, split) != split:
                detail = f"also in {split_of[stem]}.txt, which is kept"
                yield Problem(kind="split conflict", where=f"{file}: {stem}", detail=detail)
    if not split_of:
        yield Note("DeeperForensics: no lists/splits/*.txt here, so no file has a split")
    present: set[str] = set()
    home = child(root, "manipulated_videos") or root / "manipulated_videos"
    for variant in folders(home):
        for path in videos(variant):
            match = _NAME.fullmatch(path.stem)
            if match is None:
                detail = "expected a name like 000_M101"
                yield Problem(kind="unexpected name", where=str(path), detail=detail)
                continue
            present.add(path.stem)
            if split_of and path.stem not in split_of:
                detail = "no list in lists/splits names it"
                yield Problem(kind="unnamed file", where=str(path), detail=detail)
            yield Sample(
                path=str(path),
                label="fake",
                kind="video",
                dataset="DeeperForensics-1.0",
                method=variant.name,
                identities=(f"ffpp:{match['target']}", f"deeperforensics:{match['actor']}"),
                sources=(f"ffpp:{match['target']}",),
                split=split_of.get(path.stem, ""),
            )
    for stem in sorted(split_of.keys() - present):
        detail = f"lists/splits/{split_of[stem]}.txt names it, and no variant has it"
        yield Problem(kind="missing file", where=str(home / stem), detail=detail)
    actors = child(root, "source_videos")
    count = sum(is_video(path) for path in media_below(actors)) if actors is not None else 0
    yield Note(
        f"DeeperForensics: {count} source videos are left out, since its authors do not mean them"
        " as reals; join it with FaceForensics++ youtube c23, whose recordings its fakes name"
    )
