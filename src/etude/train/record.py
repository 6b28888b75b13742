"""What a run logged: rows in memory, in `metrics.jsonl`, and at every logger."""

import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from io import FileIO
from pathlib import Path
from typing import Any, Protocol

from etude.base.files import fsync_folder, storage

Row = dict[str, Any]
METRICS = "metrics.jsonl"


class Logger(Protocol):
    """A sink of rows beside `metrics.jsonl`."""

    def log(self, row: Mapping[str, Any]) -> None:
        """Take one row: `step`, `epoch`, `tokens` and scalars."""


class Record:
    """The rows of a run, in order.

    Without a folder they are kept in memory alone. A resume cuts the file back to its checkpoint. A logger that
    fails is told of once, and never again called.
    """

    def __init__(
        self, folder: Path | None = None, loggers: Iterable[Logger] = (), complain: Callable[[str], None] = print
    ) -> None:
        self.rows: list[Row] = []
        self.last: dict[str, float] = {}
        """The last value of everything logged."""
        self._path = None if folder is None else folder / METRICS
        self._file: FileIO | None = None
        self._loggers = list(loggers)
        self._complain = complain

    def open(self, cut: int | None) -> None:
        """Begin: cut the file back to `cut` bytes (None keeps all of it) and read what stays."""
        if self._path is None:
            return
        with storage("write", self._path):
            created = not self._path.exists()
            self._file = self._path.open("ab", buffering=0)
            if cut is not None:
                os.truncate(self._path, min(cut, self._path.stat().st_size))
            if created:
                fsync_folder(self._path.parent)
        for row in read_rows(self._path):
            self._keep(row)

    def write(self, row: Row) -> None:
        """Add one row; what is not finite becomes null."""
        clean = {key: _plain(value) for key, value in row.items()}
        self._keep(clean)
        if self._file is not None and self._path is not None:
            with storage("write", self._path):
                self._file.write(json.dumps(clean, ensure_ascii=False).encode() + b"\n")
        for logger in list(self._loggers):
            try:
                logger.log(clean)
            except Exception as error:  # noqa: BLE001 - a logger's failure is never the run's
                self._loggers.remove(logger)
                self._complain(f"The logger {type(logger).__name__} failed and is left out from here on: {error}")

    def _keep(self, row: Row) -> None:
        self.rows.append(row)
        self.last.update({key: value for key, value in row.items() if isinstance(value, (int, float))})

    def size(self) -> int:
        """Bytes of the file, made durable."""
        if self._file is None or self._path is None:
            return 0
        with storage("write", self._path):
            os.fsync(self._file.fileno())
            return self._path.stat().st_size

    def close(self) -> None:
        """Close the file and the loggers."""
        if self._file is not None:
            self._file.close()
            self._file = None
        for logger in self._loggers:
            close = getattr(logger, "close", None)
            if close is not None:
                close()


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


def read_rows(path: Path) -> list[Row]:
    """The rows of a `metrics.jsonl`; a last line that was cut short is left out."""
    rows: list[Row] = []
    try:
        content = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return rows
    for line in content.split("\n"):
        if line:
            try:
                rows.append(json.loads(line))
            except ValueError:
                sys.stderr.write(f"{path}: a line cannot be read and is left out.\n")
    return rows
