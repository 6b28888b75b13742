"""Samples tokenised once for a `transformers` model, into a table that is mapped into memory."""

import hashlib
import json
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

import numpy as np

from etude.base.errors import ConfigError
from etude.base.says import Say, unheard
from etude.data.files.lines import Flaw
from etude.data.files.skipped import Policy
from etude.data.store.columns import Column, Kind, Part, frames, number
from etude.data.store.table import Chunk, Table, Wanted, prepare_table
from etude.tasks.hf.chat import Encoder, Row
from etude.tasks.hf.samples import Asked, Sample, SampleSource, Text

COLUMNS = (
    Column("ids", Kind.tokens, "int32"),
    frames("counted", dtype="bool"),
    Column("sources", Kind.tokens, "int32"),
    number("bytes"),
    number("targets", dtype="int32"),
)
"""Of each row the ids, which of them a loss counts, what a sequence-to-sequence model reads, bytes, and targets."""

CHUNK_ROWS = 1024
"""How many rows are written at once, at most."""


def prepare_rows(
    source: SampleSource,
    encoder: Encoder,
    cache: Path,
    policy: Policy,
    *,
    length: int,
    notice: Say = unheard,
) -> Table:
    """Tokenise `source` into the folder `cache`, or open what an earlier call has made of the same content.

    Texts longer than `length` are cut; of prompts and conversations, one above `policy.max_length` tokens or the
    model's positions is a bad sample. A call that is killed leaves nothing that a later one would take for whole.
    Raises BadSampleError at the first sample that cannot be used or, where the policy leaves them out, DataError once
    more than its `max_skipped` are.
    """
    wanted = Wanted(_key(source, encoder, policy, length), COLUMNS, source, policy)
    table = prepare_table(
        "hf", wanted, cache, lambda: _chunks(_encoded(source, encoder, policy.max_length, length)), notice=notice
    )
    notice(f"{len(source):,} samples are {len(table):,} rows with {table.total('targets'):,} targets.")
    return table


def _encoded(
    source: SampleSource, encoder: Encoder, limit: int | None, length: int
) -> Iterator[tuple[int, Row | Flaw]]:
    """Give the rows of every sample, or why it cannot be used, with its number."""
    for sample, read in enumerate(source.samples()):
        match read:
            case Flaw():
                yield sample, read
            case _:
                yield from ((sample, row) for row in _rows(read, encoder, limit, length))


def _chunks(rows: Iterator[tuple[int, Row | Flaw]]) -> Generator[Chunk, None, None]:
    """Gather rows; a flaw ends a chunk, so that it is heard of at once."""
    held: list[Row] = []
    for sample, row in rows:
        match row:
            case Flaw():
                yield _chunk(held, [(sample, row)])
                held = []
            case _:
                held.append(row)
        if len(held) == CHUNK_ROWS:
            yield _chunk(held)
            held = []
    if held:
        yield _chunk(held)


def _chunk(rows: list[Row], flaws: Sequence[tuple[int, Flaw]] = ()) -> Chunk:
    ids, counted, sources, size, targets = COLUMNS
    parts = (
        Part.of(ids, [row.ids for row in rows]),
        Part.of(counted, [row.counted for row in rows]),
        Part.of(sources, [row.source for row in rows]),
        Part(np.array([row.bytes for row in rows], dtype=size.dtype)),
        Part(np.array([sum(row.counted) for row in rows], dtype=targets.dtype)),
    )
    return Chunk(parts, flaws)


def _rows(sample: Sample, encoder: Encoder, limit: int | None, length: int) -> Iterator[Row | Flaw]:
    match sample:
        case Text(text):
            if encoder.seq2seq:
                raise ConfigError(
                    "A sequence-to-sequence model needs samples of prompt and answer, but these are texts."
                )
            yield from encoder.text(text, length)
        case Asked(prompt, answer):
            yield _within(encoder.answer(prompt, answer), limit)
        case _:
            yield _within(encoder.chat(sample.messages), limit)


def _within(row: Row | Flaw, limit: int | None) -> Row | Flaw:
    match row:
        case Flaw():
            return row
    longest = max(len(row.ids), len(row.source))
    if limit is not None and longest > limit:
        return Flaw(f"the sample has {longest} tokens, more than data.max_length = {limit}")
    return row


def _key(source: SampleSource, encoder: Encoder, policy: Policy, length: int) -> str:
    """Name what a table would hold by all that decides it; runs remember their data by it."""
    tokenizer = encoder.tokenizer
    import transformers

    parts = [1, transformers.__version__, source.fingerprint(), policy.max_length, policy.skips, length]
    parts += [encoder.seq2seq, encoder.longest, encoder.templated, encoder.system]
    parts += [tokenizer.backend_tokenizer.to_str(), tokenizer.chat_template, str(tokenizer.special_tokens_map)]
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()
