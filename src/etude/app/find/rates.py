"""A range test of the learning rate: it grows from step to step until the loss diverges (Smith 2017)."""

import math
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from etude.app.dry_run import dry_run
from etude.app.find.prepared import prepared
from etude.base.errors import ConfigError, DataError
from etude.base.progress import Progress
from etude.base.says import Say, unheard
from etude.tasks.config import load_config
from etude.train.run import Run

RATE, LOSS = "train/learning_rate", "train/loss"
SMOOTHING: Final = 0.9
"""How much of the mean over the steps so far each further step keeps."""
DIVERGED: Final = 4.0
"""A smoothed loss of more than so many times the lowest ends the test."""
WINDOW: Final = 5
"""Steps over which the slope of the curve is taken."""
FEWEST: Final = 10
BELOW: Final = 10.0
"""The suggestion is the rate at the lowest loss divided by this."""


@dataclass(frozen=True)
class RangeTest:
    """What a range test found."""

    rates: Sequence[float]
    """The learning rate of each step."""
    losses: Sequence[float]
    """The step's own loss."""
    smoothed: Sequence[float]
    """Its exponential mean, free of the bias towards 0 at the beginning."""
    lowest: float
    """The rate at which the smoothed loss is lowest."""
    steepest: float
    """The rate, below that, at which it falls fastest over the logarithm of the rate."""
    diverged: bool
    """Whether the loss diverged before the last step; if not, a greater range says more."""

    @property
    def suggested(self) -> float:
        """A peak for a schedule with a warm-up: a tenth of the rate at the lowest loss."""
        return self.lowest / BELOW


def growing(progress: Progress, *, begin: float, end: float, steps: int) -> float:
    """The rate of the step that comes next: from `begin` to `end` by the same factor each step.

    >>> [round(growing(Progress(step=step), begin=1e-3, end=1e-1, steps=3), 6) for step in range(3)]
    [0.001, 0.01, 0.1]
    """
    return float(begin * (end / begin) ** min(1.0, progress.step / max(1, steps - 1)))


def range_test(
    config: str,
    overrides: Sequence[str] = (),
    *,
    begin: float = 1e-7,
    end: float = 10.0,
    steps: int = 100,
    say: Say = unheard,
) -> RangeTest:
    """Train `steps` steps of a config while the learning rate grows from `begin` to `end`, and find the curve's shape.

    The run is that of the config in every other regard, in a folder that goes away. It ends early where the loss is
    not finite, or its smoothed value is above both the first and `DIVERGED` times the lowest. The method is that of
    Smith 2017, "Cyclical Learning Rates for Training Neural Networks" (arXiv 1506.01186), section 3.3; ending and a
    tenth of the rate at the minimum are Gugger's, "How Do You Find A Good Learning Rate" (2018). Raises ConfigError
    for a range that is none, and DataError where fewer than `FEWEST` steps were finite.
    """
    _check(begin, end, steps)
    schedule = f'{{ schedule = "{__name__}:growing", begin = {begin!r}, end = {end!r}, steps = {steps} }}'
    own = ["--optimizer.learning_rate", schedule, "--train.max_duration", f"{steps} steps"]
    loaded = load_config(config, [*overrides, *own, "--train.sanity_batches", "0"])
    with dry_run(loaded, "find", say) as (job, _):
        return found(list(_taken(prepared(job), steps)), steps)


def _check(begin: float, end: float, steps: int) -> None:
    if not 0 < begin < end < math.inf:
        raise ConfigError(f"The range must rise from above 0, but goes from {begin:g} to {end:g}.")
    if steps < FEWEST:
        raise ConfigError(f"--steps must be at least {FEWEST}, but is {steps}.")


def _taken(run: Run, steps: int) -> Iterator[tuple[float, float]]:
    """Rate and loss of each step, until the loss diverges."""
    curve = Smoothed()
    while run.state.progress.step < steps:
        with closing(run.groups()) as groups:  # type: ignore[type-var]
            for group in groups:
                run.step(group)
                run.log()
                rate, loss = _last(run)
                yield rate, loss
                if run.state.progress.step == steps or curve.diverges(loss):
                    return


def _last(run: Run) -> tuple[float, float]:
    row = run.record.rows[-1]
    if RATE not in row:
        raise ConfigError(
            "A range test needs one optimizer whose rate is optimizer.learning_rate, but this run has several."
        )
    loss = row.get(LOSS)
    return row[RATE], math.nan if loss is None else loss


class Smoothed:
    """An exponential mean of losses, and whether they have diverged."""

    def __init__(self) -> None:
        self._sum = self._weight = 0.0
        self._first = self._lowest = math.nan

    def add(self, loss: float) -> float:
        """Take in a loss; the mean with it."""
        self._sum = SMOOTHING * self._sum + (1 - SMOOTHING) * loss
        self._weight = SMOOTHING * self._weight + 1 - SMOOTHING
        return self._sum / self._weight

    def diverges(self, loss: float) -> bool:
        """Take in a loss; whether it, or the mean, is beyond what a run comes back from."""
        mean = self.add(loss)
        if math.isnan(self._first):
            self._first = self._lowest = mean
        self._lowest = min(self._lowest, mean)
        most = max(self._first, self._lowest + (DIVERGED - 1) * abs(self._lowest))
        return not mean <= most


def found(steps: Sequence[tuple[float, float]], asked: int) -> RangeTest:
    """Find the shape of a curve: rate and loss of each step, of which so many were asked for.

    Raises DataError where fewer than `FEWEST` losses are finite.
    """
    finite = [(rate, loss) for rate, loss in steps if math.isfinite(loss)]
    if len(finite) < FEWEST:
        raise DataError(
            f"Only {len(finite)} steps had a finite loss, too few for a curve: begin with a lower rate (--from)."
        )
    rates, losses = zip(*finite, strict=True)
    curve = Smoothed()
    smoothed = [curve.add(loss) for loss in losses]
    place = int(np.argmin(smoothed[FEWEST // 2 :])) + FEWEST // 2
    return RangeTest(
        rates=rates,
        losses=losses,
        smoothed=smoothed,
        lowest=rates[place],
        steepest=rates[_steepest(np.log(rates), np.array(smoothed), place)],
        diverged=len(finite) < len(steps) or len(steps) < asked,
    )


def _steepest(x: NDArray[np.float64], y: NDArray[np.float64], last: int) -> int:
    """The step, up to `last`, around which a straight line through `WINDOW` steps falls fastest."""
    half = WINDOW // 2
    places = range(half, max(half + 1, min(last, len(x) - half - 1) + 1))
    slopes = [_slope(x[place - half : place + half + 1], y[place - half : place + half + 1]) for place in places]
    return places[int(np.argmin(slopes))]


def _slope(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Of the line with the least squared distances."""
    away = x - x.mean()
    return float(away @ y / (away @ away))
