"""The steps of a run, walked without taking any: how far it is after each of them, and when what is due."""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from operator import itemgetter
from typing import NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from etude.base.durations import Duration
from etude.base.progress import Progress
from etude.data.feeds.feed import Delivery, Feed
from etude.data.order.plan import Position
from etude.train.end import End
from etude.train.learner import Group
from etude.train.run import Run
from etude.train.values import Value

LOOKED = 200_000
"""Batches whose samples are looked up, at most; an epoch that begins after them is taken to be like the last before."""
SAMPLES_A_BATCH = 40
"""As many samples cost as much to look up as one batch."""
MADE = 20
"""What a batch costs that has to be made, since truncated back-propagation splits it, in batches looked up."""
AN_EPOCH = 10
"""What beginning an epoch costs, in batches."""
EPOCHS, STEPS = 1_000_000, 50_000_000
"""A walk ends after so many, whatever the run."""

Ints = NDArray[np.int64]


class Shape(NamedTuple):
    """The steps of one epoch: what of it is consumed after each, [steps]."""

    batches: Ints
    samples: Ints
    tokens: Ints
    done: Ints
    total: int
    """What the epoch holds, in the unit of `done`."""


class Epoch(NamedTuple):
    """An epoch of a run."""

    start: Progress
    shape: Shape

    @property
    def last(self) -> int:
        """Its last step."""
        return self.start.step + len(self.shape.done)

    def at(self, steps: int) -> Progress:
        """The progress after so many of its steps."""
        start, shape, whole = self.start, self.shape, len(self.shape.done)
        if steps == 0:
            return start
        last = steps == whole
        return Progress(
            step=start.step + steps,
            batch=start.batch + int(shape.batches[steps - 1]),
            epoch=start.epoch + last,
            samples=start.samples + int(shape.samples[steps - 1]),
            tokens=start.tokens + int(shape.tokens[steps - 1]),
            epoch_done=0 if last else int(shape.done[steps - 1]),
            epoch_total=shape.total,
            batch_in_epoch=0 if last else start.batch_in_epoch + int(shape.batches[steps - 1]),
        )


@final
@dataclass
class Course:
    """The progress of a run after every step, and the step that it ends with."""

    epochs: list[Epoch] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    """The step before each epoch."""
    steps: int = 0
    """The last step."""
    reason: str | None = None
    """Why the run ends there; None where only the walk does."""
    looked: int = 0
    """The last step whose batches were looked up; after it, epochs are taken to be like the last one before."""
    counted: bool = False
    """Whether the targets of those batches were counted."""

    def epoch_of(self, step: int) -> Epoch:
        """The epoch that a step, counted from 1, belongs to."""
        return self.epochs[max(0, bisect_right(self.starts, step - 1) - 1)]

    def at(self, step: int) -> Progress:
        """The progress after `step` steps: at 0 that of a run that has not begun."""
        epoch = self.epoch_of(step)
        return epoch.at(step - epoch.start.step)

    def moments(self, every: Duration) -> Iterator[int]:
        """The steps after which `every` is due, as the loop finds them."""
        if every.unit == "steps":
            yield from _multiples(every.amount, self.steps)
            return
        step = self._next(every, 0)
        while step is not None:
            yield step
            step = self._next(every, step)

    def _next(self, every: Duration, step: int) -> int | None:
        """The first step after `step` after which `every` is due."""
        before = self.at(step)
        return first(lambda now: every.due(before, self.at(now)), step, self.steps)

    def add(self, epoch: Epoch) -> Progress:
        """Let an epoch come next; give where it ends, with the last step so far."""
        self.starts.append(epoch.start.step)
        self.epochs.append(epoch)
        self.steps = epoch.last
        return epoch.at(len(epoch.shape.done))

    def cut(self, step: int, reason: str | None) -> None:
        """Let it end with an earlier step."""
        self.steps, self.reason = step, reason

    def ends_of_epochs(self) -> Iterator[int]:
        """The last step of each epoch that is completed."""
        return (epoch.last for epoch in self.epochs if epoch.last <= self.steps)


