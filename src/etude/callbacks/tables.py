"""Rows of saved outputs as a file: Parquet where pyarrow is there, JSON lines elsewhere; seen whole or not at all."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import singledispatch
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias

from etude.base.errors import ConfigError
from etude.base.files import fsync_folder, storage
from etude.callbacks.config import is_installed

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

Columns: TypeAlias = Mapping[str, Sequence[object]]
"""Values by column, one for each sample."""

GROUP = 4096
"""Rows that are held in memory before they are written."""

PARQUET, JSON_LINES = ".parquet", ".jsonl"
TEXTS = ("source", "target", "prediction")
"""Columns that hold text where the first rows do not tell."""


class Table(Protocol):
    """A file that rows are added to; nobody sees it before it is finished."""

    rows: int

    def add(self, columns: Columns) -> None:
        """Add a batch of rows."""

    def finish(self, path: Path) -> None:
        """Make the rows durable, and let the file be seen at `path`."""

    def abandon(self) -> None:
        """Leave no trace."""


def ending() -> str:
    """How the name of a file ends that is written here."""
    return PARQUET if is_installed("pyarrow") else JSON_LINES


def open_table(partial: Path) -> Table:
    """A table written to `partial` until it is finished."""
    return ParquetTable(partial) if ending() == PARQUET else JsonTable(partial)


class _File:
    """A file that is seen once it is finished."""

    def __init__(self, partial: Path) -> None:
        self.rows = 0
        self._partial = partial
        with storage("write", partial):
            self._file = partial.open("wb")

    def finish(self, path: Path) -> None:
        """Make the rows durable, and let the file be seen at `path`."""
        with storage("write", path):
            self._end()
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._partial.replace(path)
            other = path.with_suffix(JSON_LINES if path.suffix == PARQUET else PARQUET)
            with suppress(FileNotFoundError):
                other.unlink()  # of an earlier run without pyarrow, or with it
            fsync_folder(path.parent)

    def abandon(self) -> None:
        """Leave no trace."""
        with suppress(OSError):
            self._file.close()
        with suppress(OSError):
            self._partial.unlink()

    def _end(self) -> None:
        """Write what is still held."""


class JsonTable(_File):
    """A JSON object a row."""

    def add(self, columns: Columns) -> None:
        """Write a batch of rows."""
        names = list(columns)
        with storage("write", self._partial):
            for values in zip(*columns.values(), strict=True):
                row = {name: finite(value) for name, value in zip(names, values, strict=True)}
                self._file.write((json.dumps(row, ensure_ascii=False, default=str) + "\n").encode())
                self.rows += 1


class ParquetTable(_File):
    """Row groups of `GROUP` rows; the types of the columns are those of the first group."""

    def __init__(self, partial: Path) -> None:
        super().__init__(partial)
        self._waiting: dict[str, list[object]] = {}
        self._held = 0
        self._writer: ParquetWriter | None = None

    def add(self, columns: Columns) -> None:
        """Take a batch of rows."""
        count = len(next(iter(columns.values()), ()))
        for name in [*self._waiting, *(name for name in columns if name not in self._waiting)]:
            held = self._waiting.setdefault(name, [None] * self._held)
            held.extend(columns.get(name, [None] * count))
        self._held += count
        self.rows += count
        if self._held >= GROUP:
            self._write()

    def abandon(self) -> None:
        """Leave no trace."""
        with suppress(OSError):
            if self._writer is not None:
                self._writer.close()  # or it would write when it is collected, to a file that is closed
        super().abandon()

    def _end(self) -> None:
        if self._held or self._writer is None:
            self._write()
        assert self._writer is not None
        self._writer.close()

    def _write(self) -> None:
        """Write what waits as a row group."""
        import pyarrow.parquet as pq

        if self._writer is None:
            table = _first_group(self._waiting)
            self._writer = pq.ParquetWriter(self._file, table.schema)
        else:
            table = _later_group(self._waiting, self._held, self._writer.schema)
        with storage("write", self._partial):
            self._writer.write_table(table)
        self._waiting = {name: [] for name in table.schema.names}
        self._held = 0


def _first_group(columns: Columns) -> "pa.Table":
    """The columns, whose values tell their types."""
    import pyarrow as pa

    arrays = [_array(name, values) for name, values in columns.items()]
    told = [array.cast(_told(array.type, name)) for array, name in zip(arrays, columns, strict=True)]
    return pa.table(told, names=list(columns))


def _later_group(columns: Columns, count: int, schema: "pa.Schema") -> "pa.Table":
    """The columns in the types of the first group; nothing where one is not there. Raises ConfigError for a new one."""
    import pyarrow as pa

    if new := [name for name in columns if name not in schema.names]:
        raise ConfigError(f"The outputs of a later batch have the column {new[0]!r}, which the first had not.")
    nothing = [None] * count
    arrays = [_array(name, columns.get(name, nothing), schema.field(name).type) for name in schema.names]
    return pa.table(arrays, schema=schema)


def _array(name: str, values: Sequence[object], kind: "pa.DataType | None" = None) -> "pa.Array":
    """The values as an array of `kind`, or of the type that they tell. Raises ConfigError where they are of several."""
    import pyarrow as pa

    try:
        array = pa.array(values, type=kind)
        if kind is not None:
            pa.array(values).cast(kind)  # refuses the fraction that a whole number would be cut to
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise ConfigError(f"The column {name!r} of the saved outputs must hold values of one type: {error}.") from error
    return array


def _told(kind: "pa.DataType", name: str) -> "pa.DataType":
    """A type for a column; what holds nothing so far is text where it is known to be, else a number."""
    import pyarrow as pa

    if pa.types.is_null(kind):
        return pa.string() if name in TEXTS else pa.float64()
    return pa.list_(_told(kind.value_type, "")) if pa.types.is_list(kind) else kind


@singledispatch
def finite(value: object) -> object:
    """The value as JSON has it: null for a number that is not finite."""
    return value


@finite.register
def _(value: float) -> float | None:
    return value if math.isfinite(value) else None


@finite.register
def _(value: Mapping) -> dict[str, object]:  # type: ignore[type-arg]
    return {str(key): finite(part) for key, part in value.items()}


@finite.register(list)
@finite.register(tuple)
def _(value: Sequence[object]) -> list[object]:
    return [finite(part) for part in value]
