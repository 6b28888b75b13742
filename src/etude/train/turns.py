"""An evaluation by several ranks that take turns at its batches, and tell each other what they have found.

Every rank evaluates whole batches, the very ones that one process would, and takes in what all have found in the order
of the batches: sums are added up in the same order, and metrics are updated by the same calls, so that their values
have the same bits on any number of ranks.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch

from etude.data.feeds.feed import Delivery, Feed
from etude.data.nest import move
from etude.data.order.plan import Share
from etude.train.step.terms import Term
from etude.train.watch.metrics import Metric, ScalarLog, Sums
from etude.train.world import World

Call = tuple[str, tuple[Any, ...], dict[str, Any]]
"""A metric by its name, and what it was updated by."""


@dataclass(frozen=True)
class Found:
    """What one batch has given."""

    terms: Sequence[Term]
    scalars: Sums
    calls: Sequence[Call]
    batch: Any
    outputs: Any


def in_turns(feed: Feed, world: World) -> Iterator[Delivery]:
    """Give those batches of a feed that this rank evaluates."""
    return feed.epoch(0) if world.size == 1 else feed.in_turns(Share(world.rank, world.size))


class Noted:
    """A metric that notes what it is updated by; anything else that it has is the metric's own."""

    def __init__(self, name: str, metric: object, calls: list[Call]) -> None:
        self._name = name
        self._metric = metric
        self._calls = calls

    def update(self, *args: object, **kwargs: object) -> None:
        """Take in one batch."""
        self._calls.append((self._name, args, kwargs))

    def __call__(self, *args: object, **kwargs: object) -> None:
        """Take in one batch, as torchmetrics' do when they are called."""
        self.update(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._metric, name)


@final
class InOrder:
    """A pass by one process, over one batch after the other."""

    def __init__(self, metrics: Mapping[str, Metric], scalars: ScalarLog) -> None:
        self.metrics = metrics
        self.scalars = scalars
        self._found: list[Found] = []

    def each(self, deliveries: Iterable[Delivery]) -> Iterable[Delivery]:
        """Give all batches."""
        return deliveries

    def find(self, terms: Sequence[Term], batch: object, outputs: object) -> None:
        """Take what a batch has given; its metrics and scalars have been taken in already."""
        self._found = [Found(terms, {}, (), batch, outputs)]

    def shared(self) -> Iterable[Found]:
        """Give what that was."""
        return self._found


@final
class Turns:
    """This rank's part of a pass over the batches of a split."""

    def __init__(self, world: World, metrics: Mapping[str, Metric], device: torch.device, *, whole: bool) -> None:
        self._world = world
        self._whole = any(world.gather(whole))
        """Whether batches and outputs are told too, since somebody on any rank looks at them."""
        self._given = metrics
        self._device = device
        self._calls: list[Call] = []
        self._found: Found | None = None
        self._round: list[Found] = []
        self.metrics: Mapping[str, Any] = {name: Noted(name, metric, self._calls) for name, metric in metrics.items()}
        """What the task updates."""
        self.scalars = ScalarLog()
        """What the task logs of one batch."""

    def each(self, deliveries: Iterable[Delivery]) -> Iterator[Delivery | None]:
        """Give this rank's batches, and None for as long as other ranks have any after its own are at an end."""
        for delivery in deliveries:
            yield delivery
            if not self._round:
                return
        while True:
            yield None
            if not self._round:
                return

    def find(self, terms: Sequence[Term], batch: object, outputs: object) -> None:
        """Note what a batch of this rank has given."""
        terms = [Term(t.name, t.sum.detach(), t.count, t.weight, targets=t.targets) for t in terms]
        seen = (batch, outputs) if self._whole else (None, None)
        self._found = move(Found(terms, self.scalars.mark(), list(self._calls), *seen), "cpu")

    def shared(self) -> Iterator[Found]:
        """Give what all ranks have found in this round, in the order of their batches; metrics take it in."""
        gathered = self._world.gather(self._found)
        self._round = [found for found in gathered if found is not None]
        self._found = None
        self._calls.clear()
        self.scalars.clear()
        for found in self._round:
            here = move(found, self._device)
            for name, args, kwargs in here.calls:
                self._given[name].update(*args, **kwargs)
            yield here
