"""Rows of named cells from tables, JSON lines and Parquet: samples whose columns are their inputs and targets."""

import hashlib
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from etude.base.errors import DataError
from etude.base.files import sha256_of
from etude.base.paths import user_path
from etude.base.says import Say, unheard
from etude.data.files.header import Choice, place_of
from etude.data.files.json_lines import JSON_LINES, as_cell, is_text, json_object
from etude.data.files.lines import Flaw, LineFile, shown
from etude.data.files.quotes import QUOTE
from etude.data.files.skipped import BadSampleError
from etude.data.files.table_file import TAB, rows_of, separator_of, takes_quotes

if TYPE_CHECKING:
    import pyarrow as pa

Cell = str | None
"""What stands in a column; None where nothing does."""
Row = Sequence[Cell]
TABLES = (".tsv", ".txt", ".csv")
PARQUET = (".parquet", ".pq")
NOTHING = frozenset({"nan"})
"""What stands for nothing in a column, beside white space, in lower case: what pandas writes for a missing number."""
LISTED = 10
BLOCK = 1024


def cell_of(text: str) -> Cell:
    """The cell of a text: without white space around it, and None for nothing."""
    text = text.strip()
    return None if not text or text.lower() in NOTHING else text


class Records(ABC):
    """Samples by number, each a row of cells in the order of `names`."""

    names: Sequence[str]
    """Of the columns; each once."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def rows(self, start: int, stop: int) -> Iterator[Row | Flaw]:
        """Read the rows from `start` to before `stop`, or why one cannot be used."""

    @abstractmethod
    def place(self, index: int, side: str = "") -> tuple[str, int]:
        """Give the file and the line (counted from 1) of a sample; of Parquet its row."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Give a sha256 of everything that decides what the rows are."""

    def location(self, index: int) -> str:
        """Say where a sample stands: `people.csv, line 14`."""
        file, line = self.place(index)
        return f"{shown(file)}, line {line}"

    def column(self, name: str, key: str) -> int:
        """Find a column, by its name in any case. Raises DataError, naming the `key` of the config, where it is not."""
        file = self.place(0)[0]
        found = place_of(Path(file), [*self.names], name)
        if found is None:
            listed = ", ".join(f'"{shown(one, 40)}"' for one in self.names[:LISTED])
            more = ", ..." if len(self.names) > LISTED else ""
            raise DataError(f'{key} names "{shown(name)}", but {shown(file)} has the columns {listed}{more}.')
        return found


@final
class TableRecords(Records):
    """Rows of a table whose first line names the columns."""

    def __init__(self, lines: LineFile, notice: Say, quotes: Choice = "auto", cache: Path | None = None) -> None:
        self._lines = lines
        commas = lines.path.suffix.lower() == ".csv"
        first = _good(lines.path, next(lines.decoded(0, 1)))
        self._separator = separator_of(str(first), ()) if commas else TAB
        self._quoted = lines.holds(QUOTE) and takes_quotes(lines, self._separator, quotes, cache, commas=commas)
        self._rows = rows_of(lines, self._separator, quoted=self._quoted)
        self._header = [cell.strip() for cell in _good(lines.path, next(self._rows.rows(0, 1)))]
        self._places = [place for place, name in enumerate(self._header) if name]
        self.names = _names(lines.path, [self._header[place] for place in self._places])
        if len(self._places) < len(self._header):
            notice(f"{shown(lines.path)}, line 1: columns without a name are left out.")
        if not len(self):
            raise DataError(f"{shown(lines.path)} has a line of column names, but no rows.")

    def __len__(self) -> int:
        return len(self._rows) - 1

    def rows(self, start: int, stop: int) -> Iterator[Row | Flaw]:
        """Read the rows from `start` to before `stop`, or why one cannot be used."""
        for cells in self._rows.rows(start + 1, stop + 1):
            yield cells if isinstance(cells, Flaw) else self._row(cells)

    def _row(self, cells: list[str]) -> Row | Flaw:
        if len(cells) != len(self._header):
            counted = f"{len(cells)} column{'s'[: len(cells) != 1]}" if any(cells) else "no text"
            return Flaw(f"the line has {counted}, but the first line names {len(self._header)}")
        return [cell_of(cells[place]) for place in self._places]

    def place(self, index: int, side: str = "") -> tuple[str, int]:
        """Give the file and the line (counted from 1) of a sample."""
        del side
        return str(self._lines.path), self._rows.line(index + 1) + 1

    def fingerprint(self) -> str:
        """Give a sha256 of everything that decides what the rows are."""
        return _digest("table", self._lines.sha256, self._separator, self._quoted)


