"""Manifests as files: CSV, or Parquet where the suffix says so; read strictly, written whole."""

from __future__ import annotations

import csv
import importlib
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from forensics.datasets.manifest import COLUMNS, SEPARATOR, Kind, Label, Sample, Split
from forensics.errors import ManifestError
from forensics.whole_file import whole_file

PARQUET = ".parquet"
_REQUIRED = ("path", "label", "kind", "dataset")


def read_manifest(path: Path) -> list[Sample]:
    """The rows of a manifest, in order. Raises ManifestError naming the row, counted from 1.

    Whether the files exist is not asked here: a manifest may come before its data.
    """
    if path.is_dir():
        raise ManifestError(
            f"{path}: a folder; `deepfake data check {path} --out manifest.csv` makes a manifest of"
            " a data set"
        )
    try:
        table = _parquet_rows(path) if path.suffix.lower() == PARQUET else _csv_rows(path)
        return _samples(table, path)
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read: {error.strerror or error}") from error


def _samples(table: Iterator[Mapping[str, str]], path: Path) -> list[Sample]:
    samples: list[Sample] = []
    first: dict[str, int] = {}
    for number, row in enumerate(table, 1):
        try:
            sample = _sample(row)
        except ManifestError as error:
            raise ManifestError(f"{path}, row {number}: {error}") from error
        if (before := first.setdefault(sample.place, number)) != number:
            raise ManifestError(f"{path}, row {number}: {sample.place} is row {before} already")
        samples.append(sample)
    if not samples:
        raise ManifestError(f"{path}: the manifest has no rows")
    return samples


def _sample(row: Mapping[str, str]) -> Sample:
    for name in _REQUIRED:
        if not row.get(name):
            raise ManifestError(f"no {name}")

    def several(name: str) -> tuple[str, ...]:
        return tuple(part for part in row.get(name, "").split(SEPARATOR) if part)

    return Sample(
        path=row["path"],
        label=cast(Label, row["label"]),
        kind=cast(Kind, row["kind"]),
        dataset=row["dataset"],
        method=row.get("method", ""),
        identities=several("identity"),
        sources=several("source"),
        split=cast(Split, row.get("split", "")),
        compression=row.get("compression", ""),
        group=row.get("group", ""),
        member=row.get("member", ""),
    )


def _csv_rows(path: Path) -> Iterator[Mapping[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            _require_columns(reader.fieldnames or (), path)
            for row in reader:
                cells = cast("Mapping[str | None, object]", row)
                if None in cells or None in cells.values():
                    raise ManifestError(
                        f"{path}, line {reader.line_num}: not as many cells as the header has"
                    )
                yield row
    except (UnicodeDecodeError, csv.Error) as error:
        raise ManifestError(f"{path}: not a CSV file in UTF-8: {error}") from error


def _parquet_rows(path: Path) -> Iterator[Mapping[str, str]]:
    arrow = _arrow(path)
    try:
        with path.open("rb") as file:
            table: Any = arrow["parquet"].read_table(file)
    except (arrow["lib"].ArrowException, ValueError) as error:
        raise ManifestError(f"{path}: not a Parquet file: {error}") from error
    _require_columns(table.column_names, path)
    for row in table.to_pylist():
        yield {name: "" if value is None else str(value) for name, value in row.items()}


def _arrow(path: Path) -> dict[str, Any]:
    """pyarrow's modules; it has no types, and `Any` says so once."""
    try:
        names = ("lib", "parquet")
        return {name: cast(Any, importlib.import_module(f"pyarrow.{name}")) for name in names}
    except ImportError as error:
        raise ManifestError(
            f"{path}: Parquet needs pyarrow: pip install 'deepfake[data]', or use a .csv"
        ) from error


def _require_columns(names: Iterable[str], path: Path) -> None:
    missing = sorted(set(_REQUIRED) - set(names))
    if missing:
        raise ManifestError(
            f"{path}: no column {', '.join(missing)}; `deepfake data check {path.name} --out"
            " manifest.csv` makes a manifest of any table with path and label"
        )


def write_manifest(samples: Sequence[Sample], path: Path) -> None:
    """Write under a temporary name, then rename: a manifest is whole or not there.

    The suffix chooses between CSV and Parquet. Raises ManifestError for any other.
    """
    if path.suffix.lower() not in (".csv", PARQUET):
        raise ManifestError(f"{path}: a manifest ends in .csv or {PARQUET}")
    with whole_file(path) as file:
        if path.suffix.lower() == PARQUET:
            arrow = _arrow(path)
            columns = {name: [_row(sample)[name] for sample in samples] for name in COLUMNS}
            table: Any = arrow["lib"].table(columns)
            arrow["parquet"].write_table(table, file)
        else:
            file.write(_csv_text(samples).encode())


def _csv_text(samples: Sequence[Sample]) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([_row(sample)[name] for name in COLUMNS] for sample in samples)
    return text.getvalue()


def _row(sample: Sample) -> dict[str, str]:
    return {
        "path": sample.path,
        "label": sample.label,
        "kind": sample.kind,
        "dataset": sample.dataset,
        "method": sample.method,
        "identity": SEPARATOR.join(sample.identities),
        "source": SEPARATOR.join(sample.sources),
        "split": sample.split,
        "compression": sample.compression,
        "group": sample.group,
        "member": sample.member,
    }
