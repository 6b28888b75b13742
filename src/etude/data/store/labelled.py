"""Texts with labels or numbers: a table with a column of tokens and one of what each is labelled with."""

import hashlib
import json
from collections.abc import Generator, Iterator, Sequence
from itertools import repeat
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tokenizers as library

from etude.base.errors import DataError
from etude.base.says import Say, unheard
from etude.data.files.lines import Flaw, shown
from etude.data.files.names import LABELLED, ColumnName
from etude.data.files.pair_sources import Pair, PairSource
from etude.data.files.records import Cell, cell_of
from etude.data.files.skipped import Policy
from etude.data.store.columns import Column, Part, text, tokens
from etude.data.store.pair_encoding import good_rows, length_reason, wrong_lengths
from etude.data.store.table import Chunk, Table, Wanted, prepare_table
from etude.data.store.targets import GROUP, MOST_LABELS, TARGET, OneLabel, Targets
from etude.data.tokens.tokenizers import Tokenizer

TEXT, LABEL = LABELLED.names[0], TARGET
"""The columns of such a table."""
CHUNK_SAMPLES = 1024
FORMAT = 1


class Labelled(NamedTuple):
    """A text with what a table holds of its label."""

    sample: int
    text: str
    label: Any
    group: str = ""


def labels_of(source: PairSource) -> list[str]:
    """Give the labels of a source, sorted, each once; samples that cannot be read have none.

    Raises DataError where there are fewer than two, or so many that they cannot be labels.
    """
    found: set[str] = set()
    for row in source.rows(0, len(source)):
        match row:
            case Pair():
                found.add(row.target.strip())
        if len(found) > MOST_LABELS:
            raise DataError(
                f"{source.place(0)[0]} has more than {MOST_LABELS:,} different labels: data.label must name the "
                "column of the classes."
            )
    if len(found) == 1:
        raise DataError(
            f'{source.place(0)[0]} has one label, "{shown(next(iter(found)))}", but there must be two or more.'
        )
    return sorted(found)


def prepare_labelled(
    source: PairSource,
    tokenizer: Tokenizer,
    targets: Targets,
    cache: Path,
    policy: Policy,
    *,
    by: ColumnName | None = None,
    further: Sequence[ColumnName] = (),
    notice: Say = unheard,
) -> Table:
    """Tokenise `source` into the folder `cache`, or open what an earlier call has made of the same content.

    A label that is none of `targets` makes a bad sample, as does a text without tokens or with more than
    `policy.max_length`. `by` names a column that is kept as text. The labels are the second
    text of each pair or, where `further` names columns, in these. Raises as `prepare_table` does.
    """
    parts = [FORMAT, library.__version__, source.fingerprint(), policy.max_length, policy.skips]
    known: list[object] = [*targets.names] if isinstance(targets, OneLabel) else [targets.plain()]
    known += [] if by is None else [{"by": by}]
    key = hashlib.sha256(json.dumps([*parts, tokenizer.fingerprint(), *known]).encode()).hexdigest()
    columns = [tokens(TEXT, tokenizer.size), targets.stored, *([] if by is None else [text(GROUP)])]
    encoder = _Encoder(tokenizer, targets, columns, policy, by, further)
    return prepare_table(
        "labelled", Wanted(key, columns, source, policy), cache, lambda: encoder.chunks(source), notice=notice
    )


class _Encoder:
    """Makes rows of samples."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        targets: Targets,
        columns: Sequence[Column],
        policy: Policy,
        by: ColumnName | None,
        further: Sequence[ColumnName],
    ) -> None:
        self._tokenizer, self._targets, self._columns, self._policy = tokenizer, targets, columns, policy
        self._by, self._further = by, further

    def chunks(self, source: PairSource) -> Generator[Chunk, None, None]:
        """Give all of `source`, in order."""
        for start in range(0, len(source), CHUNK_SAMPLES):
            stop = min(start + CHUNK_SAMPLES, len(source))
            beside = _beside(source, self._further, start, stop)
            rows = zip(source.rows(start, stop), beside, self._groups(source, start, stop), strict=True)
            yield self._chunk(enumerate(rows, start))

    def _groups(self, source: PairSource, start: int, stop: int) -> Iterator[object]:
        """What metrics are by, of some samples: text, what JSON has, or a Flaw."""
        return repeat("", stop - start) if self._by is None else source.column(self._by, start, stop)

    def _chunk(self, rows: Iterator[tuple[int, tuple[Pair | Flaw, tuple[object, ...], object]]]) -> Chunk:
        samples: list[Labelled] = []
        flaws: list[tuple[int, Flaw]] = []
        for index, (row, beside, group) in rows:
            match group if isinstance(group, Flaw) else self._labelled(index, row, beside, _named(group)):
                case Flaw() as flaw:
                    flaws.append((index, flaw))
                case sample:
                    samples.append(sample)
        return self._encoded(samples, flaws)

    def _labelled(self, index: int, row: Pair | Flaw, beside: tuple[object, ...], group: str) -> Labelled | Flaw:
        if isinstance(row, Flaw):
            return row
        match self._targets.encode(self._cells(row, beside)):
            case Flaw(reason=reason):
                return Flaw(reason, "target")
            case found:
                return Labelled(index, row.source, found, group)

    def _cells(self, row: Pair, beside: tuple[object, ...]) -> Sequence[Cell]:
        """What a text is labelled with; as one label every word is one."""
        return [row.target.strip()] if isinstance(self._targets, OneLabel) else cells_of(row, beside)

    def _encoded(self, samples: Sequence[Labelled], flaws: Sequence[tuple[int, Flaw]]) -> Chunk:
        ids, lengths = self._tokenizer.encode_flat([sample.text for sample in samples])
        wrong = wrong_lengths(lengths, self._policy)
        found = [
            (samples[place].sample, Flaw(length_reason(TEXT, int(lengths[place]), self._policy)))
            for place in np.flatnonzero(wrong).tolist()
        ]
        good = [samples[place] for place in np.flatnonzero(~wrong).tolist()]
        labels = self._targets.part([sample.label for sample in good])
        parts = [good_rows(self._columns[0], ids, lengths, ~wrong), labels]
        if self._by is not None:
            parts.append(Part.of_texts([sample.group for sample in good]))
        return Chunk(parts, sorted([*flaws, *found], key=lambda flaw: flaw[0]))


def labelled_cells(source: PairSource, further: Sequence[ColumnName]) -> Iterator[Sequence[Cell]]:
    """Give what each text that can be read is labelled with, as `prepare_labelled` reads it."""
    rows = zip(source.rows(0, len(source)), _beside(source, further, 0, len(source)), strict=True)
    for row, beside in rows:
        match row:
            case Pair():
                yield cells_of(row, beside)


def cells_of(row: Pair, beside: tuple[object, ...]) -> list[Cell]:
    """Give the cells of further columns or, where there are none, that of the second text."""
    return [cell_of(_named(value)) for value in beside] if beside else [cell_of(row.target)]


def _beside(source: PairSource, further: Sequence[ColumnName], start: int, stop: int) -> Iterator[tuple[object, ...]]:
    """What stands in further columns of some samples; nothing where none is asked for."""
    if not further:
        return repeat((), stop - start)
    return zip(*(source.column(name, start, stop) for name in further), strict=True)


def _named(group: object) -> str:
    """What stands in a further column, as text; nothing of JSON's null, and of what is not there."""
    return "" if group is None or isinstance(group, Flaw) else str(group).strip()
