"""Samples of saved outputs, to be shown beside their references: the first ones, and those with the greatest loss."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import Any

from etude.base.errors import StorageError
from etude.base.regular import reading

SPLITS = ("val", "test", "train")
FIRST, WORST = 15, 15
LONGEST = 2000
"""Characters of a cell; what is longer is cut."""
LOOKED = 200_000
"""Rows of a file that are looked at."""
COLUMNS = ("sample", "source", "target", "prediction", "loss")


@dataclass(frozen=True)
class Samples:
    """Rows of a file of outputs: cells as text, one for each column."""

    columns: Sequence[str]
    first: Sequence[Sequence[str]]
    worst: Sequence[Sequence[str]]
    """Those with the greatest loss, the greatest first; none where no loss is known."""


def samples_of(folder: Path) -> dict[str, Samples]:
    """The samples of each split in a folder of outputs; a file that cannot be read is left out."""
    found = {split: _chosen(list(islice(_rows(folder, split), LOOKED))) for split in SPLITS}
    return {split: samples for split, samples in found.items() if samples.first}


def _chosen(rows: Sequence[Mapping[str, Any]]) -> Samples:
    known = set().union(*map(_known, rows))
    columns = list(filter(known.__contains__, COLUMNS))
    judged = sorted(filter(_is_judged, rows), key=itemgetter("loss"), reverse=True)
    return Samples(columns, _cells(rows[:FIRST], columns), _cells(judged[:WORST], columns))


def _known(row: Mapping[str, Any]) -> set[str]:
    """The columns of which a row holds something."""
    return {name for name, value in row.items() if value is not None}


def _is_judged(row: Mapping[str, Any]) -> bool:
    return isinstance(row.get("loss"), int | float)


def _cells(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> list[list[str]]:
    return [list(map(cell, map(row.get, columns))) for row in rows]


def cell(value: object) -> str:
    """A value as the text of a cell.

    >>> cell(0.123456), cell(None), cell(["a", 1])
    ('0.1235', '', '["a", 1]')
    """
    match value:
        case None:
            return ""
        case str():
            text = value
        case float():
            text = f"{value:.4g}"
        case _:
            text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."


def _rows(folder: Path, split: str) -> Iterator[Mapping[str, Any]]:
    """The rows of a split: of Parquet, of JSON lines, or of the lines that a test writes."""
    with suppress(OSError, ValueError, StorageError):
        if (folder / f"{split}.parquet").is_file() and find_spec("pyarrow") is not None:
            yield from _parquet(folder / f"{split}.parquet")
        elif (folder / f"{split}.jsonl").is_file():
            yield from _json_lines(folder / f"{split}.jsonl")
        elif (folder / f"{split}.txt").is_file():
            yield from _text_lines(folder, split)


def _parquet(path: Path) -> Iterator[Mapping[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with reading(path) as file:
            table = pq.ParquetFile(file)
            wanted = [name for name in table.schema_arrow.names if name in COLUMNS]
            for batch in table.iter_batches(columns=wanted):
                yield from batch.to_pylist()
    except pa.ArrowException as error:
        raise StorageError(f"{path} is damaged: {error}.") from error


def _json_lines(path: Path) -> Iterator[Mapping[str, Any]]:
    with reading(path) as file:
        for line in file:
            row = json.loads(line)
            if isinstance(row, dict):
                yield row


def _text_lines(folder: Path, split: str) -> Iterator[Mapping[str, Any]]:
    """What `etude test` writes: predictions, and beside them sources and references where there are."""
    named = {"prediction": "txt", "source": "source.txt", "target": "reference.txt"}
    files = {name: folder / f"{split}.{ending}" for name, ending in named.items()}
    texts = {name: _texts(path) for name, path in files.items() if path.is_file()}
    for number, cells in enumerate(zip(*texts.values(), strict=False)):
        yield {"sample": number, **dict(zip(texts, cells, strict=True))}


def _texts(path: Path) -> list[str]:
    with reading(path) as file:
        return file.read().decode("utf-8", "replace").splitlines()
