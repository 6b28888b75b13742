"""What samples are labelled with, read from the cells of a row: one label, several labels, or numbers.

Each kind learns what it must know from the training data, is kept beside a run, turns cells into what a table holds,
and says how a batch finds it there.

Legend: B samples of a batch, K labels or numbers.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, ClassVar, Protocol, Self, final

import numpy as np

from etude.base.errors import DataError
from etude.data.files.json_lines import texts_of
from etude.data.files.lines import Flaw, shown
from etude.data.files.records import Cell, number_of
from etude.data.store.columns import Array, Column, Ints, Part, frames, label

TARGET, GROUP = "label", "group"
"""The columns of such a table: what samples are labelled with, and what metrics are by."""
MOST_LABELS = 4096
"""A column that has more different values holds something else."""
LISTED = 10
"""How many labels a message names."""
TRUE, FALSE = frozenset({"1", "1.0", "true", "yes", "t", "y"}), frozenset({"0", "0.0", "false", "no", "f", "n"})
"""How cells say that a label is there, or is not, in lower case."""


class TargetTable(Protocol):
    """What a batch needs of a prepared table."""

    def gather(self, column: str, indices: Ints, /) -> tuple[Array, Array]:
        """Give the values of rows one after another, and how many each has."""

    def values(self, column: str, indices: Ints, /) -> Array:
        """Give the value of each row in a fixed column."""


class Targets(Protocol):
    """What samples are labelled with."""

    kind: ClassVar[str]
    """What it is called where it is kept."""
    unit: ClassVar[str] = "labels"
    """What `names` are called, several of them."""
    names: Sequence[str]
    """Of labels, or of numbers."""

    @property
    def columns(self) -> Sequence[str]:
        """The columns of a file that hold it."""

    @property
    def stored(self) -> Column:
        """The column of a table that holds it."""

    def encode(self, cells: Sequence[Cell]) -> Any:
        """What a table holds of a sample, of the cells of `columns`; a Flaw where they cannot be used."""

    def part(self, rows: Sequence[Any]) -> Part:
        """The rows of a table, of what `encode` gave."""

    def of_rows(self, table: TargetTable, indices: Ints) -> Array:
        """What a batch holds of rows."""

    def told(self) -> str:
        """What a run begins with."""

    def plain(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return {"kind": self.kind, **_plain(self)}


def _plain(target: Any) -> dict[str, Any]:
    return asdict(target)


@final
@dataclass(frozen=True)
class OneLabel(Targets):
    """One of several labels: int64 [B], the number of each."""

    kind: ClassVar[str] = "label"

    column: str
    names: tuple[str, ...]
    """Sorted; the number of a label is its place."""
    counts: tuple[int, ...]
    """Samples of each in the training data."""

    @classmethod
    def learned(cls, column: str, cells: Iterable[Cell], file: str) -> Self:
        """The labels of the training data. Raises DataError for fewer than two, or so many that they are no labels."""
        counts: dict[str, int] = {}
        for cell in cells:
            if cell is not None:
                counts[cell] = counts.get(cell, 0) + 1
        few_enough(len(counts), file, "data.label")
        if len(counts) < 2:  # noqa: PLR2004 - there is nothing to tell apart
            told = f'one label, "{shown(next(iter(counts)))}"' if counts else "no label"
            raise DataError(f"{shown(file)} has {told}, but there must be two or more.")
        names = tuple(sorted(counts))
        return cls(column, names, tuple(counts[name] for name in names))

    @property
    def columns(self) -> Sequence[str]:
        """The one column."""
        return [self.column]

    @property
    def stored(self) -> Column:
        """A number a row."""
        return label(TARGET)

    def encode(self, cells: Sequence[Cell]) -> int | Flaw:
        """The number of a label."""
        (cell,) = cells
        if cell is None:
            return Flaw("the label is empty")
        number = self._numbers.get(cell)
        return Flaw(unknown(cell, self.names)) if number is None else number

    @cached_property
    def _numbers(self) -> Mapping[str, int]:
        return {name: number for number, name in enumerate(self.names)}

    def part(self, rows: Sequence[int]) -> Part:
        """The rows of a table."""
        return Part(np.array(rows, dtype=np.int32))

    def of_rows(self, table: TargetTable, indices: Ints) -> Array:
        """[B] int64."""
        return table.values(TARGET, indices).astype(np.int64)

    def told(self) -> str:
        """Which labels there are."""
        return f"{self.column}: {len(self.names):,} labels ({listed(self.names)})"


class _Widths(Targets, Protocol):
    """Several numbers a row."""

    @property
    def stored(self) -> Column:
        """K numbers a row."""
        return frames(TARGET, len(self.names))

    def part(self, rows: Sequence[Sequence[float]]) -> Part:
        """The rows of a table."""
        values = np.array(rows, dtype=np.float32).reshape(len(rows), len(self.names))
        return Part(values, np.ones(len(rows), dtype=np.int32))

    def of_rows(self, table: TargetTable, indices: Ints) -> Array:
        """[B, K] float32."""
        return table.gather(TARGET, indices)[0].reshape(len(indices), len(self.names))


@final
@dataclass(frozen=True)
class SeveralLabels(_Widths):
    """Labels that each are there or not: float32 [B, K] of 0, 1, and NaN where it is not known."""

    kind: ClassVar[str] = "labels"

    sources: tuple[str, ...]
    """A column for each label, or one whose cells list the labels of a sample."""
    names: tuple[str, ...]
    counts: tuple[int, ...]
    """Training samples that have each label."""
    known: tuple[int, ...]
    """Training samples of which it is known."""
    separator: str = ""
    """What stands between the labels of one column; empty where there are several."""

    @classmethod
    def learned(
        cls, sources: Sequence[str], separator: str, rows: Iterable[Sequence[Cell]], file: str, key: str = "data.labels"
    ) -> Self:
        """The labels of the training data. Raises DataError where there is none, or so many that they are none."""
        if separator:
            return cls._of_lists(sources[0], separator, (row[0] for row in rows), file, key)
        empty = cls(tuple(sources), tuple(sources), (), ())
        counts, known = np.zeros(len(sources), np.int64), np.zeros(len(sources), np.int64)
        for row in rows:
            match empty.encode(row):
                case list() as values:
                    known += ~np.isnan(values)
                    counts += np.nan_to_num(values).astype(np.int64)
        return cls(empty.sources, empty.names, tuple(counts.tolist()), tuple(known.tolist()))

    @classmethod
    def _of_lists(cls, source: str, separator: str, cells: Iterable[Cell], file: str, key: str) -> Self:
        counts: dict[str, int] = {}
        samples = 0
        for cell in cells:
            samples += 1
            for name in parts_of(cell, separator):
                counts[name] = counts.get(name, 0) + 1
        few_enough(len(counts), file, key)
        if not counts:
            raise DataError(f'{shown(file)} has no label in the column "{shown(source)}".')
        names = tuple(sorted(counts))
        return cls((source,), names, tuple(counts[name] for name in names), (samples,) * len(names), separator)

    @property
    def columns(self) -> Sequence[str]:
        """A column for each label, or one."""
        return self.sources

    def encode(self, cells: Sequence[Cell]) -> list[float] | Flaw:
        """1 where a label is there, 0 where not; an empty cell of a column of its own is NaN."""
        if self.separator:
            return self._listed(parts_of(cells[0], self.separator))
        values = [*map(_flag, cells)]
        flaw = next((one for one in values if isinstance(one, Flaw)), None)
        return flaw or [float(one) for one in values if not isinstance(one, Flaw)]

    def _listed(self, found: Sequence[str]) -> list[float] | Flaw:
        other = next((name for name in found if name not in self._known_names), None)
        return Flaw(unknown(other, self.names)) if other is not None else [float(name in found) for name in self.names]

    @cached_property
    def _known_names(self) -> frozenset[str]:
        return frozenset(self.names)

    def told(self) -> str:
        """Which labels there are."""
        return f"{', '.join(self.sources)}: {len(self.names):,} labels, any number a sample ({listed(self.names)})"


@final
@dataclass(frozen=True)
class Numbers(_Widths):
    """Numbers: float32 [B, K], standardised by the training data; NaN where one of several is not known."""

    kind: ClassVar[str] = "numbers"
    unit: ClassVar[str] = "targets"

    names: tuple[str, ...]
    means: tuple[float, ...]
    deviations: tuple[float, ...]
    """Of the training data; 1 where it is constant."""

    @classmethod
    def learned(cls, names: Sequence[str], rows: Iterable[Sequence[Cell]], file: str) -> Self:
        """The numbers of the training data. Raises DataError where a column has none."""
        values: list[list[float]] = [[] for _ in names]
        for row in rows:
            for cell, column in zip(row, values, strict=True):
                match cell and number_of(cell):
                    case float() as value:
                        column.append(value)
        empty = next((name for name, column in zip(names, values, strict=True) if not column), None)
        if empty is not None:
            raise DataError(f'{shown(file)} has no number in the column "{shown(empty)}".')
        means = tuple(float(np.mean(column)) for column in values)
        deviations = tuple(float(np.std(column)) or 1.0 for column in values)
        return cls(tuple(names), means, deviations)

    @property
    def columns(self) -> Sequence[str]:
        """A column for each number."""
        return self.names

    def encode(self, cells: Sequence[Cell]) -> list[float] | Flaw:
        """Each number less its mean, over its deviation."""
        if all(cell is None for cell in cells):
            return Flaw(f"the target {shown(self.names[0], 40)} is empty")
        values: list[float] = []
        for cell, mean, deviation in zip(cells, self.means, self.deviations, strict=True):
            match float("nan") if cell is None else number_of(cell):
                case Flaw() as flaw:
                    return Flaw(f"the target {flaw.reason}")
                case float() as value:
                    values.append((value - mean) / deviation)
        return values

    def told(self) -> str:
        """What is predicted, and how large it is."""
        each = zip(self.names, self.means, self.deviations, strict=True)
        return ", ".join(f"{name}: target, {mean:.4g} +- {deviation:.4g}" for name, mean, deviation in each)


KINDS: Mapping[str, Callable[..., Targets]] = {
    "label": OneLabel,
    "labels": SeveralLabels,
    "numbers": Numbers,
}
"""By the name under which each is kept."""


def targets_of(plain: Mapping[str, Any]) -> Targets:
    """What `plain` gave. Raises KeyError, TypeError or ValueError where it is damaged."""
    fields = {key: tuple(value) if isinstance(value, list) else value for key, value in plain.items() if key != "kind"}
    return KINDS[plain["kind"]](**fields)


def parts_of(cell: Cell, separator: str) -> list[str]:
    """The labels that a cell lists, as JSON or with a separator between them; none where it is empty."""
    parts = texts_of(cell or "")
    if parts is None:
        parts = (cell or "").split(separator)
    return [name for part in parts if (name := part.strip())]


def _flag(cell: Cell) -> float | Flaw:
    if cell is None:
        return float("nan")
    word = cell.lower()
    if word in TRUE or word in FALSE:
        return float(word in TRUE)
    return Flaw(f'"{shown(cell, 40)}" says neither that the label is there (1, true, yes) nor that it is not')


def few_enough(count: int, file: str, key: str) -> None:
    """Refuse a column of so many labels that it must hold something else. Raises DataError."""
    if count > MOST_LABELS:
        raise DataError(
            f"{shown(file)} has more than {MOST_LABELS:,} different labels: {key} must name the column of the classes."
        )


def unknown(name: str, names: Sequence[str]) -> str:
    """Say that a label is none of the training data's, as a clause."""
    return f'the label "{shown(name, 40)}" is none of the training data, which has {listed(names)}'


def listed(names: Sequence[str]) -> str:
    """The first names of a list."""
    more = ", ..." if len(names) > LISTED else ""
    return ", ".join(shown(one, 40) for one in names[:LISTED]) + more
