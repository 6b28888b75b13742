"""Which samples make which batch: computed from (seed, epoch), never stored, sought in constant time.

A plan gives the batches of an epoch as arrays of sample numbers. Every rank makes the same plan of global batches and
takes its share of each: every `world`-th sample, beginning with its rank. So every rank takes the same number of
steps, no sample is taken twice, and a share is at most one sample larger than another. A rank whose share of a last
batch is empty, since that has fewer samples than there are ranks, borrows its first sample, which is not to count.

A position is a small mapping of numbers that a batch carries; the plan goes on right after that batch.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from etude.base.randomness import Permutation, seed_of

Ints = NDArray[np.int64]
Keys = Sequence[object] | Ints
Number = int | float
Position = Mapping[str, Any]

Measure = Callable[[Ints], NDArray[Any]]
"""A number for each of some samples: their lengths, or how difficult they are."""

LOOK = 4096
"""Samples whose place in the order is computed at once: enough to make the cost of numpy's calls small."""


class Planned(NamedTuple):
    """One batch of a plan."""

    indices: Keys
    """Samples of this rank's share, [B]: numbers, or the keys that a user's sampler gives."""
    samples: int
    """Samples of the whole batch, all ranks together."""
    position: dict[str, Any]
    """Where the plan stands after this batch: `batch` and `sample` count this epoch's."""
    last: bool
    """Whether this batch ends its epoch."""
    borrowed: bool = False
    """Whether this rank's share is empty, so that `indices` hold a sample of another's."""


class Plan(Protocol):
    """The batches of every epoch."""

    @property
    def samples(self) -> int | None:
        """Samples of an epoch, all ranks together; None where unknown."""

    @property
    def batches(self) -> int | None:
        """Batches of an epoch at the present size; an estimate unless `exact`; None where unknown."""

    @property
    def exact(self) -> bool:
        """Whether every epoch has exactly `batches` batches."""

    def epoch(self, epoch: int, position: Position | None = None) -> Iterator[Planned]:
        """Give the batches of an epoch, from its begin or right after the one that carried `position`."""

    def resize(self, size: int) -> None:
        """Set what a batch holds, for epochs begun from now on; one that is continued keeps its own size."""


class Share(NamedTuple):
    """Which part of every batch a process takes."""

    rank: int = 0
    world: int = 1

    def of(self, indices: Any) -> Any:
        """Give this rank's samples of a global batch; where it has none, the first."""
        if self.world == 1:
            return indices
        return indices[:1] if self.borrows(len(indices)) else indices[self.rank :: self.world]

    def borrows(self, samples: int) -> bool:
        """Whether this rank has none of the samples of a global batch."""
        return samples <= self.rank


ALONE = Share()


class Order(Protocol):
    """The samples of one epoch, by their places in it."""

    @property
    def ease(self) -> Measure | None:
        """What the samples ascend by, where they do: then batches are not to be mixed."""

    def __len__(self) -> int: ...

    def take(self, start: int, stop: int) -> Ints:
        """Give the samples at places start to stop."""


class Shuffled:
    """The order of `n` samples in one epoch: a computed permutation, or 0, 1, 2, ..."""

    ease: Measure | None = None

    def __init__(self, n: int, seed: int, epoch: int, *, shuffle: bool = True) -> None:
        self._n = n
        self._permutation = Permutation(n, seed_of(seed, "order", epoch)) if shuffle and n else None

    def __len__(self) -> int:
        return self._n

    def take(self, start: int, stop: int) -> Ints:
        """Give the samples at places start to stop of the order."""
        if self._permutation is None:
            return np.arange(start, min(stop, self._n), dtype=np.int64)
        return self._permutation.take(start, stop)


class Orders(Protocol):
    """The order of every epoch, within limits that may change from one to the next."""

    @property
    def limits(self) -> Mapping[str, Number]:
        """What bounds the samples of an epoch that begins now; a position carries it."""

    @property
    def fixed(self) -> bool:
        """Whether every epoch has the same samples."""

    def count(self) -> int:
        """Count the samples of an epoch that begins now."""

    def of(self, epoch: int, limits: Mapping[str, Number]) -> Order:
        """Give the order of an epoch that began within `limits`. Raises DataError where no sample is."""

    def typical(self) -> Order:
        """Give an order to estimate from what an epoch that begins now would hold."""


class Permuted:
    """All of `n` samples in every epoch, in an order of its own; without `shuffle`, in theirs."""

    limits: Mapping[str, Number] = {}
    fixed = True

    def __init__(self, n: int, seed: int, *, shuffle: bool) -> None:
        self._n = n
        self._seed = seed
        self._shuffle = shuffle

    def count(self) -> int:
        """Count the samples."""
        return self._n

    def of(self, epoch: int, limits: Mapping[str, Number]) -> Order:
        """Give the order of an epoch."""
        del limits
        return Shuffled(self._n, self._seed, epoch, shuffle=self._shuffle)

    def typical(self) -> Order:
        """Give the order of the first epoch."""
        return self.of(0, {})


class CountPlan:
    """Batches of `size` samples (all ranks together): batch b is places b * size to (b + 1) * size of the order.

    The last batch of an epoch may be smaller; with `drop_last` a smaller one is left out. `orders` take the place of
    a permutation of all `n` samples.
    """

    def __init__(
        self,
        n: int,
        size: int,
        *,
        seed: int,
        shuffle: bool,
        share: Share = ALONE,
        drop_last: bool = False,
        orders: Orders | None = None,
    ) -> None:
        self._size = size
        self._share = share
        self._drop_last = drop_last
        self._orders = orders or Permuted(n, seed, shuffle=shuffle)

    @property
    def samples(self) -> int:
        """Samples of an epoch, all ranks together; None where unknown."""
        return self._whole(self._orders.count(), self._size)

    @property
    def batches(self) -> int:
        """Batches of an epoch; None where unknown."""
        return -(-self.samples // self._size)

    @property
    def exact(self) -> bool:
        """Whether `batches` is the number in every epoch."""
        return self._orders.fixed

    def resize(self, size: int) -> None:
        """Set what a batch holds, for epochs begun from now on; one that is continued keeps its own size."""
        self._size = size

    def epoch(self, epoch: int, position: Position | None = None) -> Iterator[Planned]:
        """Give the batches of an epoch, from its begin or right after the one that carried `position`."""
        position = position or {"batch": 0, "sample": 0, "size": self._size, **self._orders.limits}
        batch, start, size = position["batch"], position["sample"], position["size"]
        limits = {name: position[name] for name in self._orders.limits}
        order = self._orders.of(epoch, limits)
        end = start + self._whole(len(order) - start, size)
        look = size * max(1, LOOK // size)
        while start < end:
            places = order.take(start, min(end, start + look))
            for cut in range(0, len(places), size):
                indices = places[cut : cut + size]
                start += len(indices)
                batch += 1
                after = {"batch": batch, "sample": start, "size": size, **limits}
                borrowed = self._share.borrows(len(indices))
                yield Planned(self._share.of(indices), len(indices), after, start == end, borrowed)

    def _whole(self, left: int, size: int) -> int:
        return left - left % size if self._drop_last else left
