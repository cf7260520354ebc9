"""The ledger of a run: every file's state and result as it finishes, in one SQLite file.

Write-ahead logging, one writer, one transaction per file: a process killed at any moment leaves
whole rows only, and the next one goes on with what is still `pending`.
"""

from __future__ import annotations

import fcntl
import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from forensics.errors import ConfigError, ForensicsError
from forensics.evaluation.outcome import AS_IT_IS, FrameRow, Outcome, TrackRow

if TYPE_CHECKING:
    from typing_extensions import Self

SCHEMA = "deepfake-ledger/1"
FILE_NAME = "ledger.sqlite"

_FILE_COLUMNS = (
    "label",
    "probability",
    "score",
    "face_px",
    "frames_read",
    "seconds",
    "sha256",
    "detail",
)
_TABLES = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS files (
    number INTEGER PRIMARY KEY, place TEXT NOT NULL, condition TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending', 'done', 'failed')),
    label TEXT, probability REAL, score REAL, face_px REAL, frames_read INTEGER, seconds REAL,
    sha256 TEXT, detail TEXT, UNIQUE (place, condition));
CREATE TABLE IF NOT EXISTS tracks (
    file INTEGER NOT NULL REFERENCES files (number), position INTEGER NOT NULL, track INTEGER,
    label TEXT, sufficient INTEGER, num_frames INTEGER, face_px REAL, score REAL, probability REAL,
    PRIMARY KEY (file, position)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS frames (
    file INTEGER NOT NULL REFERENCES files (number), position INTEGER NOT NULL, track INTEGER,
    frame INTEGER, time_s REAL, x0 REAL, y0 REAL, x1 REAL, y1 REAL, logit REAL, probability REAL,
    PRIMARY KEY (file, position)) WITHOUT ROWID;
"""


class Results:
    """What a ledger holds, for reading. Use it as a context manager."""

    def __init__(self, folder: Path) -> None:
        """Raises ConfigError where no run is in `folder`, or its ledger is damaged."""
        path = folder / FILE_NAME
        if not path.is_file():
            raise ConfigError(f"{folder}: no run is there ({FILE_NAME} is missing)")
        self._base = sqlite3.connect(f"{path.resolve().as_uri()}?mode=rw", uri=True)
        try:
            self._base.execute("SELECT COUNT(*) FROM files, facts").fetchone()
        except sqlite3.Error as error:
            self._base.close()
            raise ConfigError(f"{path}: the ledger cannot be read: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._base.close()

    def facts(self) -> dict[str, Any]:
        """What the run rests on; empty before it has begun."""
        rows = self._base.execute("SELECT name, value FROM facts")
        return {name: json.loads(value) for name, value in rows}

    def states(self) -> Counter[str]:
        """How many files are in which state."""
        rows = self._base.execute("SELECT state, COUNT(*) FROM files GROUP BY state")
        return Counter(dict(cast("list[tuple[str, int]]", rows.fetchall())))

    def outcomes(self) -> Iterator[Outcome]:
        """Every finished file in the order of the data set, without its tracks and frames."""
        columns = ("place", "condition", "state", *_FILE_COLUMNS)
        rows = self._base.execute(
            f"SELECT {', '.join(columns)} FROM files WHERE state != 'pending' ORDER BY number"
        )
        for row in rows:
            values: dict[str, Any] = dict(zip(columns, row, strict=True))
            yield Outcome(**values)

    def rows(self, table: str) -> tuple[tuple[str, ...], Iterator[tuple[Any, ...]]]:
        """Names and rows of `files`, `tracks` or `frames`, the latter two with place, condition."""
        if table == "files":
            query = "SELECT * FROM files ORDER BY number"
        else:
            query = (
                f"SELECT files.place, files.condition, {table}.* FROM {table} "
                f"JOIN files ON files.number = {table}.file ORDER BY file, position"
            )
        cursor = self._base.execute(query)
        return tuple(column[0] for column in cursor.description), cursor

    def frame_maxima(self) -> Iterator[tuple[str, float]]:
        """(place, highest probability among its faces) of every frame with a face, unchanged
        files only."""
        yield from self._base.execute(
            "SELECT files.place, MAX(frames.probability) FROM frames "
            "JOIN files ON files.number = frames.file WHERE files.condition = ? "
            "GROUP BY frames.file, frames.frame ORDER BY frames.file, frames.frame",
            (AS_IT_IS,),
        )

    def deciding_frames(self, place: str) -> list[tuple[int, float, tuple[float, ...], float]]:
        """(frame, time_s, box, probability) of every frame of the person who decides the verdict
        on the unchanged file."""
        rows = self._base.execute(
            "SELECT frame, time_s, x0, y0, x1, y1, frames.probability FROM frames "
            "JOIN files ON files.number = frames.file "
            "JOIN tracks ON tracks.file = frames.file AND tracks.track = frames.track "
            "WHERE files.place = ? AND files.condition = ? AND tracks.position = 0 "
            "ORDER BY frames.position",
            (place, AS_IT_IS),
        )
        return [(row[0], row[1], tuple(row[2:6]), row[6]) for row in rows]


class Ledger(Results):
    """Use it as a context manager; `record` is the only writer while a run goes on."""

    def __init__(
        self, folder: Path, facts: Mapping[str, Any], keys: Iterable[tuple[str, str]]
    ) -> None:
        """Begin a ledger in `folder`, or go on with the one that is there.

        `facts` (JSON values) are what every number of the run rests on; `keys` are the (place,
        condition) of its files. Raises ConfigError where another process writes it, where it is
        damaged, and where it was begun with other facts: the difference is named.
        """
        self._path = folder / FILE_NAME
        self._lock = _locked(folder / f"{FILE_NAME}.lock")
        try:
            self._base = sqlite3.connect(self._path, isolation_level=None)
        except sqlite3.Error as error:
            self._lock.close()
            raise self._unusable(error) from error
        try:
            # NORMAL: a killed process loses nothing, a power cut at most the last files.
            self._base.execute("PRAGMA journal_mode=WAL")
            self._base.execute("PRAGMA synchronous=NORMAL")
            self._base.executescript(_TABLES)
            self._begin({"schema": SCHEMA, **facts}, keys)
        except sqlite3.Error as error:
            self.close()
            raise self._unusable(error) from error
        except BaseException:
            self.close()
            raise

    def _unusable(self, error: sqlite3.Error) -> ConfigError:
        return ConfigError(
            f"{self._path}: the ledger cannot be used: {error}; name another --out folder"
        )

    def close(self) -> None:
        super().close()
        self._lock.close()

    def pending(self, *, retry_failed: bool = False) -> list[tuple[str, str]]:
        """(place, condition) of what is left to do, in the order of the data set.

        With `retry_failed` also what failed, and what ran into a limit: time and memory may be
        there now.
        """
        again = "OR state = 'failed' OR label = 'limit_exceeded'" if retry_failed else ""
        return self._base.execute(
            f"SELECT place, condition FROM files WHERE state = 'pending' {again} ORDER BY number"
        ).fetchall()

    def record(self, outcome: Outcome) -> None:
        """Write one file's result, all of it or nothing.

        Raises KeyError for an unknown file, ForensicsError where the disk refuses.
        """
        try:
            self._record(outcome)
        except sqlite3.Error as error:
            raise ForensicsError(
                f"{self._path}: {outcome.place} cannot be recorded: {error}; what was recorded "
                "before is safe, the same command goes on"
            ) from error

    def _record(self, outcome: Outcome) -> None:
        found = self._base.execute(
            "SELECT number FROM files WHERE place = ? AND condition = ?", outcome.key
        ).fetchone()
        if found is None:
            raise KeyError(f"{outcome.key} is not a file of this run")
        number = int(found[0])
        self._base.execute("BEGIN IMMEDIATE")
        try:
            for table in ("tracks", "frames"):
                self._base.execute(f"DELETE FROM {table} WHERE file = ?", (number,))
            changes = ", ".join(f"{name} = ?" for name in _FILE_COLUMNS)
            self._base.execute(
                f"UPDATE files SET state = ?, {changes} WHERE number = ?",
                (outcome.state, *(getattr(outcome, name) for name in _FILE_COLUMNS), number),
            )
            self._base.executemany(
                "INSERT INTO tracks VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                ((number, i, *_track_cells(row)) for i, row in enumerate(outcome.tracks)),
            )
            self._base.executemany(
                "INSERT INTO frames VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                ((number, i, *_frame_cells(row)) for i, row in enumerate(outcome.frames)),
            )
        except BaseException:
            self._base.execute("ROLLBACK")
            raise
        self._base.execute("COMMIT")

    def _begin(self, facts: Mapping[str, Any], keys: Iterable[tuple[str, str]]) -> None:
        """All at once: a ledger killed while it is laid out is laid out again."""
        known = self.facts()
        # As JSON knows them: tuples are lists there.
        wanted: dict[str, Any] = json.loads(json.dumps(dict(facts)))
        if known:
            _require_equal(known, wanted, self._path)
            return
        self._base.execute("BEGIN IMMEDIATE")
        self._base.executemany(
            "INSERT INTO files (place, condition, state) VALUES (?, ?, 'pending')", keys
        )
        self._base.executemany(
            "INSERT INTO facts VALUES (?, ?)",
            ((name, json.dumps(value)) for name, value in wanted.items()),
        )
        self._base.execute("COMMIT")


def _locked(path: Path) -> IO[bytes]:
    """Hold a lock that the system gives back however this process ends."""
    file = path.open("wb")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise ConfigError(
            f"{path.parent}: another process is writing this run; wait for it or end it"
        ) from error
    return file


def _require_equal(known: Mapping[str, Any], wanted: Mapping[str, Any], path: Path) -> None:
    before, now = _flat(known), _flat(wanted)
    differing = sorted(name for name in before | now if before.get(name) != now.get(name))
    if differing:
        shown = "; ".join(
            f"{name}: {before.get(name)!r} then, {now.get(name)!r} now" for name in differing[:3]
        )
        more = f"; and {len(differing) - 3} more" if len(differing) > 3 else ""
        raise ConfigError(
            f"{path.parent}: this run was begun otherwise, so it cannot go on: {shown}{more}; "
            "name another --out folder, or ask for the same again"
        )


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {name: value}
    flat: dict[str, Any] = {}
    for key, below in cast("Mapping[str, Any]", value).items():
        flat |= _flat(below, f"{name}.{key}" if name else str(key))
    return flat


def _track_cells(row: TrackRow) -> tuple[Any, ...]:
    return (
        row.track,
        row.label,
        int(row.sufficient),
        row.num_frames,
        row.face_px,
        row.score,
        row.probability,
    )


def _frame_cells(row: FrameRow) -> tuple[Any, ...]:
    return (row.track, row.frame, row.time_s, *row.box, row.logit, row.probability)