def _multiples(amount: Fraction, last: int) -> Iterator[int]:
    """Each step with which a multiple of `amount` steps, which may be a fraction of one, is met or crossed."""
    number, step = 1, 0
    while True:
        met = -(-number * amount.numerator // amount.denominator)
        if met > last:
            return
        if met != step:
            yield met
        step, number = met, number + 1


def first(holds: Callable[[int], bool], after: int, last: int) -> int | None:
    """The smallest number in (after, last] for which something holds that, once true, stays true; None without.

    >>> first(lambda n: n * n > 50, 0, 100), first(lambda n: n > 9, 0, 9)
    (8, None)
    """
    if last <= after or not holds(last):
        return None
    low, high = _around(holds, after, last)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def _around(holds: Callable[[int], bool], after: int, last: int) -> tuple[int, int]:
    """A number for which it does not hold and one for which it does, found in strides that double."""
    low, stride = after, 1
    while low + stride < last and not holds(low + stride):
        low, stride = low + stride, 2 * stride
    return low, min(low + stride, last)


def walk(run: Run, *, most: int | None = None, epochs: int | None = None) -> Course:
    """Walk a run that was prepared, up to the end of its `max_duration`, `most` steps or `epochs`.

    No batch is made (except for truncated back-propagation, which splits it), and nothing is trained. The clock
    stands still, so that no duration in minutes is ever due.
    """
    walked = _Walk(run)
    walked.go(min(most or STEPS, STEPS), epochs or EPOCHS)
    course = walked.course
    if most is not None and most < course.steps:
        course.cut(most, None)
    course.looked = min(course.looked, course.steps)
    return course


class _Walk:
    """A walk through a run, whose feed is looked at alone."""

    def __init__(self, run: Run) -> None:
        values = run.learner.values
        self._run = run
        self._look = _Look(run.feed, values.of_epochs)
        run.feed = self._look  # the groups of batches are formed by the run itself, of this feed
        run.through = self._look_at
        self._varies = bool(values.of_epochs) or "accumulate" in values.row() or run.learner.shape.may_change
        """Whether schedules decide what an epoch's steps are made of."""
        self._shape: Shape | None = None
        """That of the last epoch that was looked at."""
        self.course = Course(counted=self._look.counts)

    def _look_at(self, feed: Feed) -> Feed:
        """Look at the batches of another structure from here on, in the place of those before."""
        self._look = _Look(feed, self._run.learner.values.of_epochs)
        return self._look

    def go(self, steps: int, epochs: int) -> None:
        """Walk until the run ends or so many steps or epochs are reached."""
        course, progress = self.course, self._run.state.progress
        while course.reason is None and course.steps < steps and len(course.epochs) < epochs:
            begun = progress.step
            progress = self._epoch(progress)
            self._end(begun)

    def _epoch(self, start: Progress) -> Progress:
        """Walk through the epoch that begins there; give where it ends."""
        looks = not self._look.is_over
        if self._shape is None or looks or self._varies:
            self._shape = self._shape_at(start)
        end = self.course.add(Epoch(start, self._shape))
        if looks:
            self.course.looked = end.step
        return end

    def _shape_at(self, start: Progress) -> Shape:
        """The steps of the epoch that begins there, as `Run.groups` forms them and `Run.step` counts them."""
        run, state = self._run, self._run.state
        rows: list[tuple[int, int, int, int]] = []
        state.progress, state.position = start, None
        for group in run.groups():
            last = group[-1]
            state.progress = now = self._after(state.progress, group)
            state.position = None if last.last else last.position
            rows.append((now.batch, now.samples, now.tokens, last.done))
        counts = np.array(rows, dtype=np.int64).reshape(-1, 4) - (start.batch, start.samples, start.tokens, 0)
        batches, samples, tokens, done = counts.T
        return Shape(batches, samples, tokens, done, run.feed.epoch_total)

    def _after(self, before: Progress, group: Group) -> Progress:
        """The progress after the step of `group`."""
        last, ended = group[-1], sum([delivery.ends for delivery in group])
        return Progress(
            step=before.step + 1,
            batch=before.batch + ended,
            epoch=before.epoch + last.last,
            samples=before.samples + sum([delivery.samples for delivery in group]),
            tokens=before.tokens + sum([self._look.tokens_of(delivery) for delivery in group]),
            epoch_done=0 if last.last else last.done,
            epoch_total=self._look.epoch_total,
            batch_in_epoch=0 if last.last else before.batch_in_epoch + ended,
        )

    def _end(self, begun: int) -> None:
        """Let the course end where a limit of the run is reached after that step; the first of several counts."""
        reached = [(self._reached(limit, begun), limit) for limit in self._run.moments.until]
        ends = [(step, limit) for step, limit in reached if step is not None]
        if ends:
            step, limit = min(ends, key=itemgetter(0))
            self.course.cut(step, End.at(limit).says)

    def _reached(self, limit: Duration, begun: int) -> int | None:
        return first(lambda step: limit.reached(self.course.at(step)), begun, self.course.steps)


@final
class _Look(Feed):
    """A feed whose deliveries hold the targets of a batch in place of it; in the long run those of an epoch before."""

    def __init__(self, feed: Feed, values: Sequence[Value]) -> None:
        counted = feed.counted()
        self._feed, self.counts = counted or feed, counted is not None
        self._values = values
        self._cost = 1 if self.counts else MADE
        self._left = LOOKED
        self._kept: list[Delivery] = []
        self._kept_with: list[float] = []

    @property
    def epoch_total(self) -> int:
        """What the feed says."""
        return self._feed.epoch_total

    @property
    def batches(self) -> int | None:
        """What the feed says."""
        return self._feed.batches

    @property
    def exact(self) -> bool:
        """What the feed says."""
        return self._feed.exact

    @property
    def samples(self) -> int | None:
        """What the feed says."""
        return self._feed.samples

    @property
    def is_over(self) -> bool:
        """Whether as much was looked up as should be."""
        return self._left <= 0

    def tokens_of(self, delivery: Delivery) -> int:
        """The targets of a batch: counted, or of pieces of one the mean."""
        if self.counts:
            return int(delivery.batch)
        targets, pieces = self._feed.targets, self._feed.pieces
        return round(targets / pieces) if targets and pieces else 0

    def epoch(self, epoch: int, position: Position | None = None) -> Iterator[Delivery]:
        """Give the deliveries of an epoch."""
        return self._as_before(epoch, position) if self.is_over else self._looked_up(epoch, position)

    def _looked_up(self, epoch: int, position: Position | None) -> Iterator[Delivery]:
        self._left -= AN_EPOCH
        for delivery in self._feed.epoch(epoch, position):
            self._left -= self._cost + delivery.samples // SAMPLES_A_BATCH
            yield delivery

    def _as_before(self, epoch: int, position: Position | None) -> Iterator[Delivery]:
        """Those that were kept, unless a schedule has changed since then what an epoch holds."""
        now = [value.now for value in self._values]
        if not self._kept or now != self._kept_with:
            self._kept, self._kept_with = list(self._feed.epoch(epoch, position)), now
        yield from self._kept

    def close(self) -> None:
        """End what the feed has started."""
        self._feed.close()
