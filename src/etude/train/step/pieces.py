"""Truncated back-propagation through time: a feed whose batches are pieces of another's."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import cached_property
from typing import Any, NamedTuple

from etude.base.errors import ConfigError
from etude.data.feeds.feed import Delivery, Feed
from etude.train.step.hiddens import Handed
from etude.train.task import Task, accepts
from etude.train.world import ALONE, World

PARTS = 1 << 16
"""An epoch's progress is counted in so many parts of the feed's own unit, so that pieces of a batch move it."""
PIECE = "piece"
"""The key that tells a position between two pieces from one between two batches."""


class InTime(NamedTuple):
    """How batches are taken along time: `train.tbptt_steps` and `train.carry_hiddens`."""

    steps: int | None = None
    carry: bool = False


class Pieces(Feed):
    """A feed whose batches are pieces of another's.

    A position between two pieces is the position before their batch and the number of pieces taken; samples are
    counted with a batch's last piece.
    """

    def __init__(
        self, feed: Feed, split: Callable[[object], Sequence[object]], *, seekable: bool = True, world: World = ALONE
    ) -> None:
        self._feed = feed
        self._world = world
        self._split = split
        self._seekable = seekable

    @property
    def epoch_total(self) -> int:
        """What one epoch holds, in `PARTS` of the feed's own unit; 0 where unknown."""
        return self._feed.epoch_total * PARTS

    @property
    def batches(self) -> int | None:
        """Batches (not pieces) of an epoch; None where unknown."""
        return self._feed.batches

    @property
    def exact(self) -> bool:
        """Never: pieces are counted as they come."""
        return False

    @property
    def samples(self) -> int | None:
        """Samples of an epoch; None where unknown."""
        return self._feed.samples

    @property
    def targets(self) -> float | None:
        """Targets of an epoch; None where unknown."""
        return self._feed.targets

    @cached_property
    def pieces(self) -> float | None:
        """Pieces of an epoch, estimated from its first batch; None where batches cannot be counted or looked at."""
        if self._feed.batches is None or not self._seekable:
            return None
        with closing(self._feed.epoch(0)) as deliveries:  # type: ignore[type-var]
            first = next(deliveries, None)
        return None if first is None else float(self._feed.batches * self._most(len(self._split(first.batch))))

    def _most(self, own: int) -> int:
        """The most pieces that a rank has of a batch, of which this one has `own`."""
        return own if self._world.size == 1 else max(self._world.gather(own))

    def resize(self, size: int) -> None:
        """Set what a batch holds."""
        self._feed.resize(size)

    def epoch(self, epoch: int, position: Mapping[str, Any] | None = None) -> Iterator[Delivery]:
        """Give the pieces of an epoch, from its begin or right after the one that carried `position`."""
        before, taken, done = position, 0, 0
        if position is not None and PIECE in position:
            before, taken, done = position["before"], position[PIECE], position["done"]
        elif position is not None:
            done = position["done"]
            before = position["after"]
        for delivery in self._feed.epoch(epoch, before):
            yield from self._pieces(delivery, before, taken, done)
            before, taken, done = delivery.position, 0, delivery.done

    def _pieces(
        self, delivery: Delivery, before: Mapping[str, Any] | None, taken: int, done: int
    ) -> Iterator[Delivery]:
        pieces = self._split(delivery.batch)
        if not len(pieces):
            raise ConfigError("split_for_tbptt gave no piece of a batch; a batch has at least one.")
        # A rank with fewer pieces than another has its last one in its hands again, which does not count.
        own, most = len(pieces), self._most(len(pieces))
        for index in range(taken, most - 1):
            part = (delivery.done - done) * PARTS * (index + 1) // most
            yield Delivery(
                pieces[min(index, own - 1)],
                samples=0,
                position={PIECE: index + 1, "before": before, "done": done},
                done=done * PARTS + part,
                last=False,
                piece=index,
                ends=False,
                borrowed=delivery.borrowed or index >= own,
            )
        yield delivery._replace(
            batch=pieces[-1],
            position={"after": delivery.position, "done": delivery.done},
            done=delivery.done * PARTS,
            piece=most - 1,
            borrowed=delivery.borrowed or most > own,
        )

    def close(self) -> None:
        """End worker processes; the feed can be used again."""
        self._feed.close()


def told_of(group: Sequence[Delivery]) -> dict[str, Any]:
    """What an update has to know of the batches of a step beside what is in them."""
    return {
        "firsts": [delivery.piece == 0 for delivery in group],
        "borrowed": [delivery.borrowed for delivery in group],
        "ends": group[-1].ends,
    }


def in_pieces(feed: Feed, task: Task, steps: int | None, world: World = ALONE) -> Feed:
    """The feed itself, or, with truncated back-propagation over `steps`, its pieces, as many on every rank."""
    if steps is None:
        return feed
    return Pieces(feed, lambda batch: task.split_for_tbptt(batch, steps), seekable=feed.repeatable, world=world)


def evaluated(
    task: Task, step: Callable[..., object], deliveries: Iterator[Delivery], *, steps: int | None, carry: bool
) -> tuple[Callable[[Any], Any], Iterator[Delivery]]:
    """What an evaluation runs over what: pieces with hiddens handed on, for a step that takes `hiddens`."""
    taking = None if steps is None and not carry else _step_with_hiddens(task, step)
    if taking is None:
        return step, deliveries
    handed = Handed(task, taking, carry=carry)

    def announced() -> Iterator[Delivery]:
        for delivery in deliveries:
            pieces = [delivery.batch] if steps is None else task.split_for_tbptt(delivery.batch, steps)
            for index, piece in enumerate(pieces):
                handed.begin(first=index == 0)
                yield delivery._replace(batch=piece)

    return handed, announced()


def sharing(world: World, *, steps: int | None, carry: bool) -> World:
    """The ranks that share an evaluation: where a batch is taken piece by piece, or after another, each does it all."""
    return ALONE if carry or steps is not None else world


def _step_with_hiddens(task: Task, step: Callable[..., object]) -> Callable[..., Any] | None:
    """A step that takes `hiddens`, or None; of a default one, that which it calls in the end."""
    kind = type(task)
    if step == task.test_step and kind.test_step is Task.test_step:
        step = task.validation_step
    if step == task.validation_step and kind.validation_step is Task.validation_step:
        return task.step_without_learning if accepts(task.training_step, "hiddens") else None
    return step if accepts(step, "hiddens") else None
