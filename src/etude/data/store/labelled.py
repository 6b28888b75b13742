"""Texts with a label: the set of labels of some, and a table with a column of tokens and one of labels."""

import hashlib
import json
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tokenizers as library

from etude.base.errors import DataError
from etude.base.says import Say, unheard
from etude.data.files.lines import Flaw, shown
from etude.data.files.names import LABELLED
from etude.data.files.pair_sources import Pair, PairSource
from etude.data.files.skipped import Policy
from etude.data.store.columns import Column, Part, label, tokens
from etude.data.store.pair_encoding import good_rows, length_reason, wrong_lengths
from etude.data.store.table import Chunk, Table, Wanted, prepare_table
from etude.data.tokens.tokenizers import Tokenizer

TEXT, LABEL = LABELLED.names
"""The columns of such a table."""
MOST_LABELS = 4096
"""A column that has more different values holds something else."""
LISTED = 10
"""How many labels a message names."""
CHUNK_SAMPLES = 1024
FORMAT = 1


class Labelled(NamedTuple):
    """A text with the number of its label."""

    sample: int
    text: str
    label: int


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
    labels: Sequence[str],
    cache: Path,
    policy: Policy,
    *,
    notice: Say = unheard,
) -> Table:
    """Tokenise `source` into the folder `cache`, or open what an earlier call has made of the same content.

    The number of a label is its place in `labels`; one that is not there makes a bad sample, as does a text without
    tokens or with more than `policy.max_length`. Raises as `prepare_table` does.
    """
    parts = [FORMAT, library.__version__, source.fingerprint(), policy.max_length, policy.skips]
    key = hashlib.sha256(json.dumps([*parts, tokenizer.fingerprint(), *labels]).encode()).hexdigest()
    columns = (tokens(TEXT, tokenizer.size), label(LABEL))
    encoder = _Encoder(tokenizer, labels, columns, policy)
    return prepare_table(
        "labelled", Wanted(key, columns, source, policy), cache, lambda: encoder.chunks(source), notice=notice
    )


class _Encoder:
    """Makes rows of samples."""

    def __init__(
        self, tokenizer: Tokenizer, labels: Sequence[str], columns: tuple[Column, Column], policy: Policy
    ) -> None:
        self._tokenizer, self._columns, self._policy = tokenizer, columns, policy
        self._numbers: Mapping[str, int] = {name: number for number, name in enumerate(labels)}

    def chunks(self, source: PairSource) -> Generator[Chunk, None, None]:
        """Give all of `source`, in order."""
        for start in range(0, len(source), CHUNK_SAMPLES):
            rows = enumerate(source.rows(start, min(start + CHUNK_SAMPLES, len(source))), start)
            yield self._chunk(rows)

    def _chunk(self, rows: Iterator[tuple[int, Pair | Flaw]]) -> Chunk:
        samples: list[Labelled] = []
        flaws: list[tuple[int, Flaw]] = []
        for index, row in rows:
            match self._labelled(index, row):
                case Flaw() as flaw:
                    flaws.append((index, flaw))
                case sample:
                    samples.append(sample)
        return self._encoded(samples, flaws)

    def _labelled(self, index: int, row: Pair | Flaw) -> Labelled | Flaw:
        if isinstance(row, Flaw):
            return row
        name = row.target.strip()
        number = self._numbers.get(name)
        return self._unknown(name) if number is None else Labelled(index, row.source, number)

    def _unknown(self, name: str) -> Flaw:
        known = ", ".join(shown(one, 40) for one in [*self._numbers][:LISTED])
        more = ", ..." if len(self._numbers) > LISTED else ""
        return Flaw(f'the label "{shown(name, 40)}" is none of the training data, which has {known}{more}', "target")

    def _encoded(self, samples: Sequence[Labelled], flaws: Sequence[tuple[int, Flaw]]) -> Chunk:
        ids, lengths = self._tokenizer.encode_flat([sample.text for sample in samples])
        wrong = wrong_lengths(lengths, self._policy)
        found = [
            (samples[place].sample, Flaw(length_reason(TEXT, int(lengths[place]), self._policy)))
            for place in np.flatnonzero(wrong).tolist()
        ]
        labels = np.array([sample.label for sample in samples], dtype=np.int32)[~wrong]
        parts = [good_rows(self._columns[0], ids, lengths, ~wrong), Part(labels)]
        return Chunk(parts, sorted([*flaws, *found], key=lambda flaw: flaw[0]))
