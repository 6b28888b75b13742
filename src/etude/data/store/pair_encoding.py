"""Pairs to ids, in chunks: in this process, or in several when there is much to do."""

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

from etude.base.errors import DataError
from etude.data.files.lines import Flaw
from etude.data.files.parallel import SIDES, Pair, PairSource, open_again
from etude.data.files.skipped import Policy
from etude.data.store.columns import Column, Part, tokens
from etude.data.store.crew import Crew, Message, Order, cores
from etude.data.store.table import Chunk
from etude.data.tokens.tokenizers import Ids, Tokenizer, load_tokenizer

CHUNK_SAMPLES = 4096
CHUNK_CHARACTERS = 1 << 21
"""How much text is tokenised at once, at most (a longer sample alone excepted)."""

SAMPLES_PER_PROCESS = 100_000
"""What a process needs to be worth its start."""


def pair_columns(tokenizers: Mapping[str, Tokenizer]) -> tuple[Column, ...]:
    """Give the columns of pairs: the tokens of each side."""
    return tuple(tokens(side, tokenizers[side].size) for side in SIDES)


def encoded(
    source: PairSource, tokenizers: Mapping[str, Tokenizer], policy: Policy, *, processes: int | None = None
) -> Generator[Chunk, None, None]:
    """Give all of `source` as chunks, in order; the same ids with any number of processes."""
    if processes is None:
        processes = min(cores(), len(source) // SAMPLES_PER_PROCESS)
    if processes > 1 and source.recipe is not None:
        yield from _encoded_by_crew(source, source.recipe, tokenizers, policy, processes)
    else:
        yield from encoded_here(source, tokenizers, policy, 0, len(source))


def _encoded_by_crew(
    source: PairSource, recipe: str, tokenizers: Mapping[str, Tokenizer], policy: Policy, processes: int
) -> Generator[Chunk, None, None]:
    """Have `source` tokenised by workers that open it anew by its `recipe`."""
    ranges = [(start, min(start + CHUNK_SAMPLES, len(source))) for start in range(0, len(source), CHUNK_SAMPLES)]
    with TemporaryDirectory(prefix="etude-") as folder:
        paths = {side: str(Path(folder, f"{side}.json")) for side in SIDES}
        for side in SIDES:
            tokenizers[side].save(Path(paths[side]))
        needs = {"recipe": recipe, "fingerprint": source.fingerprint(), "tokenizers": paths, "policy": policy}
        order = Order("etude.data.store.pair_encoding:PairWork", needs, "prepared the data")
        with closing(Crew(order, min(processes, len(ranges)))) as crew:
            for _, answer in crew.answers(ranges, lambda samples: Message({"samples": samples})):
                yield from (_unpacked(message, tokenizers) for message in answer)


class PairWork:
    """Tokenises ranges of a source in a worker."""

    def __init__(self, recipe: str, fingerprint: str, tokenizers: Mapping[str, str], policy: Sequence[Any]) -> None:
        self._source = open_again(recipe)
        if self._source.fingerprint() != fingerprint:
            raise DataError(f"{self._source.place(0)[0]} has changed while it was prepared.")
        self._tokenizers = {side: load_tokenizer(Path(path)) for side, path in tokenizers.items()}
        self._policy = Policy(*policy)

    def __call__(self, task: Message) -> Iterator[Message]:
        """Answer a range of samples."""
        return map(_packed, encoded_here(self._source, self._tokenizers, self._policy, *task.facts["samples"]))


def _packed(chunk: Chunk) -> Message:
    flaws = [(index, flaw.reason, flaw.side) for index, flaw in chunk.flaws]
    arrays = [array for part in chunk.parts for array in part if array is not None]
    return Message({"flaws": flaws}, [array.tobytes() for array in arrays])


def _unpacked(message: Message, tokenizers: Mapping[str, Tokenizer]) -> Chunk:
    columns, content = pair_columns(tokenizers), iter(message.parts)
    parts = [
        Part(np.frombuffer(next(content), dtype=column.dtype), np.frombuffer(next(content), dtype=np.int32))
        for column in columns
    ]
    return Chunk(parts, [(index, Flaw(reason, side)) for index, reason, side in message.facts["flaws"]])


def encoded_here(
    source: PairSource, tokenizers: Mapping[str, Tokenizer], policy: Policy, start: int, stop: int
) -> Generator[Chunk, None, None]:
    """Give the samples from `start` to before `stop` as chunks."""
    pairs: list[tuple[int, Pair]] = []
    flaws: list[tuple[int, Flaw]] = []
    characters = 0
    for index, row in enumerate(source.rows(start, stop), start):
        if isinstance(row, Flaw):
            flaws.append((index, row))
        else:
            pairs.append((index, row))
            characters += len(row.source) + len(row.target)
        if len(pairs) + len(flaws) >= CHUNK_SAMPLES or characters >= CHUNK_CHARACTERS:
            yield _chunk(pairs, flaws, tokenizers, policy)
            pairs, flaws, characters = [], [], 0
    if pairs or flaws:
        yield _chunk(pairs, flaws, tokenizers, policy)


def _chunk(
    pairs: list[tuple[int, Pair]],
    flaws: list[tuple[int, Flaw]],
    tokenizers: Mapping[str, Tokenizer],
    policy: Policy,
) -> Chunk:
    flats = [tokenizers[side].encode_flat([pair[n] for _, pair in pairs]) for n, side in enumerate(SIDES)]
    good = np.ones(len(pairs), dtype=bool)
    for side, (_, lengths) in zip(SIDES, flats, strict=True):
        for place in np.flatnonzero(good & wrong_lengths(lengths, policy)):
            good[place] = False
            flaws.append((pairs[place][0], Flaw(length_reason(side, int(lengths[place]), policy), side)))
    flaws.sort(key=lambda flaw: flaw[0])
    columns = pair_columns(tokenizers)
    return Chunk([good_rows(column, *flat, good) for column, flat in zip(columns, flats, strict=True)], flaws)


def good_rows(column: Column, ids: Ids, lengths: Ids, good: npt.NDArray[np.bool_]) -> Part:
    """Give the rows that are good."""
    used = ids if good.all() else ids[np.repeat(good, lengths)]
    return Part(used.astype(column.dtype), lengths[good].astype(np.int32))


def wrong_lengths(lengths: npt.NDArray[np.int64], policy: Policy) -> npt.NDArray[np.bool_]:
    """Tell which texts cannot be used for their length."""
    none: npt.NDArray[np.bool_] = lengths == 0  # a normaliser may take away all there is
    return none if policy.max_length is None else none | (lengths > policy.max_length)


def length_reason(side: str, length: int, policy: Policy) -> str:
    """Say why the text of a side cannot be used, which has so many tokens."""
    if length:
        return f"the {side} has {length} tokens, more than data.max_length = {policy.max_length}"
    return f"the {side} has no token"
