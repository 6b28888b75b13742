"""The feed of a prepared corpus of sentence pairs."""

from collections.abc import Callable, Sequence

import numpy as np

from etude.data.feeds.batches import SOURCE_SPECIALS, TARGET_SPECIALS, pair_batch
from etude.data.feeds.batching import Batching
from etude.data.feeds.table_feed import ColumnTable, Size, TableFeed, TableRows
from etude.data.order.curriculum import Curriculum
from etude.data.order.plan import Ints, Measure
from etude.data.order.windows import WINDOW, too_long

CHECKED = 10_000_000
"""Samples whose lengths are looked through at the start, in a few milliseconds."""
SIDES = Size("source", SOURCE_SPECIALS), Size("target", TARGET_SPECIALS)
END = 1
"""Targets that a loss counts beside the tokens of a target: its end."""


def pair_rows(table: ColumnTable) -> TableRows:
    """Give the rows of a table as samples whose batches are `PairBatch`."""
    return TableRows(table, pair_batch, SIDES, Size("target", END))


def pair_feed(
    table: ColumnTable,
    batching: Batching,
    *,
    place: Callable[[int], str] = "Sample {} (counted from 0)".format,
    curriculum: Curriculum | None = None,
    longest: int | None = None,
    window: int = WINDOW,
) -> TableFeed:
    """Make a feed of pairs of `table`.

    A pair that alone exceeds the token budget is a DataError at once in a corpus of up to `CHECKED` pairs, in a larger
    one when its window is planned. `place` says what messages call a sample of the source, such as `train.tsv, line
    14`; `longest` that no pair with more tokens on a side ever takes part.
    """
    refuse_too_long(table, SIDES, batching, place, longest)
    return TableFeed(pair_rows(table), batching, curriculum=curriculum, window=window)


def refuse_too_long(
    table: ColumnTable,
    sides: Sequence[Size],
    batching: Batching,
    place: Callable[[int], str],
    longest: int | None = None,
) -> None:
    """Find now, where that is cheap, the sample that would end the epoch in which its window is planned."""
    budget = batching.batch_tokens
    if budget is None:
        return
    if longest is not None and longest + TARGET_SPECIALS <= budget:
        return
    for side, specials in sides:
        lengths = table.lengths(str(side))
        # The largest first: for its place numpy would copy all of a read-only map.
        if isinstance(lengths, np.ndarray) and 0 < len(lengths) <= CHECKED and int(lengths.max()) + specials > budget:
            row = int(lengths.argmax())
            raise too_long(place(table.origin(row)), int(lengths[row]) + specials, budget)


def pair_measures(table: ColumnTable) -> tuple[Measure, Measure]:
    """Give how long rows are as a limit counts (tokens of the longer side), and as a batch does (special ones too)."""
    lengths = pair_rows(table).lengths

    def longer(rows: Ints) -> Ints:
        source, target = lengths(rows)
        return np.maximum(source - SOURCE_SPECIALS, target - TARGET_SPECIALS)

    def places(rows: Ints) -> Ints:
        return np.maximum(*lengths(rows))

    return longer, places
