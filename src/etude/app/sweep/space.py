"""The space of a sweep: which keys change, what each may be, and which of them change together."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from etude.app.sweep.ranges import Choice, Range, Values, is_range, read_choice
from etude.base.config.composing import dotted
from etude.base.config.lines import split_key
from etude.base.errors import ConfigError
from etude.tasks.sweeps import SweepConfig

NAME = "name"
"""The key of a table that names it, rather than changing something."""
FIXED = ("run.name", "run.dir", "extends")
"""Keys that the sweep itself sets, or that are none of a run."""

Combination = Mapping[str, Any]
"""Values by dotted key."""


@dataclass(frozen=True)
class Table:
    """Keys that change together."""

    name: str
    """Empty where it has none."""
    values: Combination


@dataclass(frozen=True)
class Point:
    """A combination, and the table that it was made with."""

    values: Combination
    table: Table | None = None


@dataclass(frozen=True)
class Space:
    """All that may be combined."""

    choices: Mapping[str, Choice]
    tables: Sequence[Table] = ()

    @property
    def ranges(self) -> list[str]:
        """The keys of which not all values can be listed."""
        return [key for key, choice in self.choices.items() if isinstance(choice, Range)]

    @property
    def keys(self) -> list[str]:
        """Every key that changes, in order."""
        named = [key for table in self.tables for key in table.values]
        return list(dict.fromkeys([*named, *self.choices]))

    def grid(self) -> Iterator[Point]:
        """Every combination, the last key changing first. For a space without ranges."""
        lists = [choice.values for choice in self.choices.values() if isinstance(choice, Values)]
        tables: Sequence[Table | None] = self.tables or [None]
        for table, values in product(tables, product(*lists)):
            yield self._point(table, values)

    def at(self, places: Sequence[float]) -> Point:
        """The combination at a place in the unit cube; tables, where there are some, are its first axis."""
        rest = list(places)
        table = Values(self.tables).at(rest.pop(0)) if self.tables else None
        return self._point(table, [choice.at(place) for choice, place in zip(self.choices.values(), rest, strict=True)])

    @property
    def axes(self) -> int:
        """How many numbers a place has."""
        return len(self.choices) + bool(self.tables)

    def _point(self, table: Table | None, values: Sequence[object]) -> Point:
        given = {} if table is None else table.values
        return Point({**given, **dict(zip(self.choices, values, strict=True))}, table)


def read_space(config: SweepConfig, flags: Mapping[str, Any], same: Sequence[str]) -> Space:
    """The space that `[sweep]` and flags give; a flag takes the place of a key's values in `[sweep.keys]`.

    `same` are the keys that the command line gives one value. Raises ConfigError with every problem at once.
    """
    given = {key: value for key, value in _leaves(config.keys) if key not in same} | dict(flags)
    tables = [_table(number, table) for number, table in enumerate(config.tables)]
    problems = [*_wrong_keys([*given, *(key for table in tables for key in table.values)])]
    problems += _conflicts(given, tables, same)
    choices = {}
    for key, value in given.items():
        try:
            choices[key] = read_choice(key, value)
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)
    return Space(choices, tables)


def _leaves(table: Mapping[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """The keys of nested tables, dotted; a quoted key may be dotted itself."""
    for name, value in table.items():
        key = (*above, *_parts(name))
        if isinstance(value, Mapping) and not is_range(value):
            yield from _leaves(value, key)
        else:
            yield dotted(key), value


def _parts(name: str) -> tuple[str, ...]:
    try:
        return split_key(name)
    except ValueError:
        return (name,)


def _table(number: int, given: Mapping[str, Any]) -> Table:
    """One of `[[sweep.tables]]`. Raises ConfigError for one that is empty."""
    values = dict(_leaves({name: value for name, value in given.items() if name != NAME}))
    name = given.get(NAME, "")
    if not isinstance(name, str):
        raise ConfigError(f"sweep.tables[{number}].name must be text, but is {name!r}.")
    if not values:
        raise ConfigError(f"sweep.tables[{number}] must change at least one key, but is empty.")
    return Table(name, values)


def _wrong_keys(keys: Sequence[str]) -> Iterator[str]:
    for key in dict.fromkeys(keys):
        if key in FIXED or key.partition(".")[0] == "sweep":
            yield f"{key} cannot be swept: it is the sweep's own."


def _conflicts(given: Mapping[str, Any], tables: Sequence[Table], same: Sequence[str]) -> Iterator[str]:
    """What is said twice: a key and another inside of it, or one of a table and another of the command line."""
    of_tables = list(dict.fromkeys(key for table in tables for key in table.values))
    for key in of_tables:
        if key in given or key in same:
            yield f"{key} is in [[sweep.tables]] and given beside it too: keep one of them."
    every = list(dict.fromkeys([*given, *of_tables]))
    for key in every:
        yield from (f"{other} lies inside {key}, which is swept too: keep one." for other in every if _in(other, key))
        yield from (f"{other} is given, but lies inside {key}, which is swept." for other in same if _in(other, key))


def _in(key: str, other: str) -> bool:
    return key.startswith((f"{other}.", f"{other}["))
