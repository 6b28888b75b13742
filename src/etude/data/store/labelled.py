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
from etude.data.files.records import cell_of
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
    notice: Say = unheard,
) -> Table:
    """Tokenise `source` into the folder `cache`, or open what an earlier call has made of the same content.

    A label that is none of `targets` makes a bad sample, as does a text without tokens or with more than
    `policy.max_length`. `by` names a column that is kept as text. Raises as `prepare_table` does.
    """
    parts = [FORMAT, library.__version__, source.fingerprint(), policy.max_length, policy.skips]
    known: list[object] = [*targets.names] if isinstance(targets, OneLabel) else [targets.plain()]
    known += [] if by is None else [{"by": by}]
    key = hashlib.sha256(json.dumps([*parts, tokenizer.fingerprint(), *known]).encode()).hexdigest()
    columns = [tokens(TEXT, tokenizer.size), targets.stored, *([] if by is None else [text(GROUP)])]
    encoder = _Encoder(tokenizer, targets, columns, policy, by)
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
    ) -> None:
        self._tokenizer, self._targets, self._columns, self._policy = tokenizer, targets, columns, policy
        self._by = by

    def chunks(self, source: PairSource) -> Generator[Chunk, None, None]:
        """Give all of `source`, in order."""
        for start in range(0, len(source), CHUNK_SAMPLES):
            stop = min(start + CHUNK_SAMPLES, len(source))
            rows = zip(source.rows(start, stop), self._groups(source, start, stop), strict=True)
            yield self._chunk(enumerate(rows, start))

    def _groups(self, source: PairSource, start: int, stop: int) -> Iterator[object]:
        """What metrics are by, of some samples: text, what JSON has, or a Flaw."""
        return repeat("", stop - start) if self._by is None else source.column(self._by, start, stop)

    def _chunk(self, rows: Iterator[tuple[int, tuple[Pair | Flaw, object]]]) -> Chunk:
        samples: list[Labelled] = []
        flaws: list[tuple[int, Flaw]] = []
        for index, (row, group) in rows:
            match group if isinstance(group, Flaw) else self._labelled(index, row, _named(group)):
                case Flaw() as flaw:
                    flaws.append((index, flaw))
                case sample:
                    samples.append(sample)
        return self._encoded(samples, flaws)

    def _labelled(self, index: int, row: Pair | Flaw, group: str) -> Labelled | Flaw:
        if isinstance(row, Flaw):
            return row
        match self._targets.encode([self._cell(row.target)]):
            case Flaw(reason=reason):
                return Flaw(reason, "target")
            case found:
                return Labelled(index, row.source, found, group)

    def _cell(self, target: str) -> str | None:
        """What stands in a target; as one label every word is one."""
        return target.strip() if isinstance(self._targets, OneLabel) else cell_of(target)

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


def _named(group: object) -> str:
    """What a group is called; nothing of JSON's null."""
    return "" if group is None else str(group).strip()
