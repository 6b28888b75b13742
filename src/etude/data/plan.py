"""Which samples make which batch: computed from (seed, epoch), never stored, sought in constant time.

A plan gives the batches of an epoch as arrays of sample numbers. Every rank makes the same plan of global batches and
takes its share of each: every `world`-th sample, beginning with its rank. So every rank takes the same number of
steps, no sample is taken twice, and a share is at most one sample larger than another (the share of a last batch with
fewer samples than ranks may be empty).

A position is a small mapping of integers that a batch carries; the plan goes on right after that batch.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from etude.base.randomness import Permutation, seed_of

Ints = NDArray[np.int64]
Keys = Sequence[Any] | Ints
Position = Mapping[str, int]

LOOK = 4096
"""Samples whose place in the order is computed at once: enough to make the cost of numpy's calls small."""


class Planned(NamedTuple):
    """One batch of a plan."""

    indices: Keys
    """Samples of this rank's share, [B]: numbers, or the keys that a user's sampler gives."""
    samples: int
    """Samples of the whole batch, all ranks together."""
    position: dict[str, int]
    """Where the plan stands after this batch: `batch` and `sample` count this epoch's."""
    last: bool
    """Whether this batch ends its epoch."""


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

    def resized(self, position: Position, size: int) -> dict[str, int]:
        """Give `position` such that the epoch goes on with batches of another size, from the next that it plans."""


class Share(NamedTuple):
    """Which part of every batch a process takes."""

    rank: int = 0
    world: int = 1

    def of(self, indices: Any) -> Any:
        """Give this rank's samples of a global batch."""
        return indices if self.world == 1 else indices[self.rank :: self.world]


ALONE = Share()


class Order:
    """The order of `n` samples in one epoch: a computed permutation, or 0, 1, 2, ..."""

    def __init__(self, n: int, seed: int, epoch: int, *, shuffle: bool) -> None:
        self._permutation = Permutation(n, seed_of(seed, "order", epoch)) if shuffle and n else None

    def take(self, start: int, stop: int) -> Ints:
        """Give the samples at places start to stop of the order."""
        if self._permutation is None:
            return np.arange(start, stop, dtype=np.int64)
        return self._permutation.take(start, stop)


class CountPlan:
    """Batches of `size` samples (all ranks together): batch b is places b * size to (b + 1) * size of the order.

    The last batch of an epoch may be smaller; with `drop_last` a smaller one is left out.
    """

    def __init__(
        self, n: int, size: int, *, seed: int, shuffle: bool, share: Share = ALONE, drop_last: bool = False
    ) -> None:
        self._n = n
        self._size = size
        self._seed = seed
        self._shuffle = shuffle
        self._share = share
        self._drop_last = drop_last

    @property
    def samples(self) -> int:
        """Samples of an epoch, all ranks together; None where unknown."""
        return self._end(self._size)

    @property
    def batches(self) -> int:
        """Batches of an epoch; None where unknown."""
        return -(-self.samples // self._size)

    @property
    def exact(self) -> bool:
        """Whether `batches` is the number in every epoch."""
        return True

    def resize(self, size: int) -> None:
        """Set what a batch holds, for epochs begun from now on; one that is continued keeps its own size."""
        self._size = size

    def resized(self, position: Position, size: int) -> dict[str, int]:
        """Give `position` such that its epoch goes on with another size, from the next batches it plans."""
        return {**position, "size": size}

    def epoch(self, epoch: int, position: Position | None = None) -> Iterator[Planned]:
        """Give the batches of an epoch, from its begin or right after the one that carried `position`."""
        position = position or {"batch": 0, "sample": 0, "size": self._size}
        batch, start, size = position["batch"], position["sample"], position["size"]
        order = Order(self._n, self._seed, epoch, shuffle=self._shuffle)
        end = start + self._end(size, self._n - start)
        look = size * max(1, LOOK // size)
        while start < end:
            places = order.take(start, min(end, start + look))
            for cut in range(0, len(places), size):
                indices = places[cut : cut + size]
                start += len(indices)
                batch += 1
                after = {"batch": batch, "sample": start, "size": size}
                yield Planned(self._share.of(indices), len(indices), after, start == end)

    def _end(self, size: int, left: int | None = None) -> int:
        left = self._n if left is None else left
        return left - left % size if self._drop_last else left
