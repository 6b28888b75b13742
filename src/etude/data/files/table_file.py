"""Pairs in two columns of a file: tables with tabs, and what spreadsheets write."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from itertools import filterfalse
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar, final

from etude.base.errors import DataError
from etude.base.files import make_folder
from etude.base.hashes import sealed_or_empty, write_sealed
from etude.base.says import Say
from etude.data.files.header import Choice, place_of, places_of, read_header
from etude.data.files.lines import Flaw, LineFile, shown
from etude.data.files.names import PAIRED, ColumnName, Roles
from etude.data.files.pair_sources import NumberedPairs, Pair, pair_of
from etude.data.files.quotes import QUOTE, Grammar, Layout, is_quoted
from etude.data.files.skipped import BadSampleError

T = TypeVar("T", str, list[str])
TAB = "\t"
COMMAS = (",", ";", TAB)
"""What may separate the columns of a .csv file: a spreadsheet takes the semicolon where numbers have a comma."""


class TableForm(NamedTuple):
    """How tables are written, as `[data]` says."""

    header: Choice = "auto"
    """Whether the first line names the columns."""
    quotes: Choice = "auto"
    """Whether cells may stand in quotes, as spreadsheets write them."""


AS_WRITTEN = TableForm()


class Rows(Protocol):
    """The cells of a table, row by row, a line of names included."""

    def __len__(self) -> int: ...

    def line(self, record: int) -> int:
        """Give the line, from 0 on, that a row begins at."""

    def rows(self, start: int, stop: int) -> Iterator[list[str] | Flaw]:
        """Read the cells of rows from `start` to before `stop`, or why one has none."""


@final
class PlainRows:
    """A row a line, in which every character but the separator is text."""

    def __init__(self, lines: LineFile, separator: str) -> None:
        self._lines, self._separator = lines, separator

    def __len__(self) -> int:
        return len(self._lines)

    def line(self, record: int) -> int:
        """Give the line that a row begins at: its own."""
        return record

    def rows(self, start: int, stop: int) -> Iterator[list[str] | Flaw]:
        """Read the cells of rows from `start` to before `stop`, or why one has none."""
        for line in self._lines.decoded(start, stop):
            yield line if isinstance(line, Flaw) else line.split(self._separator)


@final
class TableFile(NumberedPairs):
    """Pairs in two columns of a file whose columns are separated by tabs or, in a .csv file, by commas.

    Columns are named by the first line. Where it has two columns and neither has the expected name, or where columns
    are given by number, there are no names and the first line is a pair; `form` may say which.
    """

    def __init__(
        self,
        lines: LineFile,
        wanted: tuple[ColumnName, ColumnName],
        notice: Say,
        form: TableForm = AS_WRITTEN,
        cache: Path | None = None,
        roles: Roles = PAIRED,
    ) -> None:
        self._lines, self._roles = lines, roles
        commas = lines.path.suffix.lower() == ".csv"
        first = _good(lines.path, next(lines.decoded(0, 1)))
        self._separator = separator_of(first, wanted) if commas else TAB
        self._quoted = lines.holds(QUOTE) and takes_quotes(lines, self._separator, form.quotes, cache, commas=commas)
        self._rows = rows_of(lines, self._separator, quoted=self._quoted)
        self._names = _good(lines.path, next(self._rows.rows(0, 1)))
        self.columns, self._first = read_header(lines.path, self._names, wanted, form.header, notice, roles)
        self._needed = max(self.columns) + 1
        if not len(self):
            raise DataError(f"{shown(lines.path)} has a line of column names, but no rows.")
        self._say(form, notice)

    @property
    def named(self) -> bool:
        """Whether its first line names the columns."""
        return bool(self._first)

    @property
    def turned(self) -> bool:
        """Whether its names stand in another order than both texts in a file without."""
        return self.named and self.columns != (0, 1)

    @property
    def path(self) -> Path:
        """Where it lies."""
        return self._lines.path

    def _say(self, form: TableForm, notice: Say) -> None:
        if self._separator == ";":
            notice(f"{shown(self.path)} has semicolons between its columns.")
        if form.quotes == "auto" and self._quoted:
            notice(
                f"{shown(self.path)} has cells in quotes, as spreadsheets write them, which are read without them; "
                "data.quotes = false keeps them as text."
            )

    def __len__(self) -> int:
        return len(self._rows) - self._first

    def rows(self, start: int, stop: int) -> Iterator[Pair | Flaw]:
        """Read the pairs from `start` to before `stop`, or why one cannot be used."""
        source, target = self.columns
        needed, roles = self._needed, self._roles
        for cells in self._rows.rows(start + self._first, stop + self._first):
            if isinstance(cells, Flaw):
                yield cells
                continue
            yield pair_of(cells[source], cells[target], roles) if len(cells) >= needed else _too_few(cells, needed)

    def has_column(self, name: ColumnName) -> bool:
        """Tell whether there is another column of this name or number."""
        if isinstance(name, int):
            return name <= len(self._names)
        return bool(self._first) and place_of(self.path, self._names, name) is not None

    def column(self, name: ColumnName, start: int, stop: int) -> Iterator[object]:
        """Read another column of the samples from `start` to before `stop`: text, or a Flaw."""
        place = self._place(name)
        for row in self._rows.rows(start + self._first, stop + self._first):
            cells = [] if isinstance(row, Flaw) else row
            yield cells[place] if place < len(cells) else Flaw(f"the line has {len(cells)} columns")

    def _place(self, name: ColumnName) -> int:
        """Find a column, from 0."""
        match name:
            case int():
                return name - 1
            case _ if self._first and (place := place_of(self.path, self._names, name)) is not None:
                return place
        listed = ", ".join(f'"{shown(one, 40)}"' for one in self._names[:10]) if self._first else "no names"
        raise DataError(f'{shown(self.path)} has no column "{shown(name)}"; its first line has {listed}.')

    def place(self, index: int, side: str = "source") -> tuple[str, int]:
        """Give the file and the line (counted from 1) of a pair."""
        del side
        return str(self.path), self._rows.line(index + self._first) + 1

    def fingerprint(self) -> str:
        """Give a sha256 of everything that decides what the pairs are."""
        parts = ["table", self._lines.sha256, self.columns, self._first]
        if self._quoted or self._separator != TAB:
            parts += [self._separator, self._quoted]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def check_directions(tables: list[TableFile], key: str, roles: Roles = PAIRED) -> None:
    """Refuse files one after the other of which one names its columns in another order than one without names has."""
    turned = next(filter(attrgetter("turned"), tables), None)
    unnamed = next(filterfalse(attrgetter("named"), tables), None)
    if turned is not None and unnamed is not None:
        first, second = roles.names
        raise DataError(
            f"{key}: the columns of {shown(turned.path)} are named, {first} {turned.columns[0] + 1} and {second} "
            f"{turned.columns[1] + 1}, but {shown(unnamed.path)} names none, and its first column would be the "
            f"{first}: give both files their names, or data.{first} and data.{second} as numbers."
        )


def _good(path: Path, read: T | Flaw) -> T:
    """Give the first line of a file; raise BadSampleError where it is no text."""
    if isinstance(read, Flaw):
        raise BadSampleError(str(path), 1, read.reason)
    return read


def rows_of(lines: LineFile, separator: str, *, quoted: bool) -> Rows:
    """Divide lines into the cells of a table."""
    return Layout(lines, Grammar(separator)) if quoted else PlainRows(lines, separator)


def separator_of(first: str, wanted: Sequence[ColumnName]) -> str:
    """Find what separates the columns of a .csv file by its first line: what gives the wanted names, or most cells."""

    def fit(sign: str) -> tuple[int, int]:
        cells = list(Grammar(sign).texts(first))
        return sum(bool(places_of(cells, str(name))) for name in wanted), len(cells)

    return max(COMMAS, key=fit)


def takes_quotes(lines: LineFile, separator: str, quotes: Choice, cache: Path | None, *, commas: bool) -> bool:
    """Tell whether cells may stand in quotes; of a table with tabs all of it says so, which is remembered."""
    if quotes != "auto":
        return quotes
    if commas:
        return True
    if cache is None:
        return is_quoted(lines, separator)
    known = cache / "quotes" / f"{lines.sha256}.json"
    match sealed_or_empty(known):
        case {"quoted": bool() as quoted}:
            return quoted
    quoted = is_quoted(lines, separator)
    make_folder(known.parent)
    write_sealed(known, {"quoted": quoted})
    return quoted


def _too_few(cells: list[str], needed: int) -> Flaw:
    counted = f"{len(cells)} column{'s'[: len(cells) != 1]}" if any(cells) else "no text"
    return Flaw(f"the line has {counted}, but {needed} columns are needed")
