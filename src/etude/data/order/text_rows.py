"""The rows of one source of text, pass after pass: stretches of its stream, or documents packed together.

A cursor goes through them; where it stands is a small mapping of numbers, from which another one goes on.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, overload

import numpy as np
from numpy.typing import NDArray

from etude.base.randomness import Permutation, generator, seed_of
from etude.data.order.packing import packed
from etude.data.store.text_table import TextTable

Ints = NDArray[np.int64]
Row = NDArray[np.int64]
"""The segments of a row, one after the other: source, begin in its ring, number of targets; [segments, 3]."""

WINDOW_SEGMENTS = 1 << 14
"""About how many documents, or segments of them, are packed together."""
WINDOW_DOCUMENTS = 1 << 14
LOOK = 1 << 20
"""Documents whose lengths are added up at once."""

At = Mapping[str, int]


@dataclass(frozen=True)
class Rows(Sequence[Row]):
    """The rows of a batch, each of `width` places, before they are read."""

    rows: list[Row]
    width: int
    documents: bool
    """Whether the segments of a row are documents of their own."""

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, place: int) -> Row: ...
    @overload
    def __getitem__(self, place: slice) -> "Rows": ...
    def __getitem__(self, place: int | slice) -> "Row | Rows":
        if isinstance(place, int):
            return self.rows[place]
        return Rows(self.rows[place], self.width, self.documents)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def targets(self) -> int:
        """Count the targets of all rows."""
        return sum(int(row[:, 2].sum()) for row in self.rows)


class Cursor(Protocol):
    """Goes through the rows of a source."""

    @property
    def at(self) -> dict[str, int]:
        """Where it stands: `pass` counts the passes that are over."""

    def take(self, most: int) -> list[Row]:
        """Give the next rows: `most` of them, or fewer where the pass ends before."""


class RowSource(Protocol):
    """The rows of one source, for blocks of any size."""

    def count(self, block: int) -> int:
        """Count the rows of a pass; an estimate unless `exact`."""

    def exact(self, block: int) -> bool:
        """Tell whether every pass has exactly `count` rows."""

    def segments(self, block: int) -> int:
        """Count the segments that all rows of a pass hold."""

    def cursor(self, epoch: int, block: int, at: At | None) -> Cursor:
        """Begin the rows of an epoch, or go on where another cursor stood."""


class StreamSource:
    """A source's ring, cut into blocks: shuffled, and cut at other places in every pass, or as they lie.

    Every target is in exactly one block of a pass. All blocks have the full length but the last, which has the rest.
    """

    def __init__(self, table: TextTable, number: int, *, seed: int, shuffle: bool) -> None:
        self.table, self.number, self.seed, self.shuffle = table, number, seed, shuffle

    def count(self, block: int) -> int:
        """Count the blocks of a pass."""
        return -(-self.table.targets // block)

    def exact(self, block: int) -> bool:
        """Tell whether every pass has as many blocks: always."""
        return block > 0

    def segments(self, block: int) -> int:
        """Count the blocks of a pass: a row is one."""
        return self.count(block)

    def cursor(self, epoch: int, block: int, at: At | None) -> Cursor:
        """Begin the blocks of an epoch, or go on where another cursor stood."""
        return _StreamCursor(self, epoch, block, at or {"pass": 0, "row": 0})


class _StreamCursor:
    def __init__(self, source: StreamSource, epoch: int, block: int, at: At) -> None:
        self._source, self._epoch, self._block = source, epoch, block
        self._count = source.count(block)
        self._pass, self._row = at["pass"], at["row"]
        self._permutation: Permutation | None = None
        self._offset = 0
        self._begin_pass()

    @property
    def at(self) -> dict[str, int]:
        return {"pass": self._pass, "row": self._row}

    def take(self, most: int) -> list[Row]:
        stop = min(self._row + most, self._count)
        numbers = np.arange(self._row, stop) if self._permutation is None else self._permutation.take(self._row, stop)
        ring, block = self._source.table.targets, self._block
        rows = np.empty((len(numbers), 1, 3), dtype=np.int64)
        rows[:, 0, 0] = self._source.number
        rows[:, 0, 1] = (numbers * block + self._offset) % ring
        rows[:, 0, 2] = np.minimum(block, ring - numbers * block)
        self._row = stop
        if stop == self._count:
            self._pass, self._row = self._pass + 1, 0
            self._begin_pass()
        return list(rows)

    def _begin_pass(self) -> None:
        source = self._source
        if source.shuffle:
            names = source.number, self._epoch, self._pass
            self._permutation = Permutation(self._count, seed_of(source.seed, "blocks", *names))
            self._offset = seed_of(source.seed, "offset", *names) % source.table.targets


class DocumentSource:
    """A source's documents packed into rows: the order of a pass is cut into windows, each packed and mixed.

    A document longer than a block becomes segments that count as documents of their own, all in the same window.
    Without `shuffle` documents are taken as they lie, and only the rows within a window are mixed.
    """

    def __init__(self, table: TextTable, number: int, *, seed: int, shuffle: bool) -> None:
        self.table, self.number, self.seed, self.shuffle = table, number, seed, shuffle
        self._segments: dict[int, int] = {}
        self._counts: dict[int, int] = {}

    def count(self, block: int) -> int:
        """Count the rows of one window of the first pass: exact where that is all, else projected by its targets."""
        if block not in self._counts:
            rows = self.window(0, 0, 0, block)
            targets = sum(int(row[:, 2].sum()) for row in rows)
            self._counts[block] = max(1, round(len(rows) * (self.table.targets / targets)))
        return self._counts[block]

    def exact(self, block: int) -> bool:
        """Tell whether every pass has as many rows: where all documents are packed together."""
        return self.windows(block) == 1

    def segments(self, block: int) -> int:
        """Count the documents of a pass, or the segments of those that are cut."""
        if block not in self._segments:
            n = len(self.table)
            parts = (np.diff(self.table.starts[begin : begin + LOOK + 1]) for begin in range(0, n, LOOK))
            self._segments[block] = sum(int((-(-lengths // block)).sum()) for lengths in parts)
        return self._segments[block]

    def windows(self, block: int) -> int:
        """Count the windows, such that each has about `WINDOW_SEGMENTS` segments."""
        n = len(self.table)
        return min(n, max(-(-self.segments(block) // WINDOW_SEGMENTS), -(-n // WINDOW_DOCUMENTS)))

    def window(self, epoch: int, number: int, window: int, block: int) -> list[Row]:
        """Pack one window of pass `number` of an epoch: its rows, in the order in which they are taken."""
        n, windows = len(self.table), self.windows(block)
        begin, end = window * n // windows, (window + 1) * n // windows
        names = (self.number, epoch, number)
        if self.shuffle:
            order = Permutation(n, seed_of(self.seed, "documents", *names)).take(begin, end)
        else:
            order = np.arange(begin, end)
        starts = self.table.starts[order]
        begins, lengths = _cut(starts - 1, self.table.starts[order + 1] - starts, block)
        segments = np.stack((np.full(len(begins), self.number), begins, lengths), axis=1)
        rows = [segments[places] for places in packed(lengths, block)]
        mixed = generator(self.seed, "rows", *(names if self.shuffle else (self.number,)), window).permutation(
            len(rows)
        )
        return [rows[place] for place in mixed.tolist()]

    def cursor(self, epoch: int, block: int, at: At | None) -> Cursor:
        """Begin the rows of an epoch, or go on where another cursor stood."""
        return _DocumentCursor(self, epoch, block, at or {"pass": 0, "window": 0, "row": 0})


def _cut(begins: Ints, lengths: Ints, block: int) -> tuple[Ints, Ints]:
    """Cut what is longer than a block into segments."""
    counts = -(-lengths // block)
    number = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
    done = number * block
    return np.repeat(begins, counts) + done, np.minimum(np.repeat(lengths, counts) - done, block)


class _DocumentCursor:
    def __init__(self, source: DocumentSource, epoch: int, block: int, at: At) -> None:
        self._source, self._epoch, self._block = source, epoch, block
        self._windows = source.windows(block)
        self._pass, self._window, self._row = at["pass"], at["window"], at["row"]
        self._rows: list[Row] | None = None

    @property
    def at(self) -> dict[str, int]:
        return {"pass": self._pass, "window": self._window, "row": self._row}

    def take(self, most: int) -> list[Row]:
        taken: list[Row] = []
        while True:
            if self._rows is None:
                self._rows = self._source.window(self._epoch, self._pass, self._window, self._block)
            stop = min(self._row + most - len(taken), len(self._rows))
            taken.extend(self._rows[self._row : stop])
            self._row = stop
            if stop < len(self._rows):
                break
            self._rows, self._row, self._window = None, 0, self._window + 1
            if self._window == self._windows:
                self._pass, self._window = self._pass + 1, 0
                break
            if len(taken) == most:
                break
        return taken


class Joined:
    """Several sources, one after the other: each has its pass, and then the next one."""

    def __init__(self, sources: Sequence[RowSource]) -> None:
        self.sources = list(sources)

    def count(self, block: int) -> int:
        """Count the rows of a pass; an estimate unless `exact`."""
        return sum(source.count(block) for source in self.sources)

    def exact(self, block: int) -> bool:
        """Tell whether every pass has exactly `count` rows."""
        return all(source.exact(block) for source in self.sources)

    def segments(self, block: int) -> int:
        """Count the segments that all rows of a pass hold."""
        return sum(source.segments(block) for source in self.sources)

    def cursor(self, epoch: int, block: int, at: At | None) -> Cursor:
        """Begin the rows of an epoch, or go on where another cursor stood."""
        return _JoinedCursor(self, epoch, block, at or {"pass": 0, "source": 0})


class _JoinedCursor:
    def __init__(self, joined: Joined, epoch: int, block: int, at: At) -> None:
        self._joined, self._epoch, self._block = joined, epoch, block
        self._pass, self._source = at["pass"], at["source"]
        inner = {name: number for name, number in at.items() if name not in {"pass", "source"}}
        self._cursor = self._begun({"pass": 0, **inner} if inner else None)

    @property
    def at(self) -> dict[str, int]:
        return {**self._cursor.at, "pass": self._pass, "source": self._source}

    def take(self, most: int) -> list[Row]:
        taken: list[Row] = []
        begun = self._pass
        while len(taken) < most and self._pass == begun:
            taken.extend(self._cursor.take(most - len(taken)))
            if self._cursor.at["pass"]:
                self._source += 1
                if self._source == len(self._joined.sources):
                    self._pass, self._source = self._pass + 1, 0
                self._cursor = self._begun(None)
        return taken

    def _begun(self, at: At | None) -> Cursor:
        return self._joined.sources[self._source].cursor(self._epoch, self._block, at)


def segments_of(rows: list[Row]) -> int:
    """Count the segments of rows."""
    return sum(map(len, rows))


def cursors_at(cursors: list[Cursor]) -> list[Any]:
    """Give where each cursor stands."""
    return [cursor.at for cursor in cursors]
