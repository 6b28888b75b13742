"""A table of columns, prepared once, into files that are mapped into memory.

A folder of the cache holds one table. It is named by all that decides its content, written beside its place and
renamed when it is whole, so that a reader finds all of it or nothing.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from etude.base.errors import DataError
from etude.base.says import Say, unheard
from etude.data.files.lines import Flaw
from etude.data.files.skipped import BadSampleError, Origin, Policy, check_skipped
from etude.data.store.columns import Array, Column, ColumnWriter, FixedReader, Ints, Kind, Part, VaryingReader, readers
from etude.data.store.folders import FolderWriter, is_whole, manifest_of, place_of, prepared
from etude.data.store.progress import Report, unreported
from etude.data.store.skips import Skip, SkipWriter, skips_of

FORMAT = 3


class Chunk(NamedTuple):
    """What became of some samples in a row."""

    parts: Sequence[Part]
    """Their rows, by column."""
    flaws: Sequence[tuple[int, Flaw]] = ()
    """The samples that cannot be used, by number."""


class Wanted(NamedTuple):
    """A table that is wanted."""

    key: str
    """A sha256 of all that decides its content."""
    columns: Sequence[Column]
    origin: Origin
    """The samples that it is made of."""
    policy: Policy


@final
class Table:
    """The rows of a prepared table by number; nothing of them is held in memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        manifest = manifest_of(folder)
        self.fingerprint: str = manifest["key"]
        self.samples: int = manifest["samples"]
        """How many samples it was made of, those that were left out included."""
        self.columns = {name: Column(name, Kind(kind), *rest) for name, kind, *rest in manifest["columns"]}
        self._rows: int = manifest["rows"]
        self._totals: dict[str, int] = manifest["totals"]
        self._readers = readers(folder, list(self.columns.values()))
        self._skipped = np.array([skip.sample for skip in self.skips()], dtype=np.int64)

    def __len__(self) -> int:
        return self._rows

    def __reduce__(self) -> tuple[type["Table"], tuple[Path]]:
        """Let another process map the same files instead of getting a copy."""
        return Table, (self.folder,)

    @property
    def skipped(self) -> int:
        """How many samples were left out."""
        return len(self._skipped)

    def skips(self) -> Iterator[Skip]:
        """Give the samples that were left out, in their order."""
        return skips_of(self.folder)

    def lengths(self, column: str) -> NDArray[np.int32]:
        """Give how many places each row has in a column of varying length: [rows], mapped."""
        return self._varying(column).lengths

    def total(self, column: str) -> int:
        """Give how many places all rows have in a column, or of a fixed one of whole numbers their sum."""
        return self._totals[column]

    def gather(self, column: str, indices: Ints) -> tuple[Array, Ints]:
        """Give the values of rows one after the other [sum of lengths], tokens as int64, and their lengths [rows]."""
        values, lengths = self._varying(column).gather(indices)
        return (values.astype(np.int64) if self.columns[column].kind is Kind.tokens else values), lengths

    def rows(self, column: str, indices: Ints) -> list[Array]:
        """Give the values of each row, as they are stored."""
        return self._varying(column).rows(indices)

    def values(self, column: str, indices: Ints) -> Array:
        """Give the value of each row in a fixed column: [rows]."""
        reader = self._readers[column]
        assert isinstance(reader, FixedReader), f"{column} varies in length"
        return np.asarray(reader.values[indices])

    def texts(self, column: str, indices: Ints) -> list[str]:
        """Give the text of each row."""
        values, lengths = self._varying(column).gather(indices)
        return [part.tobytes().decode() for part in np.split(values, np.cumsum(lengths)[:-1])] if len(indices) else []

    def origin(self, row: int) -> int:
        """Give which sample a row is of, where each sample that can be used is one row."""
        # Skip j (from 0) has skipped[j] - j rows before it: a row comes after every skip that has no more before it.
        before = self._skipped - np.arange(len(self._skipped))
        return row + int(np.searchsorted(before, row, side="right"))

    def _varying(self, column: str) -> VaryingReader:
        reader = self._readers[column]
        assert isinstance(reader, VaryingReader), f"{column} has one value a row"
        return reader


class TableWriter:
    """The files of a table that is being written; memory does not grow with them."""

    def __init__(self, columns: Sequence[Column], folder: FolderWriter) -> None:
        self.rows = 0
        self._columns, self._folder = columns, folder
        self._writers = [ColumnWriter(column, folder) for column in columns]
        self._skips = SkipWriter(folder)

    @property
    def skipped(self) -> int:
        """How many samples were left out so far."""
        return self._skips.count

    def add(self, chunk: Chunk) -> None:
        """Write further rows."""
        for writer, part in zip(self._writers, chunk.parts, strict=True):
            writer.add(part)
        for sample, flaw in chunk.flaws:
            self._skips.add(Skip(sample, flaw.side, flaw.reason))
        self.rows += len(chunk.parts[0])

    def close(self, samples: int) -> None:
        """Make every file durable, and say what is there."""
        totals = {column.name: writer.total for column, writer in zip(self._columns, self._writers, strict=True)}
        facts = {"rows": self.rows, "samples": samples, "columns": self._columns, "totals": totals}
        self._folder.close(facts)


def prepare_table(
    kind: str,
    wanted: Wanted,
    cache: Path,
    chunks: Callable[[], Generator[Chunk, None, None]],
    *,
    report: Report = unreported,
    notice: Say = unheard,
) -> Table:
    """Write what `chunks` gives into the folder `cache`, or open what an earlier call has made of the same content.

    `kind` names the part of the cache. Raises BadSampleError at the first sample that cannot be used or, where the
    policy leaves them out, DataError once more than its `max_skipped` are; StorageError where the cache cannot be
    written.
    """

    def opened(place: Path) -> Table | None:
        return Table(place) if is_whole(place, FORMAT, wanted.key) else None

    def write(place: Path) -> None:
        with FolderWriter(place, FORMAT, wanted.key) as folder, closing(chunks()) as made:
            _write(made, TableWriter(wanted.columns, folder), wanted, report)

    table = prepared(place_of(cache, kind, wanted.key, FORMAT), opened, write, notice)
    check_skipped(table.skipped, wanted.origin, wanted.policy)
    return table


def _write(chunks: Iterator[Chunk], writer: TableWriter, wanted: Wanted, report: Report) -> None:
    origin, policy = wanted.origin, wanted.policy
    for chunk in chunks:
        if chunk.flaws and not policy.skips:
            sample, flaw = chunk.flaws[0]
            raise BadSampleError(*origin.place(sample, flaw.side), flaw.reason)
        writer.add(chunk)
        check_skipped(writer.skipped, origin, policy)
        report(writer.rows + writer.skipped, len(origin))
    if not writer.rows:
        raise DataError(f"{origin.place(0)[0]} holds no sample that can be used.")
    writer.close(len(origin))
