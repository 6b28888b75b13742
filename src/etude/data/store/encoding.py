"""Pairs to ids, in shards: in this process, or in several when there is much to do."""

import os
from collections.abc import Generator, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from etude.data.files.lines import Flaw
from etude.data.files.parallel import SIDES, Pair, PairSource
from etude.data.files.skipped import Policy
from etude.data.tokens.tokenizers import Tokenizer

SHARD_SAMPLES = 4096
SHARD_CHARACTERS = 1 << 21
"""How much text is tokenised at once, at most (a longer sample alone excepted)."""

SAMPLES_PER_PROCESS = 100_000
"""What a process needs to be worth its start."""

Side = tuple[npt.NDArray[Any], npt.NDArray[np.int32]]
"""The ids of all rows of one side, one after the other, and the length of each row."""


class Shard(NamedTuple):
    """What became of some samples in a row: the rows of each side, and the samples that cannot be used."""

    sides: tuple[Side, ...]
    flaws: list[tuple[int, Flaw]]


def id_type(tokenizer: Tokenizer) -> str:
    """Name the smallest type that holds every id."""
    return "uint16" if tokenizer.size <= 1 << 16 else "uint32"


def encoded(
    source: PairSource, tokenizers: Mapping[str, Tokenizer], policy: Policy, *, processes: int | None = None
) -> Generator[Shard, None, None]:
    """Give all of `source` as shards, in order; the same ids with any number of processes."""
    if processes is None:
        processes = min(cores(), len(source) // SAMPLES_PER_PROCESS)
    recipe = getattr(source, "recipe", None)
    if processes > 1 and recipe is not None:
        from etude.data.store.crew import encoded_by_crew

        yield from encoded_by_crew(source, recipe, tokenizers, policy, processes)
    else:
        yield from encoded_here(source, tokenizers, policy, 0, len(source))


def encoded_here(
    source: PairSource, tokenizers: Mapping[str, Tokenizer], policy: Policy, start: int, stop: int
) -> Generator[Shard, None, None]:
    """Give the samples from `start` to before `stop` as shards."""
    pairs: list[tuple[int, Pair]] = []
    flaws: list[tuple[int, Flaw]] = []
    characters = 0
    for index, row in enumerate(source.rows(start, stop), start):
        if isinstance(row, Flaw):
            flaws.append((index, row))
        else:
            pairs.append((index, row))
            characters += len(row.source) + len(row.target)
        if len(pairs) + len(flaws) >= SHARD_SAMPLES or characters >= SHARD_CHARACTERS:
            yield _shard(pairs, flaws, tokenizers, policy)
            pairs, flaws, characters = [], [], 0
    if pairs or flaws:
        yield _shard(pairs, flaws, tokenizers, policy)


def cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _shard(
    pairs: list[tuple[int, Pair]],
    flaws: list[tuple[int, Flaw]],
    tokenizers: Mapping[str, Tokenizer],
    policy: Policy,
) -> Shard:
    flats = [tokenizers[side].encode_flat([pair[n] for _, pair in pairs]) for n, side in enumerate(SIDES)]
    good = np.ones(len(pairs), dtype=bool)
    for side, (_, lengths) in zip(SIDES, flats, strict=True):
        for place in np.flatnonzero(good & _wrong(lengths, policy)):
            good[place] = False
            flaws.append((pairs[place][0], Flaw(_reason(side, int(lengths[place]), policy), side)))
    flaws.sort(key=lambda flaw: flaw[0])
    kept = []
    for side, (ids, lengths) in zip(SIDES, flats, strict=True):
        used = ids if good.all() else ids[np.repeat(good, lengths)]
        kept.append((used.astype(id_type(tokenizers[side])), lengths[good].astype(np.int32)))
    return Shard(tuple(kept), flaws)


def _wrong(lengths: npt.NDArray[np.int64], policy: Policy) -> npt.NDArray[np.bool_]:
    none: npt.NDArray[np.bool_] = lengths == 0  # a normaliser may take away all there is
    return none if policy.max_length is None else none | (lengths > policy.max_length)


def _reason(side: str, length: int, policy: Policy) -> str:
    if length:
        return f"the {side} has {length} tokens, more than data.max_length = {policy.max_length}"
    return f"the {side} has no token"
