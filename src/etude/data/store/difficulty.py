"""How difficult each sample is: the numbers of a column, read once into a file that is mapped into memory."""

import contextlib
import hashlib
import json
import math
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from etude.base.errors import DataError
from etude.base.says import Say, unheard
from etude.data.files.lines import Flaw, shown
from etude.data.files.names import ColumnName
from etude.data.files.pair_sources import PairSource
from etude.data.store.folders import FolderWriter, WrittenFile, is_whole, place_of, prepared
from etude.data.store.table import Table

FORMAT = 2
NUMBERS = "numbers"
AT_ONCE = 1 << 14
"""Samples that are read together."""


def difficulties(
    source: PairSource, column: ColumnName, table: Table, cache: Path, notice: Say = unheard
) -> npt.NDArray[np.float64]:
    """Give the number in `column` for every row of `table`, which was prepared from `source`: [rows], mapped.

    Raises DataError, naming the line, where a row of the table has none, and where there is no such column.
    """
    key = hashlib.sha256(json.dumps([table.fingerprint, column]).encode()).hexdigest()

    def opened(place: Path) -> npt.NDArray[np.float64] | None:
        return np.memmap(place / NUMBERS, dtype=np.float64, mode="r") if is_whole(place, FORMAT, key) else None

    def write(place: Path) -> None:
        with FolderWriter(place, FORMAT, key) as folder:
            _write(source, column, table, folder.open(NUMBERS))
            folder.close({})

    return prepared(place_of(cache, "difficulty", key, FORMAT), opened, write, notice)


def _write(source: PairSource, column: ColumnName, table: Table, file: WrittenFile) -> None:
    skips = (skip.sample for skip in table.skips())
    skipped = next(skips, None)
    cells = enumerate(source.column(column, 0, len(source)))
    while part := list(islice(cells, AT_ONCE)):
        numbers = []
        for sample, cell in part:
            if sample == skipped:
                skipped = next(skips, None)
            else:
                numbers.append(_number(cell, column, source, sample))
        file.write(np.array(numbers, dtype=np.float64).tobytes())


def _number(cell: object, column: ColumnName, source: PairSource, sample: int) -> float:
    number = _read(cell)
    if not math.isfinite(number):
        said = cell.reason if isinstance(cell, Flaw) else f"it is {shown(repr(cell), 40)}"
        raise DataError(
            f"{source.location(sample)}: data.difficulty is {shown(column)}, which must be a number in every line, "
            f"but {said}."
        )
    return number


def _read(cell: object) -> float:
    """Read a number; NaN where it is none."""
    match cell:
        case bool():
            return math.nan
        case str() | int() | float():
            with contextlib.suppress(ValueError, OverflowError):
                return float(cell)
    return math.nan
