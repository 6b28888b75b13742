"""Where values over many steps take another course, found without looking at every step."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TypeVar

from etude.app.plan.walk import first

Values = Callable[[int], Mapping[str, float]]
"""The values of a step, by name; steps are counted from 1."""

DENSE = 2000
"""Up to so many steps each is looked at."""
POINTS = 1000
"""Places at which a longer run is looked at."""
TURNS = 60
"""Turns of one value that are kept."""
FLAT = 1e-12
"""A change by less than this part of the value is none: a cosine near its ends."""

T = TypeVar("T")


def grid(last: int) -> list[int]:
    """Steps spread evenly over a run, the first and the last among them: all of a short one.

    >>> grid(5), len(grid(10**6)), grid(10**6)[-1]
    ([1, 2, 3, 4, 5], 1000, 1000000)
    """
    if last <= DENSE:
        return list(range(1, last + 1))
    return [1 + index * (last - 1) // (POINTS - 1) for index in range(POINTS)]


def thinned(items: Sequence[T], most: int) -> list[T]:
    """At most `most` of the items, evenly, with the first and, of two or more, the last.

    >>> thinned(range(11), 3)
    [0, 5, 10]
    """
    count = len(items)
    if count <= most or most <= 1:
        return list(items[:most])
    return [items[index * (count - 1) // (most - 1)] for index in range(most)]


def turns(values: Values, last: int) -> list[int]:
    """The steps at which any value takes another course: where it peaks, begins or ends to change, or jumps.

    At a jump from one level to another it is the first step at the new one. In a run of more than `DENSE` steps, one
    that reaches an old level again between two of its `POINTS` is not seen.
    """
    found: set[int] = set()
    for name in values(1):
        course = _Course(values, name, last)
        found.update(thinned(sorted(set(course.turns())), TURNS))
    return sorted(found)


class _Course:
    """One value over the steps."""

    def __init__(self, values: Values, name: str, last: int) -> None:
        self._values = values
        self._name = name
        self._last = last

    def turns(self) -> Iterator[int]:
        """Every turn, roughly in order; one may come twice."""
        points = grid(self._last)
        # The step after each place too: two places may happen to lie at jumps.
        for low, high in pairwise(sorted({*points, *(step + 1 for step in points[:-1])})):
            yield from filter(self._is_turn, self._candidates(low, min(high, self._last - 1)))

    def at(self, step: int) -> float:
        """The value of a step."""
        return self._values(step)[self._name]

    def slope(self, step: int) -> int:
        """Whether the next step's value is higher (1), lower (-1) or the same (0)."""
        if not 0 < step < self._last:
            return 0
        here, there = self.at(step), self.at(step + 1)
        if abs(there - here) <= FLAT * abs(here):
            return 0
        return 1 if there > here else -1

    def _is_turn(self, step: int) -> bool:
        before, after = self.slope(step - 1), self.slope(step)
        if before == after:
            return False
        if after == 0 and self.slope(step - 2) == 0:
            return True  # the first step at a new level
        last_at_an_old_one = before == 0 and self.slope(step + 1) == 0
        return step != self._last and not last_at_an_old_one

    def _candidates(self, low: int, high: int) -> Iterator[int]:
        """The steps in (low, high + 1] that may be turns."""
        for _ in range(TURNS):
            now = self.slope(low)
            turn = self._end_of(now, low, high)
            if turn is None:
                break
            if now == 0:
                yield from self._changes(low, turn)  # a jump that the search has stepped over
            yield from (turn, turn + 1)
            low = turn
        if low < high and self.slope(low) == 0:
            yield from self._changes(low, high)

    def _end_of(self, slope: int, low: int, high: int) -> int | None:
        """A step in (low, high] with another slope; None where there seems to be none."""
        # One step is asked first: a value may jump at both ends, and be level between.
        if low < high and self.slope(low + 1) != slope:
            return low + 1
        return first(lambda step: self.slope(step) != slope, low, high)

    def _changes(self, low: int, high: int) -> Iterator[int]:
        """Where a value that is level at both ends goes from one level to another."""
        if self.at(low) == self.at(high):
            return
        if high - low == 1:
            yield from (low, high)
            return
        middle = (low + high) // 2
        yield from self._changes(low, middle)
        yield from self._changes(middle, high)
