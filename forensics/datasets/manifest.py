"""One file of a data set, and the table of such files: the manifest.

A manifest is a CSV file (UTF-8, comma, one header line), or a Parquet file of the same columns as
strings, by its suffix. Its columns are those of `COLUMNS`; further ones are left alone:

path         the file or, for a sequence on disk, its folder; relative to the manifest's own folder
label        `real` or `fake`, in words: data sets disagree about which of the two is 1
kind         `video`, `crop` (one picture of a face) or `sequence` (pictures of a face, in order);
             crops and sequences are cut already: no face detection
dataset      the data set's name
method       what made a fake, as the data set calls it; empty for reals
identity     everyone whose face is in the file or went into it, `;` between them; empty: unknown
source       the camera recordings it is or was made from, `;` between them; empty: unknown
split        `train`, `val`, `test`; `aside` for what is in none because its people are in several;
             empty where the data set says nothing
compression  `raw`, `c23` or `c40` as FaceForensics++ counts; empty elsewhere
group        files that share a group, an identity or a source must not be in two splits
member       where `path` is an archive: the sequence's folder in it

Identities and sources bear their data set's prefix (`celebdf:id3`), so that tables can be joined.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from forensics.errors import ConfigError, ManifestError

Label = Literal["real", "fake"]
Kind = Literal["video", "crop", "sequence"]
Split = Literal["train", "val", "test", "aside", ""]

# fmt: off
COLUMNS = (
    "path", "label", "kind", "dataset", "method", "identity", "source", "split", "compression",
    "group", "member",
)
# fmt: on
SEPARATOR = ";"
LABELS: tuple[Label, ...] = ("real", "fake")
SPLITS: tuple[Split, ...] = ("train", "val", "test")  # those that must share nobody
ASIDE: Split = "aside"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One row. `path` has forward slashes; identities and sources are sorted and unique."""

    path: str
    label: Label
    kind: Kind
    dataset: str
    method: str = ""
    identities: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    split: Split = ""
    compression: str = ""
    group: str = ""
    member: str = ""

    def __post_init__(self) -> None:
        for value, allowed in ((self.label, Label), (self.kind, Kind), (self.split, Split)):
            if value not in get_args(allowed):
                raise ManifestError(f"{self.path}: {value!r} is none of {get_args(allowed)}")
        for names in (self.identities, self.sources):
            if any(not name or SEPARATOR in name for name in names):
                raise ManifestError(f"{self.path}: empty name, or `{SEPARATOR}` in one: {names}")
        object.__setattr__(self, "identities", tuple(sorted(set(self.identities))))
        object.__setattr__(self, "sources", tuple(sorted(set(self.sources))))

    @property
    def place(self) -> str:
        """The path, and the folder inside it where it is an archive: unique in a manifest."""
        return f"{self.path}/{self.member}" if self.member else self.path


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something a person should look at. `kind` is from a short list, `where` names the file."""

    kind: str
    where: str
    detail: str


@dataclass(frozen=True, slots=True)
class Note:
    """A fact about the data set that one has to know to use it well."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What an adapter made of a folder: `layout` is the adapter's name."""

    layout: str
    samples: tuple[Sample, ...]
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]


def relocated(samples: Iterable[Sample], root: Path, folder: Path) -> list[Sample]:
    """Samples below `root` with paths relative to `folder`, where the manifest will be."""
    # Both resolved: `..` after a link leads to where the link points.
    base = os.path.relpath(root.resolve(), folder.resolve())
    return [
        replace(sample, path=Path(os.path.normpath(Path(base) / sample.path)).as_posix())
        for sample in samples
    ]


def require_known(leave_out: Collection[str], names: Collection[str]) -> None:
    """Raise ConfigError for a data set to leave out that is none of `names`."""
    if unknown := sorted({*leave_out} - {*names}):
        raise ConfigError(
            f"data.leave_out: the data are of {', '.join(sorted(names))}; none of "
            f"{', '.join(unknown)}"
        )
