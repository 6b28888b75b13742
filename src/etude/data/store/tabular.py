"""Rows of numbers and categories: what is learned of their columns from training data, and a table of them.

Legend: N columns of numbers, C columns of categories.
"""

import hashlib
import json
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import starmap
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np

from etude.base.errors import DataError
from etude.base.says import Say, unheard
from etude.data.files.lines import Flaw, shown
from etude.data.files.records import Cell, Records, Row, number_of
from etude.data.files.skipped import Policy
from etude.data.store.columns import Column, Part, frames, text
from etude.data.store.table import Chunk, Table, Wanted, prepare_table
from etude.data.store.targets import GROUP, Targets, listed

NUMBERS, CATEGORIES = "numbers", "categories"
"""The columns of such a table beside the target: standardised numbers, and ids of categories."""
UNKNOWN, MISSING, FIRST = 0, 1, 2
"""Ids of a category: a value that training does not have, none, and the first of training's values."""
MOST_VALUES = 4096
"""A column of categories that has more different values holds something else."""
SHARE = 0.9
"""A column holds numbers where at least this share of what stands in it does; what else does is a bad sample."""
CHUNK_SAMPLES = 1024
FORMAT = 1


@final
@dataclass(frozen=True)
class NumberColumn:
    """A column of numbers."""

    name: str
    mean: float
    deviation: float
    """Of the training data; 1 where it is constant."""
    missing: int
    """Training samples without one."""

    def encode(self, cell: Cell) -> float | Flaw:
        """The number less the mean, over the deviation; NaN for none."""
        if cell is None:
            return float("nan")
        match number_of(cell):
            case Flaw(reason=reason):
                return Flaw(f"the column {shown(self.name, 40)}: {reason}")
            case value:
                return (value - self.mean) / self.deviation

    def told(self) -> str:
        """What a run begins with."""
        gone = f", missing in {self.missing:,}" if self.missing else ""
        return f"{self.name}: number, {self.mean:.4g} +- {self.deviation:.4g}{gone}"


@final
@dataclass(frozen=True)
class CategoryColumn:
    """A column of categories."""

    name: str
    values: tuple[str, ...]
    """Of the training data, sorted; the id of a value is its place, from `FIRST` on."""
    missing: int
    """Training samples without one."""

    @cached_property
    def _ids(self) -> Mapping[Cell, int]:
        ids: dict[Cell, int] = {value: number for number, value in enumerate(self.values, FIRST)}
        return ids | ({None: MISSING} if self.missing else {})

    @property
    def size(self) -> int:
        """How many ids there are."""
        return FIRST + len(self.values)

    def encode(self, cell: Cell) -> int:
        """The id of a value; one that training does not have is unknown, and so is none where training has none."""
        return self._ids.get(cell, UNKNOWN)

    def told(self) -> str:
        """What a run begins with."""
        gone = f", missing in {self.missing:,}" if self.missing else ""
        return f"{self.name}: category, {len(self.values):,} values ({listed(self.values)}){gone}"


InputColumn = NumberColumn | CategoryColumn