@final
class JsonRecords(Records):
    """Rows of a file that holds a JSON object a line; a field that an object lacks is an empty cell."""

    def __init__(self, lines: LineFile) -> None:
        self._lines = lines
        found: dict[str, None] = {}
        for line in lines.decoded(0, len(lines)):
            match line if isinstance(line, Flaw) else json_object(line):
                case dict() as fields:
                    found.update(dict.fromkeys(fields))
        self.names = [*found]
        if not found:
            raise DataError(f"{shown(lines.path)} holds no JSON object with a field.")

    def __len__(self) -> int:
        return len(self._lines)

    def rows(self, start: int, stop: int) -> Iterator[Row | Flaw]:
        """Read the rows from `start` to before `stop`, or why one cannot be used."""
        for line in self._lines.decoded(start, stop):
            found = line if isinstance(line, Flaw) else json_object(line)
            yield found if isinstance(found, Flaw) else row_of(found, self.names)

    def place(self, index: int, side: str = "") -> tuple[str, int]:
        """Give the file and the line (counted from 1) of a sample."""
        del side
        return str(self._lines.path), index + 1

    def fingerprint(self) -> str:
        """Give a sha256 of everything that decides what the rows are."""
        return _digest("json", self._lines.sha256)


@final
class ParquetRecords(Records):
    """Rows of a Parquet file; needs pyarrow. Columns of lists are none of the cells; `lists` is read beside."""

    def __init__(self, path: Path, lists: str | None = None) -> None:
        self._path, self._lists = path, lists
        try:
            import pyarrow as pa
            import pyarrow.parquet as pq
        except ImportError as error:
            raise DataError(f"{shown(path)} is Parquet, which needs pyarrow: pip install pyarrow.") from error
        try:
            self._file = pq.ParquetFile(path)
            self._sha256 = sha256_of(path)
        except (pa.ArrowInvalid, OSError) as error:
            raise DataError(f"{shown(path)} cannot be read: {' '.join(str(error).split())}.") from error
        plain = [one.name for one in self._file.schema_arrow if not pa.types.is_nested(one.type)]
        self.names = _names(path, plain)
        if not len(self):
            raise DataError(f"{shown(path)} has no rows.")

    def __len__(self) -> int:
        return int(self._file.metadata.num_rows)

    def rows(self, start: int, stop: int) -> Iterator[Row | Flaw]:
        """Read the rows from `start` to before `stop`, or why one cannot be used."""
        return (row_of(fields, self.names) for fields in islice(self._from(start), stop - start))

    @property
    def has_lists(self) -> bool:
        """Whether there is the column `lists`."""
        return self._lists in self._file.schema_arrow.names

    def lists(self, start: int, stop: int) -> Iterator[object]:
        """Read the column of lists, from `start` to before `stop`."""
        assert self._lists is not None
        return (fields[self._lists] for fields in islice(self._from(start), stop - start))

    def _from(self, start: int) -> Iterator[dict[str, Any]]:
        """Read the rows from `start` on, a block at a time; row groups before it are not read."""
        begin = 0
        for group in range(self._file.num_row_groups):
            end = begin + self._file.metadata.row_group(group).num_rows
            if end > start:
                yield from self._of_group(group, max(0, start - begin))
            begin = end

    def _of_group(self, group: int, skipped: int) -> Iterator[dict[str, Any]]:
        for batch in self._file.iter_batches(BLOCK, row_groups=[group]):
            block: pa.RecordBatch = batch
            if skipped < len(block):
                yield from block.slice(skipped).to_pylist()
            skipped = max(0, skipped - len(block))

    def place(self, index: int, side: str = "") -> tuple[str, int]:
        """Give the file and the row (counted from 1) of a sample."""
        del side
        return str(self._path), index + 1

    def fingerprint(self) -> str:
        """Give a sha256 of everything that decides what the rows are."""
        return _digest("parquet", self._sha256)


