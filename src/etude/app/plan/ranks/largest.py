"""The largest share of a batch that a rank takes in a run: what its memory has to hold."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple, final

from etude.base.progress import Progress
from etude.data.feeds.feed import Delivery, Feed
from etude.data.feeds.planned import PlannedFeed
from etude.data.nest import count_samples, tensors
from etude.data.order.plan import Keys, Position, Share
from etude.train.values import Values

LOOKED = 20_000
"""Batches that are looked at, at most, whose sizes are known without making them."""
MADE = 32
"""Batches that are made where their sizes are not known else."""


class Batch(NamedTuple):
    """A share of a batch of the run."""

    content: object
    samples: int
    """Of the share."""
    of: int
    """Samples of the whole batch, all ranks together."""


@dataclass(frozen=True)
class Shares:
    """How the batches of a run are shared out."""

    largest: dict[int, Batch]
    """By number of ranks: that of the rank that takes most."""
    least: int
    """Samples of the smallest batch that was looked at, but for the last one of an epoch."""
    most: int
    looked: int
    """Batches that were looked at."""

    def idle(self, world: int) -> int:
        """Ranks that the largest batch leaves without a sample."""
        return max(0, world - self.most)


def shares(feed: Feed, values: Values, worlds: Sequence[int], epochs: int, steps_per_epoch: float) -> Shares:
    """Look for the largest batches of so many epochs, whose sizes `values` may change from one to the next."""
    looking = _Keyed(feed, worlds) if isinstance(feed, PlannedFeed) else _Made(feed, worlds)
    counts: list[int] = []
    for epoch in range(max(1, epochs)):
        values.begin_epoch(Progress(epoch=epoch, step=round(epoch * steps_per_epoch)))
        for delivery in looking.epoch(epoch):
            if not delivery.last or not counts:
                counts.append(delivery.samples)
            if len(counts) >= looking.most:
                return looking.found(counts)
    return looking.found(counts)


@final
class _Keyed:
    """Looks at the samples of batches, and makes the largest alone."""

    most = LOOKED

    def __init__(self, feed: PlannedFeed, worlds: Sequence[int]) -> None:
        self._feed = feed
        self._largest: dict[int, tuple[int, int, Keys, int]] = dict.fromkeys(worlds, (-1, 0, [], 0))

    def epoch(self, epoch: int) -> Iterator[Delivery]:
        """Go through an epoch."""
        for delivery in self._feed.keyed().epoch(epoch):
            for world, before in self._largest.items():
                keys: Keys = Share(0, world).of(delivery.batch)
                places = self._feed.places(epoch, keys)
                if places > before[0]:
                    self._largest[world] = places, epoch, keys, delivery.samples
            yield delivery

    def found(self, counts: Sequence[int]) -> Shares:
        """Make what was found."""
        largest = {
            world: Batch(self._feed.made(epoch, keys), len(keys), samples)
            for world, (_, epoch, keys, samples) in self._largest.items()
        }
        return Shares(largest, min(counts), max(counts), len(counts))


@final
class _Made:
    """Looks at whole batches of a feed that does not tell what it will give."""

    most = MADE

    def __init__(self, feed: Feed, worlds: Sequence[int]) -> None:
        self._feed = feed
        self._worlds = worlds
        self._largest: tuple[int, Batch] = -1, Batch(None, 0, 0)

    def epoch(self, epoch: int) -> Iterator[Delivery]:
        """Go through an epoch."""
        for delivery in self._feed.epoch(epoch):
            places = sum(tensor.numel() for tensor in tensors(delivery.batch))
            if places > self._largest[0]:
                count = count_samples(delivery.batch) or delivery.samples
                self._largest = places, Batch(delivery.batch, count, delivery.samples)
            yield delivery

    def found(self, counts: Sequence[int]) -> Shares:
        """What was found, whole: who makes such batches alone knows how they are divided."""
        return Shares(dict.fromkeys(self._worlds, self._largest[1]), min(counts), max(counts), len(counts))


@final
class Again(Feed):
    """A feed that gives one batch, again and again; `take` replaces it."""

    exact = False
    epoch_total = 0
    batches = None
    samples = None

    def __init__(self, batch: Batch) -> None:
        self._batch = batch

    def take(self, batch: Batch) -> None:
        """Let it give another one from now on."""
        self._batch = batch

    def epoch(self, epoch: int, position: Position | None = None) -> Iterator[Delivery]:
        """Give it without end."""
        del epoch, position
        while True:
            yield Delivery(self._batch.content, self._batch.of, {}, 0, last=False)

    def close(self) -> None:
        """Nothing is open."""


def group(feed: Feed, batches: int) -> list[Delivery]:
    """The first batches of a feed, or pieces of them."""
    return list(islice(feed.epoch(0), batches))
