"""A table of one's own: a CSV file, or a folder with one: path,label[,split,method,...].

`label` is real or fake, or 0 (real) and 1 (fake). Paths are relative to the CSV file's folder.
Further columns, each optional: those of the manifest; `original` is read as `source`. An original
may be given as another row's path or file name. This tool's own manifests are such tables too.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import cast, get_args

from forensics.datasets.adapters.tree import entries, is_picture, split_named
from forensics.datasets.manifest import ASIDE, SEPARATOR, Kind, Label, Note, Problem, Sample, Split
from forensics.errors import ManifestError

_LABELS: dict[str, Label] = {"real": "real", "fake": "fake", "0": "real", "1": "fake"}

Row = dict[str, str]


def fits(root: Path) -> bool:
    return bool(_tables(root))


def read(root: Path) -> Iterator[Sample | Problem | Note]:
    tables = _tables(root)
    if len(tables) > 1:
        names = ", ".join(table.name for table in tables)
        raise ManifestError(f"{root}: several tables of files ({names}); name the one you mean")
    (table,) = tables
    rows = list(_rows(table))
    recordings = _Recordings(rows)
    seen: dict[tuple[str, str], int] = {}
    for number, row in enumerate(rows, 1):
        where = f"row {number} {row['path']}"
        problem = _problem(row, table.parent)
        first = seen.setdefault((row["path"], row.get("member", "")), number)
        if problem is None and first != number:
            problem = "duplicate", f"the same file as row {first}"
        if problem is not None:
            yield Problem(kind=problem[0], where=where, detail=problem[1])
        else:
            yield _sample(row, table, recordings)


def _tables(root: Path) -> list[Path]:
    """CSV files with the columns path and label."""
    candidates = [root] if root.is_file() else entries(root)
    return [path for path in candidates if path.suffix.lower() == ".csv" and _is_table(path)]


def _is_table(path: Path) -> bool:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            header = next(iter(csv.reader(file)), list[str]())
    except (OSError, UnicodeDecodeError, csv.Error):
        return False
    return {"path", "label"} <= {name.strip().lower() for name in header}


def _rows(table: Path) -> Iterator[Row]:
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            for row in csv.DictReader(file):
                cells = cast("Mapping[str | None, object]", row)
                yield {
                    key.strip().lower(): (value if isinstance(value, str) else "").strip()
                    for key, value in cells.items()
                    if key is not None
                }
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ManifestError(f"{table}: not a CSV file in UTF-8: {error}") from error


def _problem(row: Row, folder: Path) -> tuple[str, str] | None:
    if not row["path"]:
        return "bad row", "no path"
    if row["label"].casefold() not in _LABELS:
        return "unknown label", f"{row['label']!r}: expected real or fake, or 0 and 1 (1 is fake)"
    split = row.get("split", "")
    if split and not _split(split):
        return "bad row", f"split {split!r}: expected train, val, test or aside"
    kind = row.get("kind", "")
    if kind and kind not in get_args(Kind):
        return "bad row", f"kind {kind!r}: expected one of {', '.join(get_args(Kind))}"
    if not (folder / row["path"]).exists():
        return "missing file", "the table names it"
    return None


def _sample(row: Row, table: Path, recordings: _Recordings) -> Sample:
    path = table.parent / row["path"]
    label = _LABELS[row["label"].casefold()]
    guess = "sequence" if path.is_dir() or row.get("member") else "video"
    kind = row.get("kind") or ("crop" if is_picture(path) else guess)
    given = _names(row.get("source") or row.get("original", ""))
    # A real is its own recording: so a fake's `original` finds it.
    named = given or ((row["path"],) if label == "real" else ())
    return Sample(
        path=str(path),
        label=label,
        kind=cast(Kind, kind),
        dataset=row.get("dataset") or table.resolve().parent.name,
        method=row.get("method", ""),
        identities=_names(row.get("identity", "")),
        sources=tuple(recordings.of(name) for name in named),
        split=_split(row.get("split", "")),
        compression=row.get("compression", ""),
        group=row.get("group", ""),
        member=row.get("member", ""),
    )


def _split(text: str) -> Split:
    return ASIDE if text == ASIDE else split_named(text)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(SEPARATOR) if name.strip())


class _Recordings:
    """What a fake's `original` means: often a row's file name without its folder."""

    def __init__(self, rows: list[Row]) -> None:
        self._by_name: dict[str, set[str]] = defaultdict(set)
        self._source_of: dict[str, str] = {}
        for row in rows:
            path = row["path"]
            self._by_name[PurePosixPath(path).name].add(path)
            own = _names(row.get("source") or row.get("original", ""))
            if len(own) == 1 and row["label"].casefold() in ("real", "0"):
                self._source_of[path] = own[0]

    def of(self, name: str) -> str:
        """The recording that `name` stands for: a row's path, or that row's own source."""
        paths = self._by_name.get(PurePosixPath(name).name, set())
        path = name if name in paths or len(paths) != 1 else next(iter(paths))
        return self._source_of.get(path, path).replace(SEPARATOR, ",")
