"""Somebody else's predictions as an engine: a table of file and probability, nothing is decoded."""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from forensics.errors import ConfigError
from forensics.evaluation.outcome import Outcome, Unit, failed
from forensics.evaluation.run import Judge

# `filename,label` is Kaggle's submission for DFDC, with the probability as its label.
_FILE_COLUMNS = ("path", "filename", "file", "video")
_VALUE_COLUMNS = ("probability", "prediction", "label", "score")


class Predictions:
    """An Engine that answers from a table; a file the table lacks failed."""

    def __init__(self, path: Path) -> None:
        """Raises ConfigError naming the line where something is wrong."""
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
        self.judge = Judge(
            name=path.name,
            version="",
            sha256=hashlib.sha256(data).hexdigest(),
            thresholds=None,
            protocol={"predictions": "given in a table; how they were made is not known"},
        )
        self._by_path = _read(data, path)
        self._by_name = _unambiguous(self._by_path)

    def outcomes(self, units: Iterator[Unit]) -> Iterator[Outcome]:
        for unit in units:
            place = unit.sample.place
            probability = self._by_path.get(place)
            if probability is None:
                probability = self._by_name.get(PurePosixPath(place).name)
            if probability is None:
                yield failed(unit, "no prediction")
            else:
                yield Outcome(place=place, condition=unit.condition, probability=probability)


def _read(data: bytes, path: Path) -> dict[str, float]:
    try:
        reader = csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""))
        names = {name.strip().lower(): name for name in reader.fieldnames or ()}
        file_column = next((names[name] for name in _FILE_COLUMNS if name in names), None)
        value_column = next((names[name] for name in _VALUE_COLUMNS if name in names), None)
        if file_column is None or value_column is None:
            raise ConfigError(
                f"{path}: expected a header with a file ({', '.join(_FILE_COLUMNS)}) and a "
                f"probability of fake ({', '.join(_VALUE_COLUMNS)}), found {', '.join(names)}"
            )
        found: dict[str, float] = {}
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            name = PurePosixPath((row[file_column] or "").strip()).as_posix()
            value = _probability(row[value_column], where)
            if found.setdefault(name, value) != value:
                raise ConfigError(f"{where}: {name} has another prediction above")
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path}: not a CSV file in UTF-8: {error}") from error
    return found


def _probability(text: str | None, where: str) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = -1.0
    if not 0.0 <= value <= 1.0:
        raise ConfigError(f"{where}: {text!r} is not a probability in 0..1")
    return value


def _unambiguous(by_path: Mapping[str, float]) -> dict[str, float]:
    """Names without folders, where only one file has that name."""
    counts = Counter(PurePosixPath(path).name for path in by_path)
    return {
        name: value
        for path, value in by_path.items()
        if counts[name := PurePosixPath(path).name] == 1
    }
