"""A run's results as files for others: Parquet tables and Kaggle's submission."""

from __future__ import annotations

import csv
import importlib
import io
import itertools
import math
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Any, cast

from forensics.errors import ConfigError
from forensics.evaluation.ledger import Results
from forensics.evaluation.tables import IMPUTED, Items
from forensics.report import write_text
from forensics.whole_file import whole_file

TABLES = {"files": "videos.parquet", "tracks": "tracks.parquet", "frames": "frames.parquet"}
_ROWS_AT_ONCE = 100_000  # a row group: memory stays flat on millions of frames


def write_parquet(folder: Path) -> list[Path]:
    """Every file, track and frame of a run, one table each. Raises ConfigError without pyarrow."""
    arrow = arrow_library()
    written: list[Path] = []
    with Results(folder) as results:
        for table, name in TABLES.items():
            names, rows = results.rows(table)
            kept = [place for place, column in enumerate(names) if column not in ("number", "file")]
            schema = arrow["lib"].schema([(names[k], _type(arrow["lib"], names[k])) for k in kept])
            target = folder / name
            with (
                whole_file(target) as file,
                arrow["parquet"].ParquetWriter(file, schema) as writer,
            ):
                while chunk := list(itertools.islice(rows, _ROWS_AT_ONCE)):
                    columns = [[row[place] for row in chunk] for place in kept]
                    arrays = [
                        arrow["lib"].array(values, type=field.type)
                        for values, field in zip(columns, schema, strict=True)
                    ]
                    writer.write_table(arrow["lib"].Table.from_arrays(arrays, schema=schema))
            written.append(target)
    return written


def write_submission(items: Items, path: Path) -> None:
    """Kaggle's `filename,label`: every file once, 0.5 where there is no probability.

    Names without folders, as Kaggle has them, unless two files would then have the same.
    """
    counts = Counter(PurePosixPath(sample.place).name for sample in items.samples)
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("filename", "label"))
    for sample, probability in zip(items.samples, items.probabilities.tolist(), strict=True):
        name = PurePosixPath(sample.place).name
        value = IMPUTED if math.isnan(probability) else probability
        # All 17 digits: what is read back is the same number.
        writer.writerow((name if counts[name] == 1 else sample.place, repr(value)))
    write_text(path, text.getvalue())


def arrow_library() -> dict[str, Any]:
    """pyarrow's modules, untyped. Raises ConfigError where it is missing."""
    try:
        names = ("lib", "parquet")
        return {name: cast(Any, importlib.import_module(f"pyarrow.{name}")) for name in names}
    except ImportError as error:
        raise ConfigError("Parquet needs pyarrow: pip install 'deepfake[evaluate]'") from error


def _type(lib: Any, column: str) -> Any:
    if column in ("place", "condition", "state", "label", "sha256", "detail"):
        return lib.string()
    whole = ("frames_read", "position", "track", "frame", "num_frames", "sufficient")
    return lib.int64() if column in whole else lib.float64()
