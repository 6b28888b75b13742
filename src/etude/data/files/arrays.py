"""Arrays of numbers as samples, with cells beside them: .npy files that a table lists, one .npz, or lists of Parquet.

Shapes: N samples, T places of a sequence, F features.
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, final
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from etude.base.errors import DataError
from etude.base.files import sha256_of
from etude.base.paths import user_path
from etude.base.says import Say, unheard
from etude.data.files.lines import Flaw, shown
from etude.data.files.records import PARQUET, Cell, ParquetRecords, Records, Row, open_records, row_of

Array = NDArray[Any]
NPZ, NPY = ".npz", ".npy"
INPUT, LENGTHS = "x", "lengths"
"""The arrays of an .npz file that hold the samples, [N, F] or [N, T, F], and the places of each, [N]."""
SEQUENCE = 2
"""Dimensions of a sample that has places: [T, F]."""


class ArraySource(ABC):
    """Samples by number: an array each, and a row of cells."""

    records: Records
    """The cells."""

    @abstractmethod
    def arrays(self, start: int, stop: int) -> Iterator[Array | Flaw]:
        """Read the arrays of samples [T, F], a vector as one place; or why one cannot be used."""

    def fingerprint(self) -> str:
        """Give a sha256 of everything that decides what the samples are."""
        return self.records.fingerprint()

    def files(self) -> Iterator[Path]:
        """List further files that samples lie in."""
        return iter(())


@final
class ListedArrays(ArraySource):
    """Files that a column names, in folders beside the table."""

    def __init__(self, records: Records, column: str) -> None:
        self.records = records
        self._place = records.column(column, "data.array")
        self._folder = Path(records.place(0)[0]).parent

    def arrays(self, start: int, stop: int) -> Iterator[Array | Flaw]:
        """Read the files that rows name."""
        for row in self.records.rows(start, stop):
            yield row if isinstance(row, Flaw) else self._read(row[self._place])

    def _read(self, cell: Cell) -> Array | Flaw:
        return Flaw("the column of the array is empty") if cell is None else read_array(self._folder / cell)

    def fingerprint(self) -> str:
        """Give a sha256 of the table and of every file that it names."""
        digest = hashlib.sha256(self.records.fingerprint().encode())
        for file in self.files():
            digest.update((sha256_of(file) if file.is_file() else "-").encode())
        return digest.hexdigest()

    def files(self) -> Iterator[Path]:
        """List the files that the table names, in its order; its own folder where a row names none."""
        for row in self.records.rows(0, len(self.records)):
            path = None if isinstance(row, Flaw) else row[self._place]
            yield self._folder / (path or "")


@final
class ParquetArrays(ArraySource):
    """A column of lists of numbers, or of lists of them."""

    def __init__(self, records: ParquetRecords) -> None:
        self.records: ParquetRecords = records

    def arrays(self, start: int, stop: int) -> Iterator[Array | Flaw]:
        """Read the lists of rows."""
        return map(array_of, self.records.lists(start, stop))


@final
class NpzArrays(ArraySource):
    """One file whose `x` holds all samples; each other array is a column, one of [N, K] as `NAME.0`, `NAME.1`, ..."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with np.load(path, allow_pickle=False) as file:
                held: Mapping[str, Array] = {name: file[name] for name in file.files}
        except (OSError, ValueError, BadZipFile) as error:
            raise DataError(f"{shown(path)} cannot be read: {' '.join(str(error).split())}.") from error
        if INPUT not in held:
            raise DataError(f'{shown(path)} must hold an array "{INPUT}", but has {", ".join(held) or "none"}.')
        self._x, self._lengths = held[INPUT], held.get(LENGTHS)
        columns = {name: array for name, array in held.items() if name not in {INPUT, LENGTHS}}
        wrong = next((name for name, array in held.items() if not array.ndim or len(array) != len(self._x)), None)
        if wrong is not None or not len(self._x):
            raise DataError(f"{shown(path)}: {wrong or INPUT} must have as many entries as {INPUT}, and at least one.")
        self.records = NpzRecords(path, columns, len(self._x))

    def arrays(self, start: int, stop: int) -> Iterator[Array | Flaw]:
        """Give the entries of `x`, without what lies behind their lengths."""
        for index in range(start, stop):
            value = self._x[index]
            yield array_of(value if self._lengths is None else value[: int(self._lengths[index])])


@final
class NpzRecords(Records):
    """The arrays of an .npz file beside its samples, as columns."""

    def __init__(self, path: Path, arrays: Mapping[str, Array], size: int) -> None:
        self._path, self._size = path, size
        self._columns: dict[str, Array] = {}
        for name, array in arrays.items():
            wide = array.ndim == SEQUENCE
            self._columns |= {f"{name}.{k}": array[:, k] for k in range(array.shape[1])} if wide else {name: array}
        self.names = list(self._columns)

    def __len__(self) -> int:
        return self._size

    def rows(self, start: int, stop: int) -> Iterator[Row | Flaw]:
        """Read the rows from `start` to before `stop`."""
        for index in range(start, stop):
            yield row_of({name: column[index].item() for name, column in self._columns.items()}, self.names)

    def place(self, index: int, side: str = "") -> tuple[str, int]:
        """Give the file and the number (counted from 1) of a sample."""
        del side
        return str(self._path), index + 1

    def fingerprint(self) -> str:
        """Give a sha256 of the file."""
        return hashlib.sha256(json.dumps(["npz", sha256_of(self._path)]).encode()).hexdigest()


def open_arrays(path: Path, column: str, *, cache: Path, notice: Say = unheard, key: str) -> ArraySource:
    """Open a file of arrays; `column` holds lists of numbers, or the names of files of them.

    Raises DataError, naming the file, where it is missing, empty, or of an unknown kind.
    """
    path = user_path(path)
    if not path.exists():
        raise DataError(f"{key} names {shown(path)}, which does not exist.")
    kind = path.suffix.lower()
    if kind == NPZ:
        return NpzArrays(path)
    if kind in PARQUET:
        return _of_parquet(path, column)
    return ListedArrays(open_records(path, cache=cache, notice=notice, key=key), column)


def _of_parquet(path: Path, column: str) -> ArraySource:
    """Lists of numbers or, where the column holds text, names of files."""
    records = ParquetRecords(path, column)
    if column in records.names:
        return ListedArrays(records, column)
    if not records.has_lists:
        raise DataError(f'{shown(path)} has no column "{shown(column)}": data.array names that of the arrays.')
    return ParquetArrays(records)


def read_array(path: Path) -> Array | Flaw:
    """Read the array of an .npy file, [T, F], or say why it is none."""
    try:
        return array_of(np.load(path, allow_pickle=False))
    except FileNotFoundError:
        return Flaw(f"{shown(path)} does not exist")
    except (OSError, ValueError, EOFError) as error:
        return Flaw(f"{shown(path)} cannot be read: {' '.join(str(error).split())}")


def array_of(value: object) -> Array | Flaw:
    """Numbers [F] or [T, F] as [T, F] in float64, or why they are none."""
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        return Flaw("the array does not hold numbers of one shape")
    if array.ndim not in {1, SEQUENCE}:
        return Flaw(f"the array has {array.ndim} dimensions, but must have 1 or 2")
    array = array.reshape(-1, array.shape[-1])
    if not array.size:
        return Flaw("the array is empty")
    return array if np.isfinite(array).all() else Flaw("the array holds NaN or infinity")
