"""Schedules that are a table of moments and values, counted from the start of the run: stairs and piecewise."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from etude.base.config.fields import Switch
from etude.base.durations import Duration
from etude.base.progress import Progress
from etude.base.schedules.spec import Binding, Extreme, Finite, Length, Moment, Schedule, ScheduleSection


class Stairs(ScheduleSection):
    """values[i]; the last one stays. i counts intervals `every` since the start of the run, or moments `at` so far."""

    exclusive: ClassVar[tuple[tuple[str, ...], ...]] = (("every", "at"),)

    schedule: Literal["stairs"] = "stairs"
    values: Annotated[tuple[Finite, ...], Field(min_length=1)]
    """The values, one after the other."""
    every: Switch[Length] = None
    """Length of each value."""
    at: Switch[tuple[Moment, ...]] = None
    """When each value begins: as many moments as values, the first of them 0."""

    @model_validator(mode="after")
    def _when_is_said(self) -> Self:
        if self.at is not None:
            check_moments(self.at, "at", len(self.values), "values")
        elif self.every is None:
            raise ValueError("must give every or at, but has neither")
        return self

    def bind(self, binding: Binding) -> Schedule:
        """Look the value up."""
        if self.at is not None:
            return self._at_moments(self.at, binding)
        values, last, every = self.values, len(self.values) - 1, self.every
        assert every is not None
        if every.unit == "percent" or binding.own_clock:
            steps = binding.steps(every, "every")
            return lambda progress: values[min(last, int(progress.step / steps))]
        passed = every.passed
        return lambda progress: values[min(last, passed(progress))]

    def _at_moments(self, at: Sequence[Duration], binding: Binding) -> Schedule:
        values, moments = self.values, [float(moment.amount) for moment in at]
        position = binding.position(at[-1].unit, "at")
        return lambda progress: values[bisect_right(moments, position(progress)) - 1]

    def extremes(self) -> Iterator[Extreme]:
        """Give all values."""
        for number, value in enumerate(self.values):
            yield Extreme(value, f"in values.{number}")

    def course(self, binding: Binding) -> float | None:
        """Steps in which each value has had its time."""
        return None if self.every is None else len(self.values) * binding.steps(self.every, "every")


class Piecewise(ScheduleSection):
    """Straight lines between points of (moment, value); outside of them, the first and the last value stay."""

    schedule: Literal["piecewise"] = "piecewise"
    points: Annotated[tuple[tuple[Moment, Finite], ...], Field(min_length=1)]
    """The points, as `["1000 steps", 1.0]`, in order; all moments in one unit."""

    @model_validator(mode="after")
    def _points_increase(self) -> Self:
        _check_order([moment for moment, _ in self.points], "points")
        return self

    def bind(self, binding: Binding) -> Schedule:
        """Interpolate."""
        moments = [float(moment.amount) for moment, _ in self.points]
        values = [value for _, value in self.points]
        slopes = [(y - x) / (b - a) for (a, b), (x, y) in zip(pairwise(moments), pairwise(values), strict=True)]
        slopes.append(0.0)
        position = binding.position(self.points[-1][0].unit, "points")

        def value(progress: Progress) -> float:
            now = position(progress)
            index = bisect_right(moments, now) - 1
            return values[index] + slopes[index] * (now - moments[index]) if index >= 0 else values[0]

        return value

    def extremes(self) -> Iterator[Extreme]:
        """Give the values of all points."""
        for moment, value in self.points:
            yield Extreme(value, f"at {moment}")

    def course(self, binding: Binding) -> float | None:
        """Steps up to the last point."""
        return binding.steps(self.points[-1][0], "points")


def check_moments(moments: Sequence[Duration], option: str, count: int, what: str) -> None:
    """Refuse moments that are not as many as what begins at them, or do not begin with 0 and increase."""
    if len(moments) != count:
        raise ValueError(f"must have as many moments in {option} as {what}, but is {len(moments)} for {count}")
    if moments[0].amount:
        raise ValueError(f'must begin with "0 {moments[0].unit}" in {option}, but is {moments[0]} there')
    _check_order(moments, option)


def _check_unit(moments: Sequence[Duration], option: str) -> None:
    units = dict.fromkeys(moment.unit for moment in moments if moment.amount)
    if len(units) > 1:
        raise ValueError(f"must have all of {option} in one unit, but is in {' and '.join(units)}")


def _check_order(moments: Sequence[Duration], option: str) -> None:
    """Refuse moments that do not increase, or whose units differ (0 is the same in all)."""
    _check_unit(moments, option)
    for early, late in pairwise(moments):
        if late.amount <= early.amount:
            raise ValueError(f"must have increasing moments in {option}, but is {late} after {early}")
