"""How sure it is that one run is better than another: over seeds, and over the samples that both have answered.

Legend: N samples, R resamples.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from etude.metrics.student import quantile, two_tails

CONFIDENCE = 0.95
RESAMPLES = 1000
"""Resamples of a bootstrap, at least."""
_DRAWN = 1 << 22
"""Draws that are held in memory at once."""
_FEWEST = 2
"""Values that have a deviation."""

Numbers = NDArray[np.float64]


class Interval(NamedTuple):
    """Between which values something lies, with a confidence of 95 %."""

    low: float
    high: float


class Spread(NamedTuple):
    """Several values of one quantity."""

    number: int
    mean: float
    deviation: float
    """The deviation of a sample (over n - 1); NaN of fewer than two values."""


def spread(values: Sequence[float]) -> Spread:
    """The number of values, their mean and their deviation.

    >>> spread([1.0, 2.0, 3.0])
    Spread(number=3, mean=2.0, deviation=1.0)
    """
    mean = statistics.fmean(values) if values else math.nan
    deviation = statistics.stdev(values) if len(values) >= _FEWEST else math.nan
    return Spread(len(values), mean, deviation)


@dataclass(frozen=True)
class Difference:
    """By how much a second thing is above a first."""

    value: float
    interval: Interval
    p: float
    """How likely a difference at least as large is where there is none; NaN where that cannot be told."""


def welch(first: Sequence[float], second: Sequence[float]) -> Difference:
    """The difference of two means whose deviations may differ, with its t interval (Welch 1947).

    NaN stands where a side has fewer than two values, or no value differs from another.
    """
    one, other = spread(first), spread(second)
    value = other.mean - one.mean
    if min(one.number, other.number) < _FEWEST:
        return Difference(value, Interval(math.nan, math.nan), math.nan)
    shares = one.deviation**2 / one.number, other.deviation**2 / other.number
    error = math.sqrt(sum(shares))
    if error == 0:
        return Difference(value, Interval(math.nan, math.nan), math.nan)
    freedom = sum(shares) ** 2 / (shares[0] ** 2 / (one.number - 1) + shares[1] ** 2 / (other.number - 1))
    far = quantile(CONFIDENCE, freedom) * error
    return Difference(value, Interval(value - far, value + far), two_tails(value / error, freedom))


class Sums(NamedTuple):
    """A metric of samples that is one sum over another: errors over words, losses over tokens, hits over samples."""

    above: Numbers
    """[N]"""
    below: Numbers
    """[N]"""

    @property
    def value(self) -> float:
        """The metric of all samples; NaN where nothing is counted."""
        below = float(self.below.sum())
        return float(self.above.sum()) / below if below else math.nan

    def of_resamples(self, drawn_RN: NDArray[np.int64]) -> Numbers:
        """The metric of each resample; NaN of one in which nothing is counted."""
        above_R, below_R = self.above[drawn_RN].sum(1), self.below[drawn_RN].sum(1)
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio_R: Numbers = np.where(below_R > 0, above_R / below_R, np.nan)
        return ratio_R


def mean_of(values: Sequence[float]) -> Sums:
    """The mean of a value a sample."""
    above = np.asarray(values, dtype=np.float64)
    return Sums(above, np.ones_like(above))


def paired_bootstrap(first: Sums, second: Sums, *, resamples: int = RESAMPLES, seed: int = 1) -> Difference:
    """The difference of a metric on the same samples, with its percentile interval over resamples of them.

    Each resample draws as many samples as there are, with replacement, the same for both (Efron 1979; Koehn 2004).
    `p` is how often the difference of a resample is at least as far from that of all samples as this is from 0. One
    sample, or none, tells nothing: NaN.
    """
    value, count = second.value - first.value, len(first.above)
    if count < _FEWEST:
        return Difference(value, Interval(math.nan, math.nan), math.nan)
    differences_R = _resampled(first, second, resamples, seed)
    differences_R = differences_R[~np.isnan(differences_R)]
    tails = (1 - CONFIDENCE) / 2 * 100
    low, high = np.percentile(differences_R, [tails, 100 - tails])
    farther = int((np.abs(differences_R - value) >= abs(value)).sum())
    return Difference(value, Interval(float(low), float(high)), (farther + 1) / (len(differences_R) + 1))


def _resampled(first: Sums, second: Sums, resamples: int, seed: int) -> Numbers:
    """The difference in each resample, which are drawn a part at a time."""
    draw, count = np.random.default_rng(seed), len(first.above)
    at_once = max(1, _DRAWN // count)
    parts = []
    for begin in range(0, resamples, at_once):
        drawn_RN = draw.integers(0, count, (min(at_once, resamples - begin), count))
        parts.append(second.of_resamples(drawn_RN) - first.of_resamples(drawn_RN))
    return np.concatenate(parts)
