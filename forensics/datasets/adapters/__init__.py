"""From a data set's own tree to samples: which layout it is, and one small module for each."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from forensics.datasets.adapters import (
    celebdf,
    crop_folders,
    deeperforensics,
    dfd,
    dfdc,
    dfdc_preview,
    ffpp,
    real_fake,
    uadfv,
    user_csv,
    wilddeepfake,
)
from forensics.datasets.adapters.tree import folders
from forensics.datasets.manifest import Found, Note, Problem, Sample
from forensics.errors import ManifestError


@dataclass(frozen=True, slots=True)
class Adapter:
    """`fits` looks at names and headers only; `read` yields what is there, paths below the root."""

    title: str
    fits: Callable[[Path], bool]
    read: Callable[[Path], Iterator[Sample | Problem | Note]]


# fmt: off
ADAPTERS = {
    "ffpp": Adapter("FaceForensics++, with DFD beside it", ffpp.fits, ffpp.read),
    "dfd": Adapter("DeepFakeDetection", dfd.fits, dfd.read),
    "celebdf": Adapter("Celeb-DF v1 and v2", celebdf.fits, celebdf.read),
    "dfdc": Adapter("DFDC", dfdc.fits, dfdc.read),
    "dfdc-preview": Adapter("DFDC preview", dfdc_preview.fits, dfdc_preview.read),
    "deeperforensics": Adapter("DeeperForensics-1.0", deeperforensics.fits, deeperforensics.read),
    "wilddeepfake": Adapter("WildDeepfake", wilddeepfake.fits, wilddeepfake.read),
    "uadfv": Adapter("UADFV", uadfv.fits, uadfv.read),
    "crop-folders": Adapter("training_set/METHOD/VIDEO/", crop_folders.fits, crop_folders.read),
    "csv": Adapter("a CSV file with the columns path and label", user_csv.fits, user_csv.read),
    "real-fake": Adapter("folders real/ and fake/", real_fake.fits, real_fake.read),
}
# fmt: on
# Anyone's folder may look like these: tried in this order, after all others.
_GENERAL = ("csv", "real-fake")


def detect(root: Path) -> str:
    """The name of the layout below `root`. Raises ManifestError when none or several fit."""
    if not root.exists():
        raise ManifestError(f"{root}: no such file or folder; check the path")
    fitting = _fitting(root)
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise ManifestError(
            f"{root}: several layouts fit ({', '.join(fitting)}); say which with --layout"
        )
    below = {path.name: _fitting(path) for path in folders(root)} if root.is_dir() else {}
    hints = [f"{name} ({', '.join(found)})" for name, found in below.items() if found]
    if hints:
        raise ManifestError(
            f"{root}: not a data set itself, but these folders in it are: {', '.join(hints)};"
            " name one of them"
        )
    known = "; ".join(adapter.title for adapter in ADAPTERS.values())
    raise ManifestError(f"{root}: no known layout fits (looked for {known})")


def read(root: Path, layout: str | None = None) -> Found:
    """Everything below `root`, in the order of the tree. Paths are relative to `root`.

    `layout`: a key of ADAPTERS; None finds out. Raises ManifestError where nothing can be read at
    all; single bad files become problems and no rows.
    """
    name = layout or detect(root)
    if name not in ADAPTERS:
        raise ManifestError(f"no layout is called {name!r}; there are {', '.join(ADAPTERS)}")
    if not root.exists() or not _may_fit(name, root):
        raise ManifestError(f"{root}: not laid out as {name} ({ADAPTERS[name].title})")
    base = root.parent if root.is_file() else root
    samples: list[Sample] = []
    problems: list[Problem] = []
    notes: list[str] = []
    for item in ADAPTERS[name].read(root):
        match item:
            case Note(text):
                notes.append(text)
            case Problem():
                problems.append(_relative_problem(item, base))
            case Sample():
                problem = _unusable(item)
                if problem is not None:
                    problems.append(_relative_problem(problem, base))
                else:
                    samples.append(replace(item, path=_relative(item.path, base)))
    return Found(layout=name, samples=tuple(samples), problems=tuple(problems), notes=tuple(notes))


def _may_fit(name: str, root: Path) -> bool:
    # Only the table can be a file; the others list their folder.
    return (root.is_dir() or name == "csv") and ADAPTERS[name].fits(root)


def _fitting(root: Path) -> list[str]:
    special = [name for name in ADAPTERS if name not in _GENERAL and _may_fit(name, root)]
    if "ffpp" in special and "dfd" in special:  # delivered as one tree, and read as one
        special.remove("dfd")
    return special or [name for name in _GENERAL if _may_fit(name, root)][:1]


def _unusable(sample: Sample) -> Problem | None:
    """Why a file cannot be a row, whatever the data set."""
    path = Path(sample.path)
    try:
        sample.place.encode()
        if path.is_dir() or path.stat().st_size:
            return None
    except UnicodeEncodeError:
        detail = "its name is not UTF-8; rename it"
        return Problem(kind="unexpected name", where=sample.path, detail=detail)
    except OSError as error:
        detail = f"cannot be read: {error.strerror}"
        return Problem(kind="missing file", where=sample.path, detail=detail)
    return Problem(kind="empty file", where=sample.path, detail="no bytes in it")


def _relative_problem(problem: Problem, base: Path) -> Problem:
    # What was raised below names the file, as `where` does.
    detail = problem.detail.removeprefix(f"{problem.where}: ").replace(f"{base}{os.sep}", "")
    return replace(problem, where=_relative(problem.where, base), detail=detail)


def _relative(text: str, base: Path) -> str:
    return text.removeprefix(f"{base}{os.sep}").replace(os.sep, "/")
