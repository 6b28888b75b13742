"""What a run logged: rows in memory, in `metrics.jsonl`, and at every logger."""

import json
import math
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from etude.base.errors import StorageError
from etude.base.files import storage
from etude.base.regular import reading
from etude.base.says import surely
from etude.train.watch.apart import Apart
from etude.train.watch.rows_file import RowsFile

Row = dict[str, Any]
METRICS = "metrics.jsonl"


class Mark(NamedTuple):
    """How much of a record belongs to a checkpoint, and its hash; of a checkpoint of before an empty one."""

    bytes: int
    sha256: str


NO_MARK = Mark(0, "")


class Logger(Protocol):
    """A sink of rows beside `metrics.jsonl`."""

    def log(self, row: Mapping[str, object]) -> None:
        """Take one row: `step`, `epoch`, `tokens` and scalars."""


class Record:
    """The rows of a run, in order.

    Without a folder they are kept in memory alone. A resume cuts the file back to its checkpoint. Rows that cannot be
    written (a full disk) are told of once and wait in memory for the next try; no checkpoint counts them before they
    are durable. Where the file is removed, cut short or replaced while the run writes it, that is told, and its rows
    are written anew. A logger that fails is told of once, and never again called.
    """

    def __init__(
        self, folder: Path | None = None, loggers: Iterable[Logger] = (), complain: Callable[[str], None] = print
    ) -> None:
        self.rows: list[Row] = []
        self.last: dict[str, float] = {}
        """The last value of everything logged."""
        self._path = None if folder is None else folder / METRICS
        self._file: RowsFile | None = None
        self._waiting = bytearray()
        self._failed = False
        self._loggers = list(loggers)
        self._complain = surely(complain)
        self._apart = Apart(0)

    def open(self, cut: int | None, mark: Mark = NO_MARK) -> None:
        """Begin: cut the file back to `cut` bytes (None keeps all whole lines of it) and read what stays.

        That the rows up to `mark` are no longer those that it was made of is told.
        """
        if self._path is None:
            return
        self._file = RowsFile(self._path)
        with storage("write", self._path):
            end = self._file.cut(cut)
            self._compare(self._file, end if cut is None else cut, mark)
        for row in read_rows(self._path, self._complain):
            self._keep(row)

    def _compare(self, file: RowsFile, expected: int, mark: Mark) -> None:
        """Tell where the file holds less than is expected of it, or other rows than a mark was made of."""
        if (end := file.size()) != expected:
            self._complain(
                f"{self._path} was changed: the checkpoint expects {expected:,} bytes of whole lines, but only {end:,} "
                f"are there. The missing rows are lost."
            )
        elif mark.sha256 and file.hash_of(mark.bytes) != mark.sha256:
            self._complain(f"{self._path} was changed: its rows are not those that the checkpoint counts.")

    def write(self, row: Row) -> None:
        """Add one row; what is not finite becomes null."""
        clean = {key: _plain(value) for key, value in row.items()}
        self._keep(clean)
        if self._file is not None:
            self._waiting += _line(clean)
            self._try_to_flush()
        for logger in list(self._loggers):
            self._log(logger, clean)

    def _log(self, logger: Logger, row: Row) -> None:
        """Hand a row to a logger, which is left out from then on if it fails."""
        try:
            with self._apart("log", int(row.get("step", 0))):  # MLflow, for one, draws names for its runs
                logger.log(row)
        except Exception as error:  # noqa: BLE001 - a logger's failure is never the run's
            self._loggers.remove(logger)
            self._complain(f"The logger {type(logger).__name__} failed and is dropped: {_said(error)}")

    def _keep(self, row: Row) -> None:
        self.rows.append(row)
        self.last.update({key: value for key, value in row.items() if isinstance(value, (int, float))})

    def _try_to_flush(self) -> None:
        """Write what waits; that it cannot be written is told once."""
        try:
            self._flush()
        except StorageError as error:
            if not self._failed:
                self._complain(f"{error} Training continues; its rows stay in memory until they can be written.")
            self._failed = True

    def _flush(self) -> None:
        assert self._path is not None
        assert self._file is not None
        with storage("write", self._path, needs=len(self._waiting)):
            lost = self._file.what_was_done()
            if lost is None:
                self._file.append(self._waiting)
            else:
                self._write_anew(self._file, lost)
        self._failed = False

    def _write_anew(self, file: RowsFile, lost: str) -> None:
        """Write every row that the run has had, those that wait among them."""
        file.write_anew(b"".join(map(_line, self.rows)))
        self._waiting.clear()
        self._complain(
            f"{self._path} was {lost} while the run wrote it: the {len(self.rows):,} rows of the run are written anew."
        )

    def not_finite_since(self, names: Collection[str]) -> int | None:
        """The step of the first of those last rows with one of `names` in which none of them is a finite number.

        None where the last such row has one, or there is none.
        """
        judged = [row for row in self.rows if not row.keys().isdisjoint(names)]
        broken = list(takewhile(lambda row: all(row.get(name) is None for name in names), reversed(judged)))
        return broken[-1]["step"] if broken else None

    def length(self) -> int:
        """Bytes of the file, with the rows that wait."""
        return 0 if self._file is None else self._file.size() + len(self._waiting)

    def size(self) -> int:
        """Bytes of the file, made durable. Raises StorageError where they cannot be."""
        if self._file is None or self._path is None:
            return 0
        self._flush()
        with storage("write", self._path):
            self._file.sync()
        return self.length()

    def mark(self) -> Mark:
        """Where the file ends, made durable, and the hash of what it holds. Raises StorageError."""
        size = self.size()
        return NO_MARK if self._file is None else Mark(size, self._file.hash_of(size))

    def close(self) -> None:
        """Close the file and the loggers."""
        if self._file is not None:
            with suppress(StorageError):
                self._flush()
            self._file.close()
            self._file = None
        for logger in self._loggers:
            self._close(logger)
        self._loggers = []

    def _close(self, logger: Logger) -> None:
        try:
            with self._apart("close", 0):
                getattr(logger, "close", lambda: None)()
        except Exception as error:  # noqa: BLE001 - a logger's failure is never the run's
            self._complain(f"The logger {type(logger).__name__} could not be closed: {_said(error)}")


def _plain(value: object) -> Any:
    match value:
        case float() if not math.isfinite(value):
            return None
    return value


def _said(error: Exception) -> str:
    """What an error says, in one line."""
    return " ".join(str(error).split()) or type(error).__name__


def _line(row: Row) -> bytes:
    """A row as it is written."""
    return json.dumps(row, ensure_ascii=False).encode() + b"\n"


def _warn(sentence: str) -> None:
    with suppress(OSError, ValueError):
        sys.stderr.write(sentence + "\n")


def row_of(line: bytes) -> Row | None:
    """The row that a line holds, if it holds one."""
    with suppress(ValueError, RecursionError):
        match json.loads(line):
            case dict() as row:
                return row
    return None


def read_rows(path: Path, complain: Callable[[str], None] = _warn) -> list[Row]:
    """The rows of a `metrics.jsonl`; lines that are no rows are left out, and counted to `complain`."""
    try:
        with storage("read", path), reading(path) as file:
            content = file.read()
    except StorageError:
        if path.exists() or path.is_symlink():
            raise
        return []
    lines = list(filter(None, content.split(b"\n")))
    rows = [row for row in map(row_of, lines) if row is not None]
    unreadable = len(lines) - len(rows)
    if unreadable:
        complain(f"{path}: {unreadable:,} lines cannot be read and are left out.")
    return rows
