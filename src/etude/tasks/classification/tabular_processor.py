"""What a run over tables keeps: what its columns hold, with means and deviations, and what is predicted."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar, final

import numpy as np
import torch
from torch import nn

from etude.base.errors import DataError, RefusedError, StorageError
from etude.base.files import read_json, whole_folder, write_json
from etude.data.files.header import place_of
from etude.data.files.json_lines import json_object
from etude.data.files.lines import Flaw, is_blank
from etude.data.files.quotes import Grammar
from etude.data.files.records import Row, cell_of, row_of
from etude.data.files.table_file import separator_of
from etude.data.store.tabular import InputColumns, Inputs
from etude.data.store.targets import Targets, listed, targets_of
from etude.model.tabular import TabularNet
from etude.tasks.classification.inputs import SampleProcessor
from etude.tasks.classification.task import Inputs as Tensors
from etude.tasks.classification.task import Reader

COLUMNS = "columns.json"
A = TypeVar("A")


@final
@dataclass(frozen=True)
class TabularProcessor(SampleProcessor):
    """The columns of the inputs, and what is predicted."""

    inputs: InputColumns
    targets: Targets

    def save(self, folder: Path) -> None:
        """Write both, all or nothing; a run keeps those it began with."""
        if folder.is_dir():
            return
        with whole_folder(folder, "write", replace=True) as part:
            write_json(part / COLUMNS, {"inputs": self.inputs.plain(), "targets": self.targets.plain()})

    @classmethod
    def stored(cls, folder: Path) -> Self:
        """What `save` wrote. Raises RefusedError where it is not there, StorageError where it is damaged."""
        path = folder / COLUMNS
        if not path.exists():
            raise RefusedError(f"{folder} does not hold the columns of a run: {COLUMNS} is missing.")
        plain = read_json(path)
        try:
            return cls(InputColumns.of(plain["inputs"]), targets_of(plain["targets"]))
        except (KeyError, TypeError, ValueError) as error:
            raise StorageError(f"{path} is damaged: {error!r}.") from error

    def reader(self) -> Reader:
        """Reads a row a line."""
        return RowReader(self.inputs)

    def offered(self) -> Mapping[str, object]:
        """How many columns of numbers there are, and how many ids each category has."""
        return {"numbers": len(self.inputs.numbers), "categories": self._sizes()}

    def model(self, config: Any, outputs: int) -> nn.Module:
        """The network of the config."""
        return TabularNet(config.model, [bool(one.missing) for one in self.inputs.numbers], self._sizes(), outputs)

    def sizes(self, config: Any) -> str:
        """The widths."""
        return f"model.hidden = {list(config.model.hidden)} and the embeddings"

    def _sizes(self) -> list[int]:
        return [column.size for column in self.inputs.categories]


@final
class RowReader(Reader):
    """Rows: lines of JSON objects, or of a table that begins with names.

    A field that an object lacks is missing. Columns that the model does not see are passed over.
    """

    def __init__(self, inputs: InputColumns) -> None:
        self._inputs = inputs
        self._table: _Header | None = None

    def begins(self, line: str) -> bool:
        """Take in the names of a table's columns, unless the line is an object."""
        self._table = None if line.lstrip().startswith("{") else _Header.of(line, self._inputs.names)
        return self._table is not None

    def line_of(self, given: Any) -> Any:
        """A mapping of columns to numbers or texts, as a JSON object."""
        return json.dumps({**given}, default=_plain) if isinstance(given, Mapping) else given

    def answered(
        self, lines: Sequence[str], batch_size: int, answer: Callable[[Tensors], Sequence[A]], nothing: A
    ) -> Sequence[A]:
        """Answer lines in batches, in order; `nothing` of one that is blank."""
        found = [nothing] * len(lines)
        rows = [(place, self._read(line)) for place, line in enumerate(lines) if not is_blank(line)]
        for begin in range(0, len(rows), batch_size):
            batch = rows[begin : begin + batch_size]
            answers = answer(self._tensors([row for _, row in batch]))
            for (place, _), one in zip(batch, answers, strict=True):
                found[place] = one
        return found

    def _read(self, line: str) -> Inputs:
        row = self._of_object(line) if self._table is None else self._table.row(line)
        read = row if isinstance(row, Flaw) else self._inputs.encode(row)
        if isinstance(read, Flaw):
            raise DataError(f"{read.reason}.")
        return read

    def _of_object(self, line: str) -> Row | Flaw:
        fields = json_object(line)
        return fields if isinstance(fields, Flaw) else row_of(fields, self._inputs.names)

    def _tensors(self, rows: Sequence[Inputs]) -> Tensors:
        numbers = np.array([row.numbers for row in rows], dtype=np.float32).reshape(len(rows), -1)
        categories = np.array([row.categories for row in rows], dtype=np.int64).reshape(len(rows), -1)
        return torch.from_numpy(numbers), torch.from_numpy(categories)


class _Header(NamedTuple):
    """Where the inputs stand in the rows of a table."""

    grammar: Grammar
    places: Sequence[int]
    columns: int

    @classmethod
    def of(cls, line: str, wanted: Sequence[str]) -> "_Header":
        """Those of a first line. Raises DataError where it does not name them all."""
        grammar = Grammar(separator_of(line, wanted))
        names = grammar.texts(line.rstrip("\r\n"))
        cells = [] if isinstance(names, Flaw) else [name.strip() for name in names]
        places = {name: place_of(Path("the input"), cells, name) for name in wanted}
        lacking = [name for name, place in places.items() if place is None]
        if lacking:
            raise DataError(
                f"The first line must name the columns {listed(wanted)}, but lacks {listed(lacking)}; or each line "
                "must be a JSON object."
            )
        return cls(grammar, [place for place in places.values() if place is not None], len(cells))

    def row(self, line: str) -> Row | Flaw:
        """The cells of the inputs."""
        cells = self.grammar.texts(line.rstrip("\r\n"))
        if isinstance(cells, Flaw):
            return cells
        if len(cells) != self.columns:
            return Flaw(f"the row has {len(cells)} columns, but the first line names {self.columns}")
        return [cell_of(cells[place]) for place in self.places]


def _plain(value: Any) -> Any:
    """A number of numpy's or torch's as Python's."""
    return value.item()
