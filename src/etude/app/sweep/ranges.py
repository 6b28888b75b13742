"""What a key of a sweep may be: one of some values, or a number of a range; each found by a place in [0, 1)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from etude.base.errors import ConfigError
from etude.base.numbers import is_finite

MARKS = {"min", "max"}
KEYS = MARKS | {"log", "step"}


@dataclass(frozen=True)
class Values:
    """A list of candidates."""

    values: Sequence[Any]

    def at(self, place: float) -> Any:
        """The candidate at a place: each has an equal share of [0, 1)."""
        return self.values[min(int(place * len(self.values)), len(self.values) - 1)]

    def told(self) -> list[Any]:
        """As a config has it."""
        return list(self.values)


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included; whole ones where both are."""

    low: float
    high: float
    log: bool = False
    """Whether equal factors, rather than equal differences, are equally likely."""
    step: float | None = None
    """The distance of the numbers that there are, counted from `low`."""

    def told(self) -> dict[str, Any]:
        """As a config has it."""
        given = {"min": self.low, "max": self.high, "log": self.log}
        return given if self.step is None else {**given, "step": self.step}

    @property
    def is_whole(self) -> bool:
        """Whether its numbers are whole."""
        return isinstance(self.low, int) and isinstance(self.high, int) and isinstance(self.step, int | None)

    def at(self, place: float) -> float:
        """The number at a place.

        >>> Range(1e-4, 1e-2, log=True).at(0.5), Range(2, 8, step=2).at(0.99), Range(1, 3).at(0.0)
        (0.001, 8, 1)
        """
        step = 1 if self.is_whole and self.step is None else self.step
        if step is not None and not self.log:
            count = math.floor((self.high - self.low) / step + 1e-9) + 1
            return self.low + min(int(place * count), count - 1) * step
        low, high = (self.low, self.high + 1) if self.is_whole else (self.low, self.high)
        number = _between(low, high, place) if self.log else low + place * (high - low)
        return min(max(self.low, math.floor(number) if self.is_whole else number), self.high)


def _between(low: float, high: float, place: float) -> float:
    """The number that divides the way from `low` to `high` by factors; rounded off beyond what a config shows."""
    number = math.exp(math.log(low) + place * (math.log(high) - math.log(low)))
    return float(f"{number:.12g}")


Choice = Values | Range


def is_range(given: object) -> bool:
    """Whether a table is a range rather than one of further keys."""
    return isinstance(given, Mapping) and given.keys() >= MARKS


def read_choice(key: str, given: object) -> Choice:
    """What a key of `[sweep.keys]` may be; one value that is no list is one candidate. Raises ConfigError."""
    if isinstance(given, Mapping) and is_range(given):
        return _range(key, given)
    values = list(given) if isinstance(given, list | tuple) else [given]
    if not values:
        raise ConfigError(f"sweep.keys.{key} must hold at least one value, but is an empty list.")
    for number, value in enumerate(values):
        if any(_is_same(value, other) for other in values[:number]):
            raise ConfigError(f"sweep.keys.{key} must hold each value once, but holds {value!r} twice.")
    return Values(values)


def _is_same(one: object, other: object) -> bool:
    return type(one) is type(other) and one == other


def _range(key: str, given: Mapping[str, Any]) -> Range:
    """A range, checked."""
    where = f"sweep.keys.{key}"
    for name, value in given.items():
        _check_part(where, name, value)
    found = Range(given["min"], given["max"], given.get("log", False), given.get("step"))
    if found.low >= found.high:
        raise ConfigError(f"{where}.min must be below its max, but they are {found.low} and {found.high}.")
    if found.log and (found.low <= 0 or found.step is not None):
        raise ConfigError(f"{where} must be above 0 and have no step where log is true.")
    if found.step is not None and not 0 < found.step <= found.high - found.low:
        raise ConfigError(f"{where}.step must be above 0 and fit between min and max, but is {found.step}.")
    return found


def _check_part(where: str, name: str, value: object) -> None:
    """Refuse a part of a range that is none, or no number."""
    if name not in KEYS:
        raise ConfigError(f"{where}.{name} is no key of a range, which has min, max, log and step.")
    if name == "log" and not isinstance(value, bool):
        raise ConfigError(f"{where}.log must be true or false, but is {value!r}.")
    if name != "log" and not is_finite(value):
        raise ConfigError(f"{where}.{name} must be a finite number, but is {value!r}.")
