"""DFDC preview (Dolhansky et al., 2019): another set than DFDC, with other people and two methods.

dataset.json  {"method_A/<id>/<id>_A/x.mp4": {"label": "fake", "set": "train", "target_id": ...,
"swapped_id": ...}}; videos in original_videos/, method_A/ and method_B/.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import cast

from forensics.datasets.adapters.tree import child, media_below, read_json, split_named
from forensics.datasets.manifest import Label, Note, Problem, Sample
from forensics.errors import ManifestError

_HOMES = ("original_videos", "method_A", "method_B")
_LABELS: dict[str, Label] = {"real": "real", "fake": "fake"}


def fits(root: Path) -> bool:
    return child(root, "dataset.json") is not None and any(child(root, name) for name in _HOMES)


def read(root: Path) -> Iterator[Sample | Problem | Note]:
    file = child(root, "dataset.json") or root / "dataset.json"
    content = read_json(file)
    if not isinstance(content, dict):
        raise ManifestError(f"{file}: expected one object with a key per video")
    present = {
        path.relative_to(root).as_posix().casefold(): path
        for name in _HOMES
        if (home := child(root, name)) is not None
        for path in media_below(home)
    }
    for name, value in cast("dict[str, object]", content).items():
        path = present.pop(PurePosixPath(name).as_posix().casefold(), None)
        fields = cast("dict[str, object]", value) if isinstance(value, dict) else {}
        label = _LABELS.get(str(fields.get("label", "")).casefold())
        if path is None:
            detail = f"{file.name} names it"
            yield Problem(kind="missing file", where=str(root / name), detail=detail)
        elif label is None:
            detail = f"{file.name} says {fields.get('label')!r}, expected real or fake"
            yield Problem(kind="unknown label", where=str(path), detail=detail)
        else:
            people = [fields.get("target_id"), fields.get("swapped_id")]
            yield Sample(
                path=str(path),
                label=label,
                kind="video",
                dataset="DFDC-preview",
                method=path.relative_to(root).parts[0] if label == "fake" else "",
                identities=tuple(f"dfdcp:{person}" for person in people if person is not None),
                # Which recording a fake was made from is not told; its people are.
                sources=(f"dfdcp:{path.stem.casefold()}",) if label == "real" else (),
                split=split_named(str(fields.get("set", ""))),
            )
    for path in present.values():
        detail = f"{file.name} does not name it: its label is unknown"
        yield Problem(kind="unnamed file", where=str(path), detail=detail)
