"""The feed of a table: batches of any of its columns, by count or by token budget."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol, final

import numpy as np
from numpy.typing import NDArray

from etude.data.feeds.batching import Batching, workers_of
from etude.data.feeds.feed import Feed
from etude.data.feeds.fetching import Counted
from etude.data.feeds.planned import PlannedFeed
from etude.data.order.curriculum import Curriculum
from etude.data.order.plan import CountPlan, Ints, Keys, Plan
from etude.data.order.windows import WINDOW, Budget, Count, WindowPlan


class Samples(Protocol):
    """Samples by number, of which batches are made."""

    def __len__(self) -> int: ...

    def lengths(self, indices: Ints) -> tuple[Ints, Ints]:
        """Give how long samples are on both sides, as a budget counts: [B] each; zeros where there is one side."""

    def batch(self, indices: Ints) -> object:
        """Make a batch of samples, in this order; there may be none."""

    def targets(self, indices: Ints) -> int:
        """Count the targets in that batch that a loss counts, without making it."""

    def expected(self, samples: int) -> float | None:
        """Estimate the targets of so many samples; None where not known."""

    @property
    def unit(self) -> str:
        """What lengths are in, as messages say it."""
        return "tokens"

    @property
    def drawn(self) -> bool:
        """Whether epochs change what a sample is: its length, or what is heard of it."""
        return False

    def at(self, epoch: int) -> "Samples":
        """Give the samples as an epoch has them."""
        del epoch
        return self


@final
class TableFeed(PlannedFeed):
    """Batches of samples of a table.

    Training by count takes the order of the epoch as it comes; by budget, samples of similar lengths. In evaluation,
    and without `shuffle`, every epoch is the same, every sample once; evaluation sorts by length for speed, whichever
    way its batches are cut. Nothing is dropped: a sample that alone exceeds the budget is a DataError.

    A `curriculum` says which samples an epoch takes and in which order. One fixed set to overfit is `shuffle=False`
    and a `limit`; validation takes the same set with the same arguments.
    """

    def __init__(
        self,
        samples: Samples,
        batching: Batching,
        *,
        curriculum: Curriculum | None = None,
        window: int = WINDOW,
    ) -> None:
        self._rows = samples
        self._curriculum = curriculum
        plan = _plan(samples, batching, curriculum, window)
        fetch = SampleBatches(samples)
        super().__init__(
            plan,
            fetch,
            workers=workers_of(batching, fetch),
            pin_memory=batching.pin_memory,
            limit=batching.limit,
            varying=batching.varying,
            notice=batching.notice,
        )

    def restrict(self, name: str, limit: float) -> None:
        """Set a limit of the curriculum, for epochs begun from now on; one that is continued keeps its own."""
        if self._curriculum is None:
            raise ValueError("A feed without a curriculum has no limits.")
        self._curriculum.restrict(name, limit)

    def counted(self) -> Feed:
        """Give a feed of the same epochs whose deliveries hold, in place of a batch, its targets."""
        return self.fetching(Counted(self._rows.targets))

    def places(self, epoch: int, keys: Keys) -> int:
        """Give the places of that batch on both sides, padding included, and one more for each sample."""
        if not len(keys):
            return 0
        sources, targets = self._rows.at(epoch).lengths(np.asarray(keys, dtype=np.int64))
        return len(keys) * (int(sources.max()) + int(targets.max()) + 1)

    @property
    def targets(self) -> float | None:
        """Targets of an epoch that a loss counts; None where not known."""
        return self._rows.expected(self.samples or len(self._rows)) if len(self._rows) else None


def _plan(samples: Samples, batching: Batching, curriculum: Curriculum | None, window: int) -> Plan:
    if not batching.by_tokens and not batching.evaluation:
        return CountPlan(
            len(samples),
            batching.size,
            seed=batching.seed,
            shuffle=batching.shuffle,
            share=batching.share,
            orders=curriculum,
        )
    return WindowPlan(
        len(samples),
        samples.lengths,
        partial(Budget, unit=samples.unit) if batching.by_tokens else Count,
        batching.size,
        seed=batching.seed,
        shuffle=batching.shuffled,
        share=batching.share,
        window=window,
        orders=curriculum,
        drawn=(lambda epoch: samples.at(epoch).lengths) if samples.drawn else None,
    )


@final
class SampleBatches:
    """Makes the batches of a feed."""

    def __init__(self, samples: Samples) -> None:
        self._samples = samples

    def __call__(self, epoch: int, indices: Keys) -> object:
        """Give the batch of the samples `indices`, as the epoch has them."""
        return self._samples.at(epoch).batch(np.asarray(indices, dtype=np.int64))


class ColumnTable(Protocol):
    """What is asked of a table whose rows are samples."""

    def __len__(self) -> int: ...

    def lengths(self, column: str, /) -> Any:
        """Give the places of every row in a column: [N], indexable by an array of rows."""

    def gather(self, column: str, indices: Ints, /) -> tuple[NDArray[Any], Ints]:
        """Give the values of rows one after another, and how many each has."""

    def total(self, column: str, /) -> int | None:
        """Give the places of all rows in a column; None where that is not known."""

    def origin(self, row: int, /) -> int:
        """Give which sample of its source a row is."""


class Size(NamedTuple):
    """How long a row is: its places in a column, and some more."""

    column: str | None
    """None counts nothing but `more`."""
    more: int = 0
    """Special tokens that a batch adds."""


@final
@dataclass(frozen=True)
class TableRows(Samples):
    """The rows of a table as samples."""

    table: ColumnTable
    collate: Callable[[Any, Ints], object]
    """Makes a batch of a table and some of its rows; workers that are not forked must be able to pickle it."""
    sides: tuple[Size, Size]
    """What a budget counts of a row."""
    counted: Size
    """How many of its targets a loss counts."""

    def __len__(self) -> int:
        return len(self.table)

    def lengths(self, indices: Ints) -> tuple[Ints, Ints]:
        """Give how long rows are on both sides: [B] each."""
        one, other = self.sides
        return self._sizes(one, indices), self._sizes(other, indices)

    def batch(self, indices: Ints) -> object:
        """Make a batch of rows."""
        return self.collate(self.table, indices)

    def targets(self, indices: Ints) -> int:
        """Count the targets of rows."""
        return int(self._sizes(self.counted, indices).sum())

    def expected(self, samples: int) -> float | None:
        """Estimate the targets of so many rows; None where not known."""
        column, more = self.counted
        places = 0 if column is None else self.table.total(column)
        if places is None:
            return None
        return float(places + more * len(self)) * (samples / len(self))

    def _sizes(self, size: Size, indices: Ints) -> Ints:
        if size.column is None:
            return np.full(len(indices), size.more, dtype=np.int64)
        return np.asarray(self.table.lengths(size.column)[indices], dtype=np.int64) + size.more