@final
class JoinedRecords(Records):
    """Several files one after the other; the first decides which columns there are."""

    def __init__(self, parts: Sequence[Records]) -> None:
        self._parts = parts
        self.names = parts[0].names
        self._places = [[part.column(name, "a file before it") for name in self.names] for part in parts]
        self._ends = [*accumulate(map(len, parts))]

    def __len__(self) -> int:
        return self._ends[-1]

    def rows(self, start: int, stop: int) -> Iterator[Row | Flaw]:
        """Read the rows from `start` to before `stop`, or why one cannot be used."""
        begin = 0
        for part, places, end in zip(self._parts, self._places, self._ends, strict=True):
            if start < end and stop > begin:
                for row in part.rows(max(start, begin) - begin, min(stop, end) - begin):
                    yield row if isinstance(row, Flaw) else [row[place] for place in places]
            begin = end

    def place(self, index: int, side: str = "") -> tuple[str, int]:
        """Give the file and the line (counted from 1) of a sample."""
        begin = 0
        for part, end in zip(self._parts, self._ends, strict=True):
            if index < end:
                return part.place(index - begin, side)
            begin = end
        raise IndexError(index)

    def fingerprint(self) -> str:
        """Give a sha256 of everything that decides what the rows are."""
        return _digest("joined", *(part.fingerprint() for part in self._parts))


def open_records(
    files: Path | Sequence[Path], *, quotes: Choice = "auto", cache: Path | None = None, notice: Say = unheard, key: str
) -> Records:
    """Open a file of rows, or several one after the other; `key` is what the config calls them.

    Raises DataError, naming the file, where one is missing, empty, or of an unknown kind.
    """
    paths = [user_path(files)] if isinstance(files, Path) else [*map(user_path, files)]
    for path in paths:
        if not os.path.lexists(path):
            raise DataError(f"{key} names {shown(path)}, which does not exist.")
    parts = [_opened(path, quotes, cache, notice) for path in paths]
    return parts[0] if len(parts) == 1 else JoinedRecords(parts)


def generated_records(name: str, key: str, cache: Path, notice: Say = unheard) -> Records:
    """Write a generated corpus into the cache, and open the part of it that `key` (`data.train`) asks for."""
    from etude.data.corpora import generate

    made = generate(name, cache / "corpora" / name, notice=notice)
    return open_records(made[key.rpartition(".")[2]], quotes=False, cache=cache, notice=notice, key=key)


def _opened(path: Path, quotes: Choice, cache: Path | None, notice: Say) -> Records:
    kind = path.suffix.lower()
    if kind in TABLES:
        return TableRecords(LineFile(path, cache), notice, quotes, cache)
    if kind in JSON_LINES:
        return JsonRecords(LineFile(path, cache))
    if kind in PARQUET:
        return ParquetRecords(path)
    raise DataError(
        f"{shown(path)} must be a table (.csv, .tsv, .txt), JSON lines (.jsonl, .ndjson) or Parquet (.parquet)."
    )


def row_of(fields: Mapping[str, Any], names: Sequence[str]) -> Row | Flaw:
    """The cells of an object's fields, whose numbers, true and false are written as JSON has them."""
    cells: list[Cell] = []
    for name in names:
        cell = _spelled(fields.get(name))
        if isinstance(cell, Flaw):
            return Flaw(f'the field "{shown(name)}" {cell.reason}')
        cells.append(cell)
    return cells


def _spelled(value: object) -> Cell | Flaw:
    match value:
        case None:
            return None
        case str():
            return cell_of(value) if is_text(value) else Flaw("holds half a surrogate pair")
        case bool() | int():
            return json.dumps(value)
        case float():
            return cell_of(repr(value))
        case list() if (texts := as_cell(value)) is not None:
            return texts
    return Flaw(f"holds a {type(value).__name__}, but must hold text or a number")


def _names(path: Path, names: list[str]) -> Sequence[str]:
    """Column names, each once. Raises DataError for a first line that has none, or one twice."""
    if not names or all(map(is_number, names)):
        raise DataError(f"{shown(path)}, line 1 must name the columns, but holds {shown(', '.join(names), 80)}.")
    doubled = next((name for place, name in enumerate(names) if name in names[:place]), None)
    if doubled is not None:
        raise DataError(f'{shown(path)}, line 1: two columns are called "{shown(doubled)}".')
    return names


def is_number(text: str) -> bool:
    """Whether text reads as a finite number."""
    return not isinstance(number_of(text), Flaw)


def number_of(text: str) -> float | Flaw:
    """The number that a text is, or why it is none."""
    try:
        value = float(text)
    except ValueError:
        return Flaw(f'"{shown(text, 40)}" is not a number')
    if "_" in text or value in {float("inf"), -float("inf")} or value != value:  # noqa: PLR0124 - NaN
        return Flaw(f'"{shown(text, 40)}" is not a finite number')
    return value


def _good(path: Path, read: "str | list[str] | Flaw") -> "Any":
    """Give the first line of a file; raise BadSampleError where it is no text."""
    if isinstance(read, Flaw):
        raise BadSampleError(str(path), 1, read.reason)
    return read


def _digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
