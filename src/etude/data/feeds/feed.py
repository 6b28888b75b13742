"""What the loop takes batches from.

A feed's order is a function of (seed, epoch) alone. Every batch carries the position after it, so whoever keeps the
position of the last batch that was used goes on with the next one, whatever was loaded ahead.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

from etude.base.errors import ConfigError


class Delivery(NamedTuple):
    """One batch and where the feed stands after it."""

    batch: Any
    samples: int
    """Samples of the batch, all ranks together."""
    position: Mapping[str, Any]
    """JSON; handed back to `Feed.epoch`, it goes on right after this batch."""
    done: int
    """How much of the epoch is done after this batch, in the unit of the feed's `epoch_total`."""
    last: bool
    """Whether this batch ends its epoch."""
    piece: int = 0
    """Which piece of a batch this is, where batches are split along time."""
    ends: bool = True
    """Whether this is all, or the last piece, of what the loader handed over."""


class Feed(Protocol):
    """Batches, epoch by epoch."""

    @property
    def epoch_total(self) -> int:
        """What one epoch holds: batches, or samples where batches cannot be counted ahead; 0 where unknown."""

    @property
    def batches(self) -> int | None:
        """Batches of an epoch: exact where `exact`, else an estimate; None where unknown."""

    @property
    def exact(self) -> bool:
        """Whether `batches` is the number in every epoch."""

    @property
    def samples(self) -> int | None:
        """Samples of an epoch, all ranks together; None where unknown."""

    def epoch(self, epoch: int, position: Mapping[str, Any] | None = None) -> Iterator[Delivery]:
        """Give the batches of an epoch, from its begin or right after the one that carried `position`."""

    def close(self) -> None:
        """End worker processes; the feed can be used again."""


Limit = float | int
"""A share of an epoch's batches (a float, 0 < f <= 1) or a number of batches (an integer)."""


def limited(limit: Limit | None, batches: int | None) -> int | None:
    """Turn a limit into a number of batches, at least one; None for all.

    >>> limited(0.25, 10), limited(1, 10), limited(1.0, 10), limited(50, 10)
    (2, 1, None, None)
    """
    if limit is None:
        return None
    if isinstance(limit, int):
        if limit < 1:
            raise ConfigError(f"A limit must be at least one batch, but is {limit}.")
        return limit if batches is None or limit < batches else None
    if not 0 < limit <= 1:
        raise ConfigError(f"A limit must be a share in (0, 1] or a whole number of batches, but is {limit}.")
    if limit == 1:
        return None
    if batches is None:
        raise ConfigError(
            f"A limit of {limit} needs data whose batches can be counted; give a number of batches instead."
        )
    return max(1, math.floor(limit * batches + 1e-9))


Notice = Callable[[str], None]
"""Who is told, in a sentence, what was chosen or what went wrong and was mended."""


def unheard(sentence: str) -> None:
    """Take a notice that nobody asked for."""
    del sentence
