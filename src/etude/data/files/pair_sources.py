"""Pairs of texts by number: aligned files, JSON lines, and lists; alone or one after the other."""

import hashlib
import json
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any, NamedTuple, Protocol, final

from etude.base.errors import DataError
from etude.data.files.header import SIDES
from etude.data.files.json_lines import as_cell, is_text, json_object, missing_field
from etude.data.files.lines import Flaw, LineFile, is_blank, shown
from etude.data.files.names import PAIRED, ColumnName, Roles
from etude.data.files.skipped import BadSampleError


class Pair(NamedTuple):
    """A text and what it becomes."""

    source: str
    target: str


class PairSource(Protocol):
    """Pairs of texts by number."""

    recipe: str | None
    """From what `open_again` opens the same source in another process, where it can."""

    def __len__(self) -> int:
        """Count the pairs, bad ones included."""
        ...

    def __getitem__(self, index: int) -> Pair:
        """Read one pair. Raises BadSampleError where there is none."""
        ...

    def rows(self, start: int, stop: int) -> Iterator[Pair | Flaw]:
        """Read the pairs from `start` to before `stop`, or why one cannot be used."""
        ...

    def column(self, name: ColumnName, start: int, stop: int) -> Iterator[object]:
        """Read another column or field of the samples from `start` to before `stop`: what is there, or a Flaw."""
        ...

    def has_column(self, name: ColumnName) -> bool:
        """Tell whether samples may have another column or field of this name."""
        ...

    def place(self, index: int, side: str = "source") -> tuple[str, int]:
        """Give the file and the line (counted from 1) of a pair."""
        ...

    def location(self, index: int) -> str:
        """Say where a pair stands: `pairs.tsv, line 14`."""
        ...

    def fingerprint(self) -> str:
        """Give a sha256 of everything that decides what the pairs are."""
        ...


