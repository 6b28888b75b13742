"""Feeds of a user's own, told by their methods."""

from collections.abc import Iterator
from typing import Any

from etude.data.feeds.feed import Delivery, Feed
from etude.data.order.plan import Position


class ForeignFeed(Feed):
    """A feed that does not inherit from `Feed`: it has its abstract methods, and perhaps `pieces` and others."""

    def __init__(self, feed: Any) -> None:
        self._feed = feed

    @property
    def epoch_total(self) -> int:
        """What one epoch holds, in the unit of `Delivery.done`; 0 where unknown."""
        return int(self._feed.epoch_total)

    @property
    def batches(self) -> int | None:
        """Batches of an epoch: exact where `exact`, else an estimate; None where unknown."""
        found: int | None = self._feed.batches
        return found

    @property
    def exact(self) -> bool:
        """Whether `batches` is the number in every epoch."""
        return bool(self._feed.exact)

    @property
    def samples(self) -> int | None:
        """Samples of an epoch, all ranks together; None where unknown."""
        found: int | None = self._feed.samples
        return found

    @property
    def pieces(self) -> float | None:
        """How many deliveries the steps of an epoch are formed of; None where unknown."""
        found: float | None = self._feed.pieces if hasattr(self._feed, "pieces") else self.batches
        return found

    @property
    def targets(self) -> float | None:
        """Targets of an epoch that a loss counts; None where unknown."""
        found: float | None = self._feed.targets if hasattr(self._feed, "targets") else None
        return found

    @property
    def repeatable(self) -> bool:
        """Whether an epoch can be looked at and begun again."""
        return not hasattr(self._feed, "repeatable") or bool(self._feed.repeatable)

    def epoch(self, epoch: int, position: Position | None = None) -> Iterator[Delivery]:
        """Give the batches of an epoch, from its begin or right after the one that carried `position`."""
        deliveries: Iterator[Delivery] = self._feed.epoch(epoch, position)
        return deliveries

    def close(self) -> None:
        """End worker processes; the feed can be used again."""
        self._feed.close()


def is_feed(data: object) -> bool:
    """Tell what gives deliveries by itself: a feed of Etude's, or of a user's with the same methods."""
    return isinstance(data, Feed) or all(callable(getattr(data, method, None)) for method in ("epoch", "close"))


def as_feed(feed: object) -> Feed:
    """Give what `is_feed` as a `Feed`."""
    return feed if isinstance(feed, Feed) else ForeignFeed(feed)
