"""The columns of a prepared table: what each holds, how it is written, and how it is read by row.

A column of varying length holds any number of values in a row, a fixed one a single value. Values lie one row after
the other in a file that is mapped into memory; of a varying column two more say where each row starts, and its length.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from etude.base.errors import StorageError
from etude.data.store.folders import FolderWriter

Array = NDArray[Any]
Ints = NDArray[np.int64]


class Kind(StrEnum):
    """What a column holds."""

    tokens = "tokens"
    """Ids of a tokenizer."""
    audio = "audio"
    """A waveform, sampled."""
    label = "label"
    """One class, by its number."""
    number = "number"
    """One number."""
    text = "text"
    """UTF-8."""
    frames = "frames"
    """`width` numbers at each of a row's places: features, an alignment, a mask."""


FIXED = frozenset({Kind.label, Kind.number})


class Column(NamedTuple):
    """What one column is."""

    name: str
    kind: Kind
    dtype: str
    width: int = 1

    @property
    def varies(self) -> bool:
        """Whether rows differ in length."""
        return self.kind not in FIXED


def id_type(size: int) -> str:
    """Name the smallest type that holds every id of a vocabulary of `size`."""
    return "uint16" if size <= 1 << 16 else "uint32"


def tokens(name: str, size: int) -> Column:
    """Make a column of ids of a vocabulary of `size`, in the smallest type that holds them."""
    return Column(name, Kind.tokens, id_type(size))


def audio(name: str, dtype: str = "float32") -> Column:
    """Make a column of waveforms."""
    return Column(name, Kind.audio, dtype)


def frames(name: str, width: int = 1, dtype: str = "float32") -> Column:
    """Make a column of `width` numbers a place."""
    return Column(name, Kind.frames, dtype, width)


def label(name: str) -> Column:
    """Make a column of classes."""
    return Column(name, Kind.label, "int32")


def number(name: str, dtype: str = "float64") -> Column:
    """Make a column of numbers."""
    return Column(name, Kind.number, dtype)


def text(name: str) -> Column:
    """Make a column of texts."""
    return Column(name, Kind.text, "uint8")


class Part(NamedTuple):
    """Some rows of one column."""

    values: Array
    """Of all rows, one after the other: [sum of lengths], with a width [sum of lengths, width]; fixed: [rows]."""
    lengths: NDArray[np.int32] | None = None
    """[rows]; None of a fixed column."""

    @classmethod
    def of(cls, column: Column, rows: Sequence[Sequence[Any]]) -> "Part":
        """Lay rows, each a sequence of values, one after the other."""
        lengths = np.array([len(row) for row in rows], dtype=np.int32)
        values = np.concatenate([np.zeros(0, column.dtype), *(np.asarray(row, column.dtype).ravel() for row in rows)])
        return cls(values.astype(column.dtype, copy=False), lengths)

    @classmethod
    def of_texts(cls, rows: Sequence[str]) -> "Part":
        """Lay texts one after the other."""
        encoded = [row.encode() for row in rows]
        lengths = np.array([len(row) for row in encoded], dtype=np.int32)
        return cls(np.frombuffer(b"".join(encoded), dtype=np.uint8), lengths)

    def __len__(self) -> int:
        return len(self.values if self.lengths is None else self.lengths)


class ColumnWriter:
    """The files of a column that is being written; memory does not grow with them."""

    def __init__(self, column: Column, folder: FolderWriter) -> None:
        self._column = column
        self._whole = np.issubdtype(np.dtype(column.dtype), np.integer)
        self._values = folder.open(f"{column.name}.values")
        self._starts = self._lengths = None
        self.total = 0
        """Places of all rows, or of a fixed column of whole numbers their sum."""
        if column.varies:
            self._starts, self._lengths = folder.open(f"{column.name}.starts"), folder.open(f"{column.name}.lengths")
            self._starts.write(np.zeros(1, dtype=np.int64).tobytes())

    def add(self, part: Part) -> None:
        """Write further rows."""
        self._values.write(part.values.astype(self._column.dtype, copy=False).tobytes())
        if self._starts is None or self._lengths is None or part.lengths is None:
            self.total += int(part.values.sum()) if self._whole else 0
            return
        ends = np.cumsum(part.lengths, dtype=np.int64) + self.total
        self._lengths.write(part.lengths.astype(np.int32, copy=False).tobytes())
        self._starts.write(ends.astype(np.int64, copy=False).tobytes())
        self.total = int(ends[-1]) if len(ends) else self.total


class FixedReader:
    """One value a row, mapped."""

    def __init__(self, folder: Path, column: Column) -> None:
        self.values = mapped(folder / f"{column.name}.values", column.dtype)

    def __len__(self) -> int:
        return len(self.values)


class VaryingReader:
    """Rows that differ in length, mapped."""

    def __init__(self, folder: Path, column: Column) -> None:
        self._name = folder / column.name
        self.values = mapped(folder / f"{column.name}.values", column.dtype)
        if column.kind is Kind.frames and column.width > 1:
            self.values = self.values.reshape(-1, column.width)
        self.starts = mapped(folder / f"{column.name}.starts", "int64")
        self.lengths = mapped(folder / f"{column.name}.lengths", "int32")

    def __len__(self) -> int:
        return len(self.lengths)

    def rows(self, indices: Ints) -> list[Array]:
        """Give a copy of each row, which for long ones is quicker than to gather them."""
        starts = self.starts[indices]
        spans = zip(starts.tolist(), (starts + self.lengths[indices]).tolist(), strict=True)
        found = [self.values[start:end].copy() for start, end in spans]
        if [len(row) for row in found] != self.lengths[indices].tolist():
            raise self._damaged()
        return found

    def gather(self, indices: Ints) -> tuple[Array, Ints]:
        """Give the values of rows one after the other, and how many each has."""
        lengths = self.lengths[indices].astype(np.int64)
        ends = np.cumsum(lengths)
        total = int(ends[-1]) if len(ends) else 0
        try:
            places = np.arange(total) + np.repeat(self.starts[indices] - (ends - lengths), lengths)
            return self.values[places], lengths
        except (IndexError, ValueError) as error:  # what was right when it was opened is so no more
            raise self._damaged() from error

    def _damaged(self) -> StorageError:
        return StorageError(f"{self._name} is damaged: a row lies outside of its values.")


def readers(folder: Path, columns: Sequence[Column]) -> Mapping[str, FixedReader | VaryingReader]:
    """Open columns by name."""
    return {column.name: (VaryingReader if column.varies else FixedReader)(folder, column) for column in columns}


def mapped(path: Path, dtype: str) -> Array:
    """Map a file as a plain array, which is quicker to index than a map; one without content is an empty array."""
    if not path.stat().st_size:
        return np.zeros(0, dtype=dtype)
    return np.memmap(path, dtype=dtype, mode="r").view(np.ndarray)
