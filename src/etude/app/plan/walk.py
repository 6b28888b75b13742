"""The steps of a run, walked without taking any: how far it is after each of them, and when what is due."""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, NamedTuple, cast, final

import numpy as np
from numpy.typing import NDArray

from etude.base.durations import Duration
from etude.base.progress import Progress
from etude.data.feeds.feed import Delivery, Feed
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
        step: int | None = 0
        while step is not None:
            before = self.at(step)
            step = first(lambda now, before=before: every.due(before, self.at(now)), step, self.steps)  # type: ignore[misc]
            if step is not None:
                yield step

    def ends_of_epochs(self) -> Iterator[int]:
        """The last step of each epoch that is completed."""
        ends = (epoch.start.step + len(epoch.shape.done) for epoch in self.epochs)
        return (end for end in ends if end <= self.steps)


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
    low, stride = after, 1
    while low + stride < last and not holds(low + stride):
        low, stride = low + stride, 2 * stride
    high = min(low + stride, last)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def walk(run: Run, *, most: int | None = None, epochs: int | None = None) -> Course:
    """Walk a run that was prepared, up to the end of its `max_duration`, `most` steps or `epochs`.

    No batch is made (except for truncated back-propagation, which splits it), and nothing is trained. The clock
    stands still, so that no duration in minutes is ever due.
    """
    course = Course()
    look = _Look(run.feed, run.learner.values.of_epochs)
    run.feed = cast("Feed", look)  # the groups of batches are formed by the run itself, of this feed
    until = run.moments.until
    progress, shape = run.state.progress, None
    while course.steps < min(most or STEPS, STEPS) and len(course.epochs) < (epochs or EPOCHS):
        run.state.progress = progress
        over = look.is_over
        if shape is None or not over or look.varies(run):
            shape = _shape(run, look)
        course.starts.append(progress.step)
        course.epochs.append(Epoch(progress, shape))
        progress = course.epochs[-1].at(len(shape.done))
        begin, course.steps = course.steps, progress.step
        course.looked = course.looked if over else progress.step
        reached = [first(lambda step, d=d: d.reached(course.at(step)), begin, course.steps) for d in until]  # type: ignore[misc]
        ends = [step for step in reached if step is not None]
        if ends:
            course.steps = min(ends)
            course.reason = f"max_duration reached: {until[reached.index(course.steps)]}"
            break
    if most is not None and most < course.steps:
        course.steps, course.reason = most, None
    course.looked = min(course.looked, course.steps)
    course.counted = look.counts
    return course


def _shape(run: Run, look: "_Look") -> Shape:
    """The steps of the epoch that comes, as `Run.groups` forms them and `Run.step` counts them."""
    state = run.state
    start = state.progress
    rows: list[tuple[int, int, int, int]] = []
    batches = samples = tokens = 0
    state.position = None
    for group in run.groups():
        last = group[-1]
        batches += sum([delivery.ends for delivery in group])
        samples += sum([delivery.samples for delivery in group])
        tokens += sum([look.tokens_of(delivery) for delivery in group])
        rows.append((batches, samples, tokens, last.done))
        state.position = None if last.last else last.position
        state.progress = Progress(
            start.step + len(rows),
            start.batch + batches,
            start.epoch + last.last,
            start.samples + samples,
            start.tokens + tokens,
            epoch_done=0 if last.last else last.done,
            epoch_total=run.feed.epoch_total,
        )
    columns = np.array(rows, dtype=np.int64).reshape(-1, 4).T
    batches_done, samples_done, tokens_done, done = columns
    return Shape(batches_done, samples_done, tokens_done, done, run.feed.epoch_total)


class _Look:
    """A feed whose deliveries hold, in place of a batch, the targets in it; in the long run those of an epoch before.

    Everything else is the feed's own.
    """

    def __init__(self, feed: Feed, values: Sequence[Value]) -> None:
        counted = feed.counted()
        self._feed, self.counts = counted or feed, counted is not None
        self._values = values
        self._cost = 1 if self.counts else MADE
        self._left = LOOKED
        self._kept: list[Delivery] = []
        self._kept_with: list[float] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._feed, name)

    @property
    def is_over(self) -> bool:
        """Whether as much was looked up as should be."""
        return self._left <= 0

    def varies(self, run: Run) -> bool:
        """Whether schedules decide what an epoch's steps are made of."""
        return bool(self._values) or "accumulate" in run.learner.values.row()

    def tokens_of(self, delivery: Delivery) -> int:
        """The targets of a batch: counted, or of pieces of one the mean."""
        if self.counts:
            return int(delivery.batch)
        targets, pieces = self._feed.targets, self._feed.pieces
        return round(targets / pieces) if targets and pieces else 0

    def epoch(self, epoch: int, position: Mapping[str, Any] | None = None) -> Iterator[Delivery]:
        """Give the deliveries of an epoch."""
        if self.is_over:
            now = [value.now for value in self._values]
            if not self._kept or now != self._kept_with:
                self._kept, self._kept_with = list(self._feed.epoch(epoch, position)), now
            yield from self._kept
            return
        self._left -= AN_EPOCH
        for delivery in self._feed.epoch(epoch, position):
            self._left -= self._cost + delivery.samples // SAMPLES_A_BATCH
            yield delivery
