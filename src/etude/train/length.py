"""How long a run will be, in steps: what schedules that reach to its end are bound to."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from operator import attrgetter

from etude.base.durations import Duration
from etude.base.horizon import Horizon
from etude.base.progress import Progress
from etude.base.schedules import ScheduleSection, bind_whole
from etude.base.schedules.values import ScheduledValue
from etude.data.feeds.feed import Feed
from etude.train.values import Values

EPOCHS = 1000
"""Epochs that are gone through at most to see how they differ."""
STRIDES = 4096
"""Moments of a run at which a schedule is looked at, about."""
ROUNDS = 12
"""A schedule may itself follow the length of the run, which is then approached."""
CLOSE = 0.002
"""Lengths that differ by no larger share are taken for the same."""


def horizon(until: Sequence[Duration], feed: Feed, accumulate: float | ScheduleSection) -> Horizon:
    """The horizon of a run over `feed`: exact where its batches can be counted, else estimated from it.

    With a scheduled `accumulate` the run is gone through, and its mean counts.
    """
    if isinstance(accumulate, int):
        return _measured(until, feed, accumulate, exact=feed.exact)
    run = _measured(until, feed, 1, exact=False)
    batches = feed.pieces
    if run.steps is None or not batches:
        return run

    each_epoch = batches, feed.samples or 0

    def walked(per_step: float) -> tuple[float, Progress]:
        end = _walked(until, _measured(until, feed, per_step, exact=False), accumulate, lambda _: each_epoch)
        return end.batch / end.step, end

    _, end = _settled(1.0, walked)
    return Horizon(
        steps=float(end.step),
        steps_per_epoch=end.step / end.epochs,
        samples_per_step=end.samples / end.step or None,
        tokens_per_step=end.tokens / end.step or None,
        batches_per_step=end.batch / end.step,
        exact=False,
    )


def mean_horizon(
    parts: Sequence[tuple[int, Feed]], until: Sequence[Duration], accumulate: float | ScheduleSection
) -> Horizon:
    """The horizon of a run whose epochs have other feeds: so many epochs of each, in their order.

    What a step has of samples and tokens is the mean over these epochs.
    """
    epoch = [Duration(1, "epochs")]
    measured = [(epochs, horizon(epoch, feed, accumulate)) for epochs, feed in parts]
    if any(one.steps is None for _, one in measured):
        return Horizon(exact=False)
    weighted = [(epochs * (one.steps or 0.0), one) for epochs, one in measured]
    bare = Horizon(
        steps_per_epoch=sum(steps for steps, _ in weighted) / sum(epochs for epochs, _ in parts),
        samples_per_step=_mean(weighted, attrgetter("samples_per_step")),
        tokens_per_step=_mean(weighted, attrgetter("tokens_per_step")),
        batches_per_step=_mean(weighted, attrgetter("batches_per_step")) or 1.0,
        exact=False,
    )
    lengths = [found for duration in until if (found := _steps(bare, duration)) is not None]
    return replace(bare, steps=float(math.ceil(min(lengths))) if lengths else None)


def _mean(weighted: Sequence[tuple[float, Horizon]], part: Callable[[Horizon], float | None]) -> float | None:
    return sum(weight * (part(one) or 0) for weight, one in weighted) / sum(weight for weight, _ in weighted) or None


def expect(
    feed: Feed, values: Sequence[ScheduledValue], until: Sequence[Duration], accumulate: float | ScheduleSection
) -> None:
    """Let `feed` tell of an average epoch of the run, in which `values` make the epochs differ.

    Raises DataError where they leave an epoch without a sample.
    """
    if horizon(until, feed, accumulate).steps is None:
        return

    average = feed.batches or 1, feed.samples or 0

    def walked(pieces: float) -> tuple[float, Progress]:
        nonlocal average
        feed.expect(*average, pieces)
        run = horizon(until, feed, accumulate)
        end = _walked(until, run, accumulate, partial(_next_epoch, feed, Values(values, run)))
        average = round(end.batch / end.epochs), round(end.samples / end.epochs)
        return _pieces(end, accumulate) / end.epochs, end

    pieces, _ = _settled(float(average[0]), walked)
    feed.expect(*average, pieces)


def _next_epoch(feed: Feed, values: Values, progress: Progress) -> tuple[int, int]:
    """The batches and samples of the epoch that begins at `progress`, with the values that are then in force."""
    values.begin_epoch(progress)
    batches, samples = feed.now
    if not batches:
        next(feed.epoch(progress.epoch), None)  # says what left nothing
    return batches or 1, samples or 0


def _pieces(end: Progress, accumulate: float | ScheduleSection) -> int:
    """What the steps of a run took; the last batches of an epoch may be fewer than a step takes."""
    return end.step * accumulate if isinstance(accumulate, int) else end.batch


def _settled(guess: float, walked: Callable[[float], tuple[float, Progress]]) -> tuple[float, Progress]:
    """Approach the number that leads to itself; give it, and the end of the run that it leads to."""
    found, end = walked(guess)
    for _ in range(ROUNDS):
        before, guess = found, (guess + found) / 2
        found, end = walked(guess)
        if min(abs(found - guess), abs(found - before)) <= CLOSE * found:
            break
    return found, end


def _walked(
    until: Sequence[Duration],
    run: Horizon,
    accumulate: float | ScheduleSection,
    epoch: Callable[[Progress], tuple[float, int]],
) -> Progress:
    """Go through a run without its data, and give its end; `epoch` tells the batches and samples of the next one."""
    each = bind_whole(accumulate, run, key="train.accumulate")
    stride = max(1, int((run.steps or 1) / STRIDES))
    tokens = _tokens_per_sample(run)
    now = Progress()
    for number in range(EPOCHS):
        begun = now
        batches, samples = epoch(now)
        total = math.ceil(batches)
        while now.batch < begun.batch + total:
            per_step, left = each(now), begun.batch + total - now.batch
            steps = max(1, min(stride, left // per_step))
            done = total - left + min(left, steps * per_step)
            seen = begun.samples + round(samples * done / total)
            now = Progress(
                now.step + steps, begun.batch + done, number, seen, round(seen * tokens), epoch_done=done,
                epoch_total=total, batch_in_epoch=done,
            )  # fmt: skip
            if _is_over(until, now):
                return now
        now = now._replace(epoch=number + 1, epoch_done=0, batch_in_epoch=0)
        if _is_over(until, now):
            return now
    return now


def _tokens_per_sample(run: Horizon) -> float:
    return (run.tokens_per_step or 0) / run.samples_per_step if run.samples_per_step else 0.0


def _is_over(until: Sequence[Duration], now: Progress) -> bool:
    return any(duration.reached(now) for duration in until)


def _measured(until: Sequence[Duration], feed: Feed, per_step: float, *, exact: bool) -> Horizon:
    """The horizon of a run whose steps take `per_step` deliveries each."""
    steps_per_epoch = _steps_of_epoch(feed.pieces, per_step)
    bare = Horizon(
        steps=None,
        steps_per_epoch=steps_per_epoch,
        samples_per_step=_each(feed.samples, steps_per_epoch),
        tokens_per_step=_each(feed.targets, steps_per_epoch),
        batches_per_step=_batches_per_step(feed.batches, steps_per_epoch) or per_step,
        exact=exact,
    )
    lengths = [steps for duration in until if (steps := _steps(bare, duration)) is not None]
    known = exact and len(lengths) == len(until)
    return replace(bare, steps=float(math.ceil(min(lengths))) if lengths else None, exact=known)


def _steps_of_epoch(pieces: float | None, per_step: float) -> float | None:
    """The steps of an epoch: whole, unless what they are counted by is an average already."""
    if pieces is None:
        return None
    steps = pieces / per_step
    return math.ceil(steps) if float(pieces).is_integer() else steps


def _each(count: float | None, steps: float | None) -> float | None:
    """What each of an epoch's steps has of something."""
    return None if count is None or not steps else count / steps


def _batches_per_step(batches: int | None, steps: float | None) -> float | None:
    """Batches, not pieces of them, of a step."""
    if not batches or not steps:
        return None
    return 1 / (steps / batches)


def _steps(bare: Horizon, duration: Duration) -> float | None:
    """The duration in steps; None for time, and for what this data cannot tell."""
    known = {
        "epochs": bare.steps_per_epoch,
        "steps": 1.0,
        "batches": 1.0 / bare.batches_per_step,
        "samples": _inverse(bare.samples_per_step),
        "tokens": _inverse(bare.tokens_per_step),
    }.get(duration.unit)
    return None if known is None else float(duration.amount) * known


def _inverse(per_step: float | None) -> float | None:
    """The steps that one of what a step has so many of takes."""
    return 1.0 / per_step if per_step else None