@final
@dataclass(frozen=True)
class InputColumns:
    """The columns that a model sees."""

    numbers: tuple[NumberColumn, ...]
    categories: tuple[CategoryColumn, ...]

    @property
    def all(self) -> "list[InputColumn]":
        """Numbers first."""
        return [*self.numbers, *self.categories]

    @property
    def names(self) -> list[str]:
        """Of all: numbers first."""
        return [column.name for column in self.all]

    def told(self) -> list[str]:
        """What a run begins with, a line a column."""
        return [column.told() for column in self.all]

    def encode(self, cells: Sequence[Cell]) -> "Inputs | Flaw":
        """What a table holds of a sample, of the cells of `names`."""
        split = len(self.numbers)
        numbers: list[float] = []
        for column, cell in zip(self.numbers, cells[:split], strict=True):
            match column.encode(cell):
                case Flaw() as flaw:
                    return flaw
                case value:
                    numbers.append(value)
        pairs = zip(self.categories, cells[split:], strict=True)
        return Inputs(numbers, list(starmap(CategoryColumn.encode, pairs)))

    def plain(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return asdict(self)

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> "InputColumns":
        """What `plain` gave. Raises KeyError or TypeError where it is damaged."""
        numbers = (NumberColumn(**column) for column in plain["numbers"])
        categories = (CategoryColumn(**{**one, "values": tuple(one["values"])}) for one in plain["categories"])
        return cls(tuple(numbers), tuple(categories))


class Inputs(NamedTuple):
    """What a model sees of a sample."""

    numbers: list[float]
    """Standardised; NaN where there is none."""
    categories: list[int]


@dataclass
class _Seen:
    """What the training data has in one column so far."""

    name: str
    samples: int = 0
    present: int = 0
    values: dict[str, None] = field(default_factory=dict)
    """Different values, as long as they are few."""
    numbers: list[float] = field(default_factory=list)

    def add(self, cell: Cell) -> None:
        self.samples += 1
        if cell is None:
            return
        self.present += 1
        if len(self.values) <= MOST_VALUES:
            self.values.setdefault(cell)
        match number_of(cell):
            case float() as value:
                self.numbers.append(value)

    def as_numbers(self) -> NumberColumn:
        mean, deviation = float(np.mean(self.numbers)), float(np.std(self.numbers))
        return NumberColumn(self.name, mean, deviation or 1.0, self.samples - self.present)

    def as_categories(self, file: str) -> CategoryColumn:
        if len(self.values) > MOST_VALUES:
            raise DataError(
                f"The column {shown(self.name)} of {shown(file)} has more than {MOST_VALUES:,} different values that "
                "are no numbers: data.inputs must leave it out."
            )
        return CategoryColumn(self.name, tuple(sorted(self.values)), self.samples - self.present)

    @property
    def is_of_numbers(self) -> bool:
        return len(self.numbers) >= SHARE * self.present


def learned_inputs(records: Records, names: Sequence[str], categories: Sequence[str], notice: Say) -> InputColumns:
    """Find what columns hold: categories where it is said, or where less than nine of ten values are numbers.

    A column that is always empty is left out, and `notice` hears so. Raises DataError where none is left.
    """
    file = records.place(0)[0]
    seen = _read_through(records, [records.column(name, "data.inputs") for name in names])
    empty = [column.name for column in seen.values() if not column.present]
    if empty:
        notice(f"{shown(file)} has nothing in {listed(empty)}, which the model is not given.")
    if len(empty) == len(seen):
        raise DataError(f"{shown(file)} has no column that a model could be given: name some in data.inputs.")
    by_name = {records.column(name, "data.categories") for name in categories}
    return _sorted_by_kind({place: column for place, column in seen.items() if column.present}, by_name, file)


def _read_through(records: Records, places: Sequence[int]) -> dict[int, _Seen]:
    """What lies in the columns at `places`, by place."""
    seen = {place: _Seen(records.names[place]) for place in places}
    for row in records.rows(0, len(records)):
        if not isinstance(row, Flaw):
            for place, column in seen.items():
                column.add(row[place])
    return seen


def _sorted_by_kind(seen: Mapping[int, _Seen], by_name: Collection[int], file: str) -> InputColumns:
    """Numbers, and categories: the columns at the places `by_name`, and those whose values are mostly no numbers."""
    numbers = [place for place, column in seen.items() if column.is_of_numbers and place not in by_name]
    categories = [place for place in seen if place not in numbers]
    return InputColumns(
        tuple(seen[place].as_numbers() for place in numbers),
        tuple(seen[place].as_categories(file) for place in categories),
    )


def prepare_tabular(
    records: Records,
    inputs: InputColumns,
    targets: Targets,
    cache: Path,
    policy: Policy,
    *,
    by: str | None = None,
    notice: Say = unheard,
) -> Table:
    """Encode `records` into the folder `cache`, or open what an earlier call has made of the same content.

    `by` names a column that is kept as text. Raises as `prepare_table` does.
    """
    encoder = _Encoder(records, inputs, targets, by)
    parts = [FORMAT, records.fingerprint(), policy.skips, by, inputs.plain(), targets.plain()]
    key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    wanted = Wanted(key, encoder.columns, records, policy)
    return prepare_table("tabular", wanted, cache, lambda: encoder.chunks(records), notice=notice)


class _Encoder:
    """Makes rows of samples."""

    def __init__(self, records: Records, inputs: InputColumns, targets: Targets, by: str | None) -> None:
        self._inputs, self._targets = inputs, targets
        self._places = [records.column(name, "data.inputs") for name in inputs.names]
        self._labels = [records.column(name, "data.label") for name in targets.columns]
        self._by = None if by is None else records.column(by, "task.by")
        fixed = [frames(NUMBERS, len(inputs.numbers))] if inputs.numbers else []
        fixed += [frames(CATEGORIES, len(inputs.categories), "int32")] if inputs.categories else []
        self.columns: list[Column] = [*fixed, targets.stored, *([] if by is None else [text(GROUP)])]

    def chunks(self, records: Records) -> Generator[Chunk, None, None]:
        """Give all samples, in order."""
        rows = enumerate(records.rows(0, len(records)))
        for start in range(0, len(records), CHUNK_SAMPLES):
            yield self._chunk(rows, min(CHUNK_SAMPLES, len(records) - start))

    def _chunk(self, rows: Iterator[tuple[int, Row | Flaw]], count: int) -> Chunk:
        inputs: list[Inputs] = []
        targets: list[Any] = []
        groups: list[str] = []
        flaws: list[tuple[int, Flaw]] = []
        for _ in range(count):
            index, row = next(rows)
            match self._encoded(row):
                case Flaw() as flaw:
                    flaws.append((index, flaw))
                case one, target:
                    inputs.append(one)
                    targets.append(target)
                    groups.append(self._group(row))
        parts = [*self._input_parts(inputs), self._targets.part(targets)]
        return Chunk([*parts, Part.of_texts(groups)] if self._by is not None else parts, flaws)

    def _encoded(self, row: Row | Flaw) -> tuple[Inputs, Any] | Flaw:
        if isinstance(row, Flaw):
            return row
        inputs = self._inputs.encode([row[place] for place in self._places])
        target = self._targets.encode([row[place] for place in self._labels])
        for part in (inputs, target):
            if isinstance(part, Flaw):
                return part
        return inputs, target  # type: ignore[return-value]  # no Flaw, as was seen

    def _group(self, row: Row | Flaw) -> str:
        return "" if self._by is None or isinstance(row, Flaw) else row[self._by] or ""

    def _input_parts(self, inputs: Sequence[Inputs]) -> list[Part]:
        lengths = np.ones(len(inputs), dtype=np.int32)
        parts = []
        if self._inputs.numbers:
            numbers = np.array([one.numbers for one in inputs], dtype=np.float32)
            parts.append(Part(numbers.reshape(len(inputs), -1) if len(inputs) else numbers, lengths))
        if self._inputs.categories:
            ids = np.array([one.categories for one in inputs], dtype=np.int32)
            parts.append(Part(ids.reshape(len(inputs), -1) if len(inputs) else ids, lengths))
        return parts


def told_of_gaps(table: Table, inputs: InputColumns) -> list[str]:
    """What a split lacks: columns with missing numbers, and with categories that training does not have."""
    rows = np.arange(len(table), dtype=np.int64)
    told = []
    if inputs.numbers:
        missing = np.isnan(table.gather(NUMBERS, rows)[0].reshape(len(rows), -1)).sum(0)
        told += _counts(inputs.numbers, missing.tolist(), "missing numbers")
    if inputs.categories:
        ids = table.gather(CATEGORIES, rows)[0].reshape(len(rows), -1)
        told += _counts(inputs.categories, (ids == MISSING).sum(0).tolist(), "missing values")
        told += _counts(inputs.categories, (ids == UNKNOWN).sum(0).tolist(), "values that training does not have")
    return told


def _counts(columns: Sequence[InputColumn], counts: Sequence[int], what: str) -> list[str]:
    return [f"{column.name} has {count:,} {what}" for column, count in zip(columns, counts, strict=True) if count]
