"""What the loop takes batches from.

A feed's order is a function of (seed, epoch) alone. Every batch carries the position after it, so whoever keeps the
position of the last batch that was used goes on with the next one, whatever was loaded ahead.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple

from etude.base.errors import ConfigError
from etude.data.feeds.remembered import Memory
from etude.data.order.plan import Position, Share

NOTHING = Memory()


class Delivery(NamedTuple):
    """One batch and where the feed stands after it."""

    batch: Any
    samples: int
    """Samples of the batch, all ranks together."""
    position: Position
    """JSON; handed back to `Feed.epoch`, it goes on right after this batch."""
    done: int
    """How much of the epoch is done after this batch, in the unit of the feed's `epoch_total`."""
    last: bool
    """Whether this batch ends its epoch."""
    piece: int = 0
    """Which piece of a batch this is, where batches are split along time."""
    ends: bool = True
    """Whether this is all, or the last piece, of what the loader handed over."""
    borrowed: bool = False
    """Whether this rank has no sample of the batch: what it holds is another's, and is not to count."""


class Feed(ABC):
    """Batches, epoch by epoch.

    A feed defines the first six; the others have a default that is right for a feed of which nothing more is known.
    """

    @property
    @abstractmethod
    def epoch_total(self) -> int:
        """What one epoch holds: batches, or samples where batches cannot be counted ahead; 0 where unknown."""

    @property
    @abstractmethod
    def batches(self) -> int | None:
        """Batches of an epoch: exact where `exact`, else an estimate; None where unknown."""

    @property
    @abstractmethod
    def exact(self) -> bool:
        """Whether `batches` is the number in every epoch."""

    @property
    @abstractmethod
    def samples(self) -> int | None:
        """Samples of an epoch, all ranks together; None where unknown."""

    @abstractmethod
    def epoch(self, epoch: int, position: Position | None = None) -> Iterator[Delivery]:
        """Give the batches of an epoch, from its begin or right after the one that carried `position`."""

    @abstractmethod
    def close(self) -> None:
        """End worker processes; the feed can be used again."""

    @property
    def pieces(self) -> float | None:
        """How many deliveries the steps of an epoch are formed of, perhaps on average; None where unknown."""
        return self.batches

    @property
    def targets(self) -> float | None:
        """Targets of an epoch that a loss counts; None where unknown."""
        return None

    @property
    def repeatable(self) -> bool:
        """Whether an epoch can be looked at and begun again."""
        return True

    @property
    def memory(self) -> Memory:
        """What the data has come to remember: a part of a run's state."""
        return NOTHING

    @property
    def now(self) -> tuple[int | None, int | None]:
        """Batches and samples of an epoch that would begin now; None where unknown."""
        return self.batches, self.samples

    @property
    def resizable(self) -> bool:
        """Whether `resize` sets what a batch holds."""
        return False

    def expect(self, batches: int, samples: int, pieces: float) -> None:
        """Let `batches`, `samples` and `pieces` tell of an average epoch of the run, where epochs differ."""
        raise self._fixed(f"{batches} batches, {samples} samples and {pieces} pieces an epoch")

    def resize(self, size: int) -> None:
        """Set what a batch holds, for epochs begun from now on; one that is continued keeps its own size."""
        raise self._fixed(f"batches of {size}")

    def resize_block(self, block: int) -> None:
        """Set the length of rows, for epochs begun from now on; one that is continued keeps its own."""
        raise self._fixed(f"rows of {block} tokens")

    def restrict(self, name: str, limit: float) -> None:
        """Set a limit of what takes part, for epochs begun from now on; one that is continued keeps its own."""
        raise self._fixed(f"{name} = {limit}")

    def reweigh(self, source: int, weight: float) -> None:
        """Set the weight of a source of a mixture, for epochs begun from now on; one continued keeps its own."""
        raise self._fixed(f"weight {weight} of source {source}")

    def in_turns(self, share: Share) -> Iterator[Delivery]:
        """Give one of every `share.world` batches, beginning with number `share.rank`, to be evaluated."""
        return islice(self.epoch(0), share.rank, None, share.world)

    def counted(self) -> "Feed | None":
        """Give a feed of the same epochs whose deliveries hold, in place of a batch, how many targets a loss counts.

        Nothing is fetched for it. It is planned by what this feed is set to. None where targets are not known.
        """
        return None

    def _fixed(self, asked: str) -> ValueError:
        return ValueError(f"{type(self).__name__} cannot be set to {asked}.")


Limit = float | int
"""A share of an epoch's batches (a float, 0 < f <= 1) or a number of batches (an integer)."""


def limited(limit: Limit | None, batches: int | None) -> int | None:
    """Turn a limit into a number of batches, at least one; None for all.

    >>> limited(0.25, 10), limited(1, 10), limited(1.0, 10), limited(50, 10)
    (2, 1, None, None)
    """
    match limit:
        case None:
            return None
        case int():
            return _first_batches(limit, batches)
    if not 0 < limit <= 1:
        raise ConfigError(f"A limit must be a share in (0, 1] or a whole number of batches, but is {limit}.")
    if limit == 1:
        return None
    if batches is None:
        raise ConfigError(
            f"A limit of {limit} needs data whose batches can be counted; give a number of batches instead."
        )
    return max(1, math.floor(limit * batches + 1e-9))


def _first_batches(limit: int, batches: int | None) -> int | None:
    if limit < 1:
        raise ConfigError(f"A limit must be at least one batch, but is {limit}.")
    return limit if batches is None or limit < batches else None
