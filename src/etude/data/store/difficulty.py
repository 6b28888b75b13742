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
from etude.base.files import make_folder, whole_file
from etude.data.files.lines import Flaw, shown
from etude.data.files.names import ColumnName
from etude.data.files.pair_sources import PairSource
from etude.data.store.table import Table

FORMAT = 1
AT_ONCE = 1 << 14
"""Samples that are read together."""


def difficulties(source: PairSource, column: ColumnName, table: Table, cache: Path) -> npt.NDArray[np.float64]:
    """Give the number in `column` for every row of `table`, which was prepared from `source`: [rows], mapped.

    Raises DataError, naming the line, where a row of the table has none, and where there is no such column.
    """
    key = hashlib.sha256(json.dumps([FORMAT, table.fingerprint, column]).encode()).hexdigest()[:32]
    path = cache / "difficulty" / f"{key}.bin"
    if not path.is_file() or path.stat().st_size != 8 * len(table):
        make_folder(path.parent)
        _write(source, column, table, path)
    return np.memmap(path, dtype=np.float64, mode="r")


def _write(source: PairSource, column: ColumnName, table: Table, path: Path) -> None:
    skips = (skip.sample for skip in table.skips())
    skipped = next(skips, None)
    with whole_file(path) as file:
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