class NumberedPairs(ABC):
    """What every source does the same."""

    recipe: str | None = None
    """From what `open_again` opens the same source in another process, where it can."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def rows(self, start: int, stop: int) -> Iterator[Pair | Flaw]:
        """Read the pairs from `start` to before `stop`, or why one cannot be used."""

    @abstractmethod
    def place(self, index: int, side: str = "source") -> tuple[str, int]:
        """Give the file and the line (counted from 1) of a pair."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Give a sha256 of everything that decides what the pairs are."""

    def column(self, name: ColumnName, start: int, stop: int) -> Iterator[object]:
        """Read another column or field of the samples from `start` to before `stop`: text, what JSON has, or a Flaw.

        Raises DataError where there is none of that name.
        """
        del start, stop
        raise DataError(f'{shown(self.place(0)[0])} has no column "{shown(name)}": it has one text a line.')

    def has_column(self, name: ColumnName) -> bool:
        """Tell whether samples may have another column or field of this name."""
        del name
        return False

    def __getitem__(self, index: int) -> Pair:
        """Read one pair. Raises BadSampleError where there is none."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        pair = next(self.rows(index, index + 1))
        if isinstance(pair, Flaw):
            raise BadSampleError(*self.place(index, pair.side), pair.reason)
        return pair

    def location(self, index: int) -> str:
        """Say where a pair stands: `pairs.tsv, line 14`."""
        file, line = self.place(index)
        return f"{shown(file)}, line {line}"


@final
class AlignedPair(NumberedPairs):
    """Pairs in two files: line n of one becomes line n of the other."""

    def __init__(self, source: LineFile, target: LineFile) -> None:
        if len(source) != len(target):
            raise DataError(
                f"{shown(source.path)} has {len(source)} lines, but {shown(target.path)} has {len(target)}; "
                "aligned files must have as many."
            )
        self._files = (source, target)

    def __len__(self) -> int:
        return len(self._files[0])

    def rows(self, start: int, stop: int) -> Iterator[Pair | Flaw]:
        """Read the pairs from `start` to before `stop`, or why one cannot be used."""
        sources, targets = (file.decoded(start, stop) for file in self._files)
        for source, target in zip(sources, targets, strict=True):
            match source, target:
                case Flaw(), _:
                    yield source
                case _, Flaw():
                    yield target._replace(side="target")
                case _:
                    yield pair_of(source, target)

    def place(self, index: int, side: str = "source") -> tuple[str, int]:
        """Give the file and the line (counted from 1) of a pair."""
        return str(self._files[SIDES.index(side)].path), index + 1

    def fingerprint(self) -> str:
        """Give a sha256 of everything that decides what the pairs are."""
        return _digest("aligned", *(file.sha256 for file in self._files))


@final
class JsonLines(NumberedPairs):
    """Pairs in two fields of a file that holds a JSON object a line."""

    def __init__(self, lines: LineFile, source: ColumnName, target: ColumnName, roles: Roles = PAIRED) -> None:
        for key, field in zip(roles.names, (source, target), strict=True):
            if isinstance(field, int):
                raise DataError(f"data.{key} must name a field of {shown(lines.path)}, but is the number {field}.")
        self._lines, self._fields, self._roles = lines, (str(source), str(target)), roles

    def __len__(self) -> int:
        return len(self._lines)

    def rows(self, start: int, stop: int) -> Iterator[Pair | Flaw]:
        """Read the pairs from `start` to before `stop`, or why one cannot be used."""
        for line in self._lines.decoded(start, stop):
            yield line if isinstance(line, Flaw) else _from_json(line, self._fields, self._roles)

    def has_column(self, name: ColumnName) -> bool:
        """Tell whether samples may have another field of this name: each object may."""
        return isinstance(name, str)

    def column(self, name: ColumnName, start: int, stop: int) -> Iterator[object]:
        """Read another field of the samples from `start` to before `stop`: what JSON has, or a Flaw."""
        missing = missing_field(name)
        for line in self._lines.decoded(start, stop):
            found = line if isinstance(line, Flaw) else json_object(line)
            yield found if isinstance(found, Flaw) else found.get(str(name), missing)

    def place(self, index: int, side: str = "source") -> tuple[str, int]:
        """Give the file and the line (counted from 1) of a pair."""
        del side
        return str(self._lines.path), index + 1

    def fingerprint(self) -> str:
        """Give a sha256 of everything that decides what the pairs are."""
        return _digest("json", self._lines.sha256, *self._fields)


@final
class ListedPairs(NumberedPairs):
    """Pairs that are held in memory, such as a generated corpus; `name` is what messages call them."""

    def __init__(self, pairs: Iterable[tuple[str, str]], name: str) -> None:
        self._pairs, self._name = [Pair(*pair) for pair in pairs], name

    def __len__(self) -> int:
        return len(self._pairs)

    def rows(self, start: int, stop: int) -> Iterator[Pair | Flaw]:
        """Read the pairs from `start` to before `stop`, or why one cannot be used."""
        return (pair_of(*pair) for pair in self._pairs[start:stop])

    def place(self, index: int, side: str = "source") -> tuple[str, int]:
        """Give the name and the number (counted from 1) of a pair."""
        del side
        return self._name, index + 1

    def fingerprint(self) -> str:
        """Give a sha256 of the pairs."""
        digest = hashlib.sha256(b"listed")
        for pair in self._pairs:
            digest.update(json.dumps(pair).encode())
        return digest.hexdigest()


@final
class Concatenated(NumberedPairs):
    """Several sources, one after the other."""

    def __init__(self, parts: Sequence[NumberedPairs]) -> None:
        self._parts = parts
        self._ends = list(accumulate(map(len, parts)))

    def __len__(self) -> int:
        return self._ends[-1]

    def rows(self, start: int, stop: int) -> Iterator[Pair | Flaw]:
        """Read the pairs from `start` to before `stop`, or why one cannot be used."""
        begin = 0
        for part, end in zip(self._parts, self._ends, strict=True):
            if start < end and stop > begin:
                yield from part.rows(max(start, begin) - begin, min(stop, end) - begin)
            begin = end

    def has_column(self, name: ColumnName) -> bool:
        """Tell whether all parts may have another column of this name."""
        return all(part.has_column(name) for part in self._parts)

    def column(self, name: ColumnName, start: int, stop: int) -> Iterator[object]:
        """Read another column of the samples from `start` to before `stop`."""
        begin = 0
        for part, end in zip(self._parts, self._ends, strict=True):
            if start < end and stop > begin:
                yield from part.column(name, max(start, begin) - begin, min(stop, end) - begin)
            begin = end

    def place(self, index: int, side: str = "source") -> tuple[str, int]:
        """Give the file and the line (counted from 1) of a pair."""
        part = bisect_right(self._ends, index)
        return self._parts[part].place(index - (self._ends[part - 1] if part else 0), side)

    def fingerprint(self) -> str:
        """Give a sha256 of everything that decides what the pairs are."""
        return _digest("several", *(part.fingerprint() for part in self._parts))


def pair_of(source: str, target: str, roles: Roles = PAIRED) -> Pair | Flaw:
    """Make a pair of two texts, or say which of them is empty."""
    if is_blank(source):
        return Flaw(f"the {roles.names[0]} is empty", "source")
    if is_blank(target) and not roles.optional:
        return Flaw(f"the {roles.names[1]} is empty", "target")
    return Pair(source, target)


def _from_json(line: str, fields: tuple[str, str], roles: Roles) -> Pair | Flaw:
    value = json_object(line)
    if isinstance(value, Flaw):
        return value
    if roles.numbers:
        value = _spelled(value, fields[1])
    if roles.lists:
        value = {**value, fields[1]: as_cell(value.get(fields[1])) or value.get(fields[1])}
    flaw = next(filter(None, (_why_not(value, field) for field in fields)), None)
    return flaw or pair_of(value[fields[0]], value[fields[1]], roles)


def _spelled(value: dict[str, Any], field: str) -> dict[str, Any]:
    """Give the object with a number, true or false in a field as the text that JSON has for it."""
    match value.get(field):
        case int() | float() as given:  # true and false are whole numbers in Python
            return {**value, field: json.dumps(given)}
    return value


def _why_not(value: Mapping[str, object], field: str) -> Flaw | None:
    """Say why a field holds no text; None where it does."""
    if field not in value:
        return missing_field(field)
    match value[field]:
        case str() as text:
            return None if is_text(text) else Flaw(f'the field "{shown(field)}" holds half a surrogate pair')
    return Flaw(f'the field "{shown(field)}" is not a string')


def _digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
