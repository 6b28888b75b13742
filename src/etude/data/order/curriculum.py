"""Curricula: which samples an epoch takes, and which of them come first.

Everything is a function of (seed, epoch, limits). Nothing is kept for each sample: what an epoch leaves out is found
again where it is looked for, and an order by ease is computed in chunks, each by a few passes over the numbers that it
goes by.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from etude.base.errors import DataError
from etude.base.randomness import generator
from etude.data.order.plan import Ints, Measure, Number, Order, Shuffled

CHUNK = 1 << 16
"""Samples that are looked at together."""

Kind = Literal["shuffled", "sorted", "easy_first"]

_DIGIT, _DIGITS = 16, 4
"""Ranks are found digit by digit, in 64 bits."""


class Curriculum:
    """The orders of a run's epochs, within limits.

    `measures` has a number for every sample under the name of each limit; a sample takes part in an epoch where none
    is above its limit. `kind` is `sorted` (every epoch ascends by `ease`), `easy_first` (the first `easy_epochs` do),
    or `shuffled`. With `varying` the limits change from epoch to epoch: `restrict` sets them.
    """

    def __init__(  # noqa: PLR0913 - the options of [data], one for one
        self,
        n: int,
        *,
        seed: int,
        measures: Mapping[str, Measure],
        limits: Mapping[str, Number],
        ease: Measure,
        kind: Kind = "shuffled",
        easy_epochs: int = 1,
        varying: bool = False,
        chunk: int = CHUNK,
    ) -> None:
        self._n = n
        self._seed = seed
        self._measures = measures
        self._limits = dict(limits)
        self._ease = ease
        self._easy = {"shuffled": 0, "sorted": None, "easy_first": easy_epochs}[kind]
        self._varying = varying
        self._chunk = chunk
        self._counted: dict[tuple[Number, ...], int] = {}

    @property
    def limits(self) -> Mapping[str, Number]:
        """What bounds the samples of an epoch that begins now, by name."""
        return self._limits

    @property
    def fixed(self) -> bool:
        """Whether every epoch has the same samples."""
        return not self._varying

    def restrict(self, name: str, limit: Number) -> None:
        """Set a limit, for epochs begun from now on; one that is continued keeps its own."""
        self._limits[name] = limit

    def count(self) -> int:
        """Count the samples of an epoch that begins now."""
        return self._count(self._limits)

    def of(self, epoch: int, limits: Mapping[str, Number]) -> Order:
        """Give the order of an epoch that began within `limits`. Raises DataError where they leave nothing."""
        kept = self._count(limits)
        if not kept:
            said = " and ".join(f"data.{name} = {limit:.15g}" for name, limit in limits.items())
            raise DataError(
                f"{said} leave{'s' if len(limits) == 1 else ''} none of the {self._n:,} training samples for epoch "
                f"{epoch + 1}; {self._smallest(limits)}."
            )
        order: Order = Shuffled(self._n, self._seed, epoch)
        if self._easy is None or epoch < self._easy:
            order = Ascending(self._n, self._ease, self._seed, epoch, chunk=self._chunk)
        return self._within(order, limits, kept)

    def typical(self) -> Order:
        """Give a shuffled order within the present limits; it may be empty."""
        return self._within(Shuffled(self._n, self._seed, 0), self._limits, self.count())

    def _within(self, order: Order, limits: Mapping[str, Number], kept: int) -> Order:
        if kept == self._n:
            return order
        limits = dict(limits)
        return Chosen(order, lambda rows: self._keeps(rows, limits), kept, chunk=self._chunk)

    def _keeps(self, rows: Ints, limits: Mapping[str, Number]) -> NDArray[np.bool_]:
        kept = np.ones(len(rows), dtype=np.bool_)
        for name, limit in limits.items():
            kept &= self._measures[name](rows) <= limit
        return kept

    def _count(self, limits: Mapping[str, Number]) -> int:
        if not limits:
            return self._n
        key = tuple(limits.values())
        if key not in self._counted:
            self._counted[key] = sum(
                int(np.count_nonzero(self._keeps(rows, limits))) for rows in _stretches(self._n, self._chunk)
            )
        return self._counted[key]

    def _smallest(self, limits: Mapping[str, Number]) -> str:
        least = {
            name: min(float(self._measures[name](rows).min()) for rows in _stretches(self._n, self._chunk))
            for name in limits
        }
        return "the least there is: " + ", ".join(
            f"{name.removeprefix('max_')} {value:.15g}" for name, value in least.items()
        )


class Chosen:
    """The members of another order that `keeps` keeps, `count` of them.

    How many come before each chunk is found out as far as anybody asks.
    """

    def __init__(
        self, order: Order, keeps: Callable[[Ints], NDArray[np.bool_]], count: int, *, chunk: int = CHUNK
    ) -> None:
        self._order = order
        self._keeps = keeps
        self._count = count
        self._chunk = chunk
        self._before = [0]
        self._held: tuple[int, Ints] = (-1, np.zeros(0, dtype=np.int64))

    @property
    def ease(self) -> Measure | None:
        """What the samples ascend by, where they do."""
        return self._order.ease

    def __len__(self) -> int:
        return self._count

    def take(self, start: int, stop: int) -> Ints:
        """Give the samples at places start to stop."""
        parts = []
        stop = min(stop, self._count)
        while start < stop:
            while start >= self._before[-1] and len(self._before) <= -(-len(self._order) // self._chunk):
                self._before.append(self._before[-1] + len(self._rows(len(self._before) - 1)))
            number = bisect_right(self._before, start) - 1
            begin = start - self._before[number]
            part = self._rows(number)[begin : begin + stop - start]
            parts.append(part)
            start += len(part)
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)

    def _rows(self, number: int) -> Ints:
        """Give the members of a chunk that are kept."""
        if self._held[0] != number:
            rows = self._order.take(number * self._chunk, (number + 1) * self._chunk)
            self._held = number, rows[self._keeps(rows)]
        return self._held[1]


class Ascending:
    """All of `n` samples by `ease`, the smallest first; equals are mixed by the seed within a chunk.

    The order is never held: a chunk of it is found by the ranks of its ends, in a few passes over all numbers.
    """

    def __init__(self, n: int, ease: Measure, seed: int, epoch: int, *, chunk: int = CHUNK) -> None:
        self.ease: Measure | None = ease
        self._n = n
        self._numbers = ease
        self._names = (seed, epoch)
        self._chunk = chunk
        self._first: NDArray[np.int64] | None = None
        self._ends: dict[int, tuple[int, int]] = {}
        self._held: tuple[int, Ints] = (-1, np.zeros(0, dtype=np.int64))

    def __len__(self) -> int:
        return self._n

    def take(self, start: int, stop: int) -> Ints:
        """Give the samples at places start to stop."""
        parts = []
        stop = min(stop, self._n)
        while start < stop:
            number, begin = divmod(start, self._chunk)
            part = self._rows(number)[begin : begin + stop - start]
            parts.append(part)
            start += len(part)
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)

    def _rows(self, number: int) -> Ints:
        if self._held[0] != number:
            rows = self._between(self._end(number * self._chunk), self._end(min((number + 1) * self._chunk, self._n)))
            seed, epoch = self._names
            rows = rows[generator(seed, "ease", epoch, number).permutation(len(rows))]
            self._held = number, rows[np.argsort(_keys(self._numbers(rows)), kind="stable")]
        return self._held[1]

    def _between(self, low: tuple[int, int], high: tuple[int, int]) -> Ints:
        """Gather the samples from one end of a chunk to the other, in their own order."""
        found = []
        seen_low = seen_high = 0
        for rows, keys in self._scan():
            at_low, at_high = keys == np.uint64(low[0]), keys == np.uint64(high[0])
            kept = (keys >= np.uint64(low[0])) & (keys <= np.uint64(high[0]))
            kept &= ~at_low | (seen_low + np.cumsum(at_low) > low[1])
            kept &= ~at_high | (seen_high + np.cumsum(at_high) <= high[1])
            found.append(rows[kept])
            seen_low += int(np.count_nonzero(at_low))
            seen_high += int(np.count_nonzero(at_high))
        return np.concatenate(found)

    def _end(self, place: int) -> tuple[int, int]:
        """Give the key of the sample before `place`, and how many with that key come before `place`."""
        if place == 0:
            return 0, 0
        if place not in self._ends:
            self._ends = {done: end for done, end in self._ends.items() if done == place - self._chunk}
            self._ends[place] = self._search(place)
        return self._ends[place]

    def _search(self, place: int) -> tuple[int, int]:
        key, left = 0, place
        for digit in reversed(range(_DIGITS)):
            counts = self._histogram(key, digit)
            total = np.cumsum(counts)
            value = int(np.searchsorted(total, left))
            left -= int(total[value - 1]) if value else 0
            key |= value << (_DIGIT * digit)
        return key, left

    def _histogram(self, key: int, digit: int) -> NDArray[np.int64]:
        """Count each value of a digit, among the keys whose higher digits are those of `key`."""
        whole = digit == _DIGITS - 1
        if whole and self._first is not None:
            return self._first
        counts = np.zeros(1 << _DIGIT, dtype=np.int64)
        above, shift = np.uint64(_DIGIT * (digit + 1)), np.uint64(_DIGIT * digit)
        for _, keys in self._scan():
            same = keys if whole else keys[keys >> above == np.uint64(key) >> above]
            values = (same >> shift & np.uint64((1 << _DIGIT) - 1)).astype(np.int64)
            counts += np.bincount(values, minlength=1 << _DIGIT)
        if whole:
            self._first = counts
        return counts

    def _scan(self) -> Iterator[tuple[Ints, NDArray[np.uint64]]]:
        for rows in _stretches(self._n, self._chunk):
            yield rows, _keys(self._numbers(rows))


def _stretches(n: int, chunk: int) -> Iterator[Ints]:
    """Give 0 ... n - 1 in stretches."""
    for start in range(0, n, chunk):
        yield np.arange(start, min(start + chunk, n), dtype=np.int64)


def _keys(numbers: NDArray[np.generic]) -> NDArray[np.uint64]:
    """Turn numbers into 64 bits that are ordered as they are."""
    bits = (np.asarray(numbers, dtype=np.float64) + 0.0).view(np.uint64)  # the sum makes -0.0 equal to 0.0
    top = np.uint64(1 << 63)
    keys: NDArray[np.uint64] = np.where(bits & top, ~bits, bits | top)
    return keys
