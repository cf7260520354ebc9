"""Any folder with `real` and `fake` in it, by itself or below train, val and test.

fake/<method>/x.mp4 names the method. Pictures directly in `real` or `fake` are crops, one each; a
folder of pictures below is a sequence. Equal names tell that a fake was made from a real:
real/x.mp4 and fake/x.mp4 are kept in one split.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from forensics.datasets.adapters.tree import (
    folders,
    is_picture,
    media_below,
    plain,
    split_named,
)
from forensics.datasets.manifest import Label, Note, Problem, Sample

_NAMES: dict[str, Label] = {
    **dict.fromkeys(("real", "reals", "original", "originals", "0_real"), "real"),
    **dict.fromkeys(("fake", "fakes", "deepfake", "deepfakes", "manipulated", "1_fake"), "fake"),
}


def fits(root: Path) -> bool:
    return {label for _, label in _homes(root)} == {"real", "fake"}


def read(root: Path) -> Iterator[Sample | Problem | Note]:
    dataset = root.resolve().name
    done: set[Path] = set()
    for home, label in _homes(root):
        for file in media_below(home):
            sequence = is_picture(file) and file.parent != home
            path = file.parent if sequence else file
            if path in done:
                continue
            done.add(path)
            below = path.relative_to(home).parts
            yield Sample(
                path=str(path),
                label=label,
                kind="sequence" if sequence else "crop" if is_picture(file) else "video",
                dataset=dataset,
                method=below[0] if label == "fake" and len(below) > 1 else "",
                sources=(f"{dataset}:{path.stem.casefold()}".replace(";", ","),),
                split=split_named(home.parent.name) if home.parent != root else "",
            )


def _homes(root: Path) -> Iterator[tuple[Path, Label]]:
    """The folders that bear a label, in `root` and in its train, val and test."""
    for parent in (root, *(path for path in folders(root) if split_named(path.name))):
        for folder in folders(parent):
            if plain(folder.name) in _NAMES:
                yield folder, _NAMES[plain(folder.name)]
