"""Cells in quotes, as spreadsheets write them (RFC 4180): where they end, and whether a file is written so.

A cell that begins with a quote ends at the next one that is not doubled; in between, separators and line ends are text.
Elsewhere quotes are text. A stray quote in text would swallow the lines behind it, so a record never goes on behind a
quote that is not closed as a spreadsheet closes it, and a table with tabs counts as quoted only where all of it is.
"""

import re
from collections import deque
from collections.abc import Iterator
from itertools import chain
from typing import NamedTuple, final

import numpy as np
import numpy.typing as npt

from etude.data.files.lines import Flaw, LineFile

QUOTE = '"'
MOST = 256
"""Lines that one cell may have."""
STRAY = Flaw("a cell begins with a quote that is not closed as spreadsheets do; data.quotes = false makes it text")
SIGNS = frozenset(",;")
"""What some spreadsheets put into quotes, whatever the separator."""
NUMBER = re.compile(r"[-+]?\d*[.,]?\d*")
INSIDE = '(?:[^"]|"")*+'
"""What stands in quotes; possessive, so that reading takes as long as the text is."""


class Cell(NamedTuple):
    """What a record holds between two separators."""

    text: str
    quoted: bool

    @classmethod
    def of(cls, found: re.Match[str]) -> "Cell":
        """Make one of what the grammar has found."""
        quoted, bare = found.groups()
        return cls(bare, quoted=False) if quoted is None else cls(quoted.replace('""', QUOTE), quoted=True)


@final
class Grammar:
    """How cells between separators are written."""

    def __init__(self, separator: str) -> None:
        self.separator = separator
        bare = f'(?!")[^{separator}]*+'
        self._cell = re.compile(f'(?:"({INSIDE})"|({bare})){separator}')
        self._open = re.compile(f'(?:(?:"{INSIDE}"|{bare}){separator})*+"{INSIDE}')

    def cells(self, record: str) -> list[Cell] | None:
        """Divide a record into its cells; None where a quote is not closed as spreadsheets close it."""
        text = record + self.separator
        found = list(self._cell.finditer(text))
        return [*map(Cell.of, found)] if sum(len(cell[0]) for cell in found) == len(text) else None

    def texts(self, record: str) -> list[str] | Flaw:
        """Read the texts of a record's cells, or say that one is not closed."""
        if QUOTE not in record:
            return record.split(self.separator)
        cells = self.cells(record)
        return STRAY if cells is None else [cell.text for cell in cells]

    def is_open(self, text: str) -> bool:
        """Tell whether a record that begins so is still inside of a quoted cell."""
        return QUOTE in text and self._open.fullmatch(text) is not None


class Record(NamedTuple):
    """A row of a table, in one line or several; or why it is none."""

    lines: int
    text: str | Flaw


class Records:
    """Puts lines together where a quoted cell goes on over their ends."""

    def __init__(self, lines: Iterator[str | Flaw], grammar: Grammar) -> None:
        self._lines, self._grammar = lines, grammar
        self._returned: deque[str | Flaw] = deque()

    def __iter__(self) -> Iterator[Record]:
        while (line := self._take()) is not None:
            match line:
                case str() if self._grammar.is_open(line):
                    yield self._joined(line)
                case one:
                    yield Record(1, one)

    def _take(self) -> str | Flaw | None:
        return self._returned.popleft() if self._returned else next(self._lines, None)

    def _joined(self, first: str) -> Record:
        """The record that begins with a line whose last cell is open: that line alone where nothing closes it well."""
        text, held = first, list[str | Flaw]()
        while len(held) < MOST and self._grammar.is_open(text) and (line := self._take()) is not None:
            held.append(line)
            text += f"\n{line}"
        if not any(isinstance(line, Flaw) for line in held) and self._grammar.cells(text) is not None:
            return Record(1 + len(held), text)
        self._returned.extendleft(reversed(held))
        return Record(1, first)


@final
class Layout:
    """Which lines go on with the record before them; records are numbered from 0 on."""

    def __init__(self, lines: LineFile, grammar: Grammar) -> None:
        self._lines, self._grammar = lines, grammar
        counts = (record.lines for record in Records(lines.decoded(0, len(lines)), grammar))
        continued = np.fromiter(chain.from_iterable(map(_continued, counts)), dtype=bool, count=len(lines)).nonzero()[0]
        self._before: npt.NDArray[np.int64] = continued - np.arange(len(continued))

    def __len__(self) -> int:
        return len(self._lines) - len(self._before)

    def line(self, record: int) -> int:
        """Give the line, from 0 on, that a record begins at."""
        return record + int(np.searchsorted(self._before, record, side="right"))

    def rows(self, start: int, stop: int) -> Iterator[list[str] | Flaw]:
        """Read the cells of records from `start` to before `stop`, or why one has none."""
        for record in Records(self._lines.decoded(self.line(start), self.line(stop)), self._grammar):
            yield self._grammar.texts(record.text) if isinstance(record.text, str) else record.text


def _continued(lines: int) -> list[bool]:
    """Tell of each line of a record whether it goes on with it."""
    return [False, *[True] * (lines - 1)]


def is_quoted(lines: LineFile, separator: str) -> bool:
    """Tell whether a table is written with quotes as spreadsheets write them, all of it.

    That is so where every quote fits and either every text is in quotes, the names of the columns included, or just
    those are that could not have been written otherwise.
    """
    grammar = Grammar(separator)
    seen = _Seen(grammar)
    records = Records(lines.decoded(0, len(lines)), grammar)
    return lines.holds(QUOTE) and all(seen.fits(record.text) for record in records) and seen.is_quoted


class _Seen:
    """What the records of a table so far tell of its quotes."""

    def __init__(self, grammar: Grammar) -> None:
        self._grammar = grammar
        self._columns = 0
        self._needed = self._spare = self._bare = False

    @property
    def is_quoted(self) -> bool:
        """Whether quotes must be a spreadsheet's."""
        return (self._needed and not self._spare) or not self._bare

    def fits(self, record: str | Flaw) -> bool:
        """Take in a record; False where it cannot have been written with quotes."""
        cells = self._grammar.cells(record) if isinstance(record, str) else []
        if cells is None or any(map(_is_text_with_quote, cells)):
            return False
        self._columns = self._columns or len(cells)
        self._needed |= any(map(self._needs_quotes, cells))
        self._spare |= any(map(self._could_do_without, cells))
        self._bare |= any(map(_is_bare, cells))
        return QUOTE not in str(record) or (len(cells) == self._columns and not self._are_rows(str(record)))

    def _needs_quotes(self, cell: Cell) -> bool:
        return cell.quoted and not {QUOTE, self._grammar.separator, "\n"}.isdisjoint(cell.text)

    def _could_do_without(self, cell: Cell) -> bool:
        return cell.quoted and not self._needs_quotes(cell) and SIGNS.isdisjoint(cell.text)

    def _are_rows(self, record: str) -> bool:
        """Tell whether lines that quotes would join are rows of as many cells, each alone: then the quotes are text."""
        lines = record.split("\n")
        return len(lines) > 1 and {line.count(self._grammar.separator) + 1 for line in lines} == {self._columns}


def _is_text_with_quote(cell: Cell) -> bool:
    return not cell.quoted and QUOTE in cell.text


def _is_bare(cell: Cell) -> bool:
    """Tell whether a text stands without quotes: no number, and not nothing."""
    return not cell.quoted and NUMBER.fullmatch(cell.text) is None
