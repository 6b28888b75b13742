"""The feed of a prepared corpus of sentence pairs."""

from collections.abc import Callable

import numpy as np

from etude.base.says import Say, unheard
from etude.data.feeds.batches import SOURCE_SPECIALS, TARGET_SPECIALS, PairBatch, PairTable, pair_batch
from etude.data.feeds.feed import Limit
from etude.data.feeds.planned import PlannedFeed
from etude.data.feeds.workers import Workers
from etude.data.order.curriculum import Curriculum
from etude.data.order.plan import CountPlan, Ints, Keys, Measure, Plan, Share
from etude.data.order.windows import WINDOW, Budget, Count, WindowPlan, too_long

CHECKED = 10_000_000
"""Samples whose lengths are looked through at the start, in a few milliseconds."""


class PairFeed(PlannedFeed):
    """Batches of pairs from `table`, by count (`batch_size`) or by token budget (`batch_tokens`), all ranks together.

    Training by count takes the order of the epoch as it comes; by budget, pairs of similar lengths. With
    `evaluation`, and without `shuffle`, every epoch is the same, every pair once; evaluation sorts by length for
    speed, whichever way its batches are cut. Nothing is dropped: a pair that alone exceeds the budget is a DataError,
    at once in a corpus of up to `CHECKED` pairs, in a larger one when its window is planned.

    `place` says what messages call a sample of the source, such as `train.tsv, line 14`.

    A `curriculum` says which samples an epoch takes and in which order; `longest` that none above so many tokens ever
    takes part.

    One fixed set to overfit is `shuffle=False` and a `limit`; validation takes the same set with the same arguments.
    """

    def __init__(  # noqa: PLR0913 - the options of [data] and [train], one for one
        self,
        table: PairTable,
        *,
        seed: int,
        batch_size: int | None = None,
        batch_tokens: int | None = None,
        shuffle: bool = True,
        evaluation: bool = False,
        workers: int = 0,
        pin_memory: bool = False,
        rank: int = 0,
        world: int = 1,
        limit: Limit | None = None,
        varying: bool = False,
        notice: Say = unheard,
        window: int = WINDOW,
        place: Callable[[int], str] = "Sample {} (counted from 0)".format,
        curriculum: Curriculum | None = None,
        longest: int | None = None,
    ) -> None:
        if (batch_size is None) == (batch_tokens is None):
            raise ValueError("A feed takes either batch_size or batch_tokens.")
        if batch_tokens is not None:
            _refuse_too_long(table, batch_tokens, place, longest)
        fetch = PairFetch(table)
        share = Share(rank, world)
        plan: Plan
        if batch_size is not None and not evaluation:
            plan = CountPlan(len(table), batch_size, seed=seed, shuffle=shuffle, share=share, orders=curriculum)
        else:
            plan = WindowPlan(
                len(table),
                PairLengths(table),
                Budget if batch_tokens is not None else Count,
                batch_tokens or batch_size or 0,
                seed=seed,
                shuffle=shuffle and not evaluation,
                share=share,
                window=window,
                orders=curriculum,
            )
        crew = Workers(fetch, count=workers, pin_memory=pin_memory) if workers else None
        self._table = table
        self._curriculum = curriculum
        super().__init__(
            plan,
            fetch,
            workers=crew,
            pin_memory=pin_memory,
            limit=limit,
            varying=varying,
            notice=notice,
        )

    def restrict(self, name: str, limit: float) -> None:
        """Set a limit of the curriculum, for epochs begun from now on; one that is continued keeps its own."""
        if self._curriculum is None:
            raise ValueError("A feed without a curriculum has no limits.")
        self._curriculum.restrict(name, limit)

    @property
    def targets(self) -> float | None:
        """Targets of an epoch that a loss counts (every token and the end of each pair); None where not known."""
        count = getattr(self._table, "total", None)
        if count is None or not len(self._table):
            return None
        share = (self.samples or len(self._table)) / len(self._table)
        return float(count("target") + len(self._table)) * share


def _refuse_too_long(table: PairTable, budget: int, place: Callable[[int], str], longest: int | None) -> None:
    """Find now, where that is cheap, the sample that would end the epoch in which its window is planned."""
    if longest is not None and longest + TARGET_SPECIALS <= budget:
        return
    for side, specials in (("source", SOURCE_SPECIALS), ("target", TARGET_SPECIALS)):
        lengths = table.lengths(side)
        # The largest first: for its place numpy would copy all of a read-only map.
        if isinstance(lengths, np.ndarray) and 0 < len(lengths) <= CHECKED and int(lengths.max()) + specials > budget:
            row = int(lengths.argmax())
            origin = getattr(table, "origin", lambda row: row)
            raise too_long(place(origin(row)), int(lengths[row]) + specials, budget)


def pair_measures(table: PairTable) -> tuple[Measure, Measure]:
    """Give how long rows are as a limit counts (tokens of the longer side), and as a batch does (special ones too)."""
    lengths = PairLengths(table)

    def longer(rows: Ints) -> Ints:
        source, target = lengths(rows)
        return np.maximum(source - SOURCE_SPECIALS, target - TARGET_SPECIALS)

    def places(rows: Ints) -> Ints:
        return np.maximum(*lengths(rows))

    return longer, places


class PairFetch:
    """Makes a batch of a table's rows."""

    def __init__(self, table: PairTable) -> None:
        self._table = table

    def __call__(self, epoch: int, indices: Keys) -> PairBatch:
        """Give the batch of the rows `indices`, the same in every epoch."""
        del epoch
        return pair_batch(self._table, np.asarray(indices, dtype=np.int64))


class PairLengths:
    """The lengths of a table's rows by side, with the special tokens that a batch adds."""

    def __init__(self, table: PairTable) -> None:
        # A view of a mapped file as a plain array: nothing is read, and indexing it is quicker.
        self._source, self._target = (
            lengths.view(np.ndarray) if isinstance(lengths, np.ndarray) else lengths
            for lengths in (table.lengths("source"), table.lengths("target"))
        )

    def __call__(self, indices: Ints) -> tuple[Ints, Ints]:
        """Give the lengths of the rows `indices`: source [B], target [B]."""
        source = np.asarray(self._source[indices], dtype=np.int64) + SOURCE_SPECIALS
        target = np.asarray(self._target[indices], dtype=np.int64) + TARGET_SPECIALS
        return source, target
