"""Schedules of what shapes a run: layers, widths, types, losses. Their values are of any kind, and change with epochs.

A config with such schedules stands for one config in each epoch: the one in which every schedule is replaced by the
value that it has there.
"""

import math
from bisect import bisect
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import chain, pairwise
from typing import Annotated, Any, ClassVar, Literal, Protocol, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from etude.base.config.components import is_import_path, quoted
from etude.base.config.fields import MomentField, Switch, plain
from etude.base.config.imports import resolve_import
from etude.base.config.lines import Key
from etude.base.config.nest import places, rebuilt, value_at
from etude.base.config.section import Section
from etude.base.config.structure import fields_of, section_for, type_below
from etude.base.durations import Duration
from etude.base.errors import ConfigError
from etude.base.near import did_you_mean
from etude.base.progress import Progress

SHAPING = ("task", "data", "model", "loss", "optimizer", "init")
"""Sections whose keys may follow such a schedule."""
KINDS_OF_RUNS: tuple[Key, ...] = (("task",), ("task", "type"), ("data",), ("data", "type"))
"""Places by which a config is read as that of one kind of run or another."""
NAME, TOKENIZER = "schedule", "tokenizer"


class Structural(Protocol):
    """A value of any kind in each epoch."""

    def at(self, epoch: int) -> Any:
        """The value in an epoch, counted from 0."""

    def turns(self) -> Sequence[int] | None:
        """The epochs at whose begin the value may change; None where only asking tells."""

    def written(self, value: Callable[[int], Any]) -> dict[str, Any]:
        """The table as a config holds it; `value` gives the plain value of an epoch at which one begins."""


class StructuralStairs(Section):
    """values[i]; the last one stays."""

    exclusive: ClassVar[tuple[tuple[str, ...], ...]] = (("every", "at"),)

    schedule: Literal["stairs"] = "stairs"
    values: Annotated[list[Any], Field(min_length=1)]
    """The values, one after the other."""
    every: Switch[MomentField] = None
    """Epochs of each value."""
    at_: Switch[list[MomentField]] = Field(None, alias="at")
    """When each value begins: as many moments as values, the first of them 0."""

    @model_validator(mode="after")
    def _when_is_said(self) -> Self:
        if self.at_ is not None:
            _check_moments(self.begins, len(self.values))
        elif self.every is None:
            raise ValueError("must give every or at, but has neither")
        elif _epochs(self.every) < 1:
            raise ValueError("every must be at least 1 epoch")
        return self

    @property
    def begins(self) -> list[int]:
        """The epoch at whose begin each value is taken up."""
        if self.at_ is not None:
            return list(map(_epochs, self.at_))
        assert self.every is not None
        return [number * _epochs(self.every) for number in range(len(self.values))]

    def at(self, epoch: int) -> Any:
        """The value of an epoch."""
        begun = [begin for begin in self.begins if begin <= epoch]
        return self.values[len(begun) - 1]

    def turns(self) -> Sequence[int]:
        """Where a value begins."""
        return self.begins

    def written(self, value: Callable[[int], Any]) -> dict[str, Any]:
        """The table, each value as it is read."""
        when = {"every": str(self.every)} if self.at_ is None else {"at": list(map(str, self.at_))}
        return {NAME: self.schedule, "values": list(map(value, self.begins)), **when}


class StructuralPoints(Section):
    """Straight lines between points of (moment, whole number), rounded (a half goes up)."""

    schedule: Literal["piecewise"] = "piecewise"
    points: Annotated[list[tuple[MomentField, int]], Field(min_length=1)]
    """The points, as `["4 epochs", 256]`, in order."""

    @model_validator(mode="after")
    def _points_increase(self) -> Self:
        begins = [_epochs(moment) for moment, _ in self.points]
        if any(later <= earlier for earlier, later in pairwise(begins)):
            raise ValueError("points must be in the order of their moments")
        return self

    def at(self, epoch: int) -> int:
        """The value of an epoch."""
        points = [(_epochs(moment), value) for moment, value in self.points]
        begun = bisect([begin for begin, _ in points], epoch)
        # Before the first point and behind the last one these are the same.
        (a, x), (b, y) = points[max(begun - 1, 0)], points[min(begun, len(points) - 1)]
        if a == b:
            return x
        return math.floor(x + Fraction(epoch - a, b - a) * (y - x) + Fraction(1, 2))

    def turns(self) -> Sequence[int]:
        """Every epoch up to the last point."""
        return range(_epochs(self.points[-1][0]) + 1)

    def written(self, value: Callable[[int], Any]) -> dict[str, Any]:
        """The table."""
        del value
        return {NAME: self.schedule, "points": [[str(moment), number] for moment, number in self.points]}


class StructuralFunction(Section):
    """A function of the progress by import path, asked where an epoch begins; further keys are its arguments."""

    model_config = ConfigDict(extra="allow")

    schedule: Annotated[str, Field(pattern=":")]

    def at(self, epoch: int) -> Any:
        """What the function gives at the begin of an epoch. Raises ConfigError where it fails."""
        function: Callable[..., Any] = resolve_import(self.schedule, NAME)
        try:
            return function(Progress(epoch=epoch), **(self.model_extra or {}))
        except Exception as error:
            raise ConfigError(
                f"{NAME} {self.schedule} failed at epoch {epoch}: {type(error).__name__}: {error}."
            ) from error

    def turns(self) -> None:
        """Only asking tells."""
        return

    def written(self, value: Callable[[int], Any]) -> dict[str, Any]:
        """The table."""
        del value
        whole: dict[str, Any] = plain({NAME: self.schedule, **(self.model_extra or {})})
        return whole


KINDS: Mapping[str, type[Section]] = {"stairs": StructuralStairs, "piecewise": StructuralPoints}


def _epochs(moment: Duration) -> int:
    if moment.unit != "epochs" or moment.amount.denominator != 1:
        raise ValueError(
            f"must count whole epochs, between which alone the shape of a run changes, but there is {moment}"
        )
    return moment.amount.numerator


def _check_moments(begins: Sequence[int], values: int) -> None:
    if len(begins) != values:
        raise ValueError(f"at must give a moment for each of the {values} values, but gives {len(begins)}")
    if begins[0] != 0 or any(later <= earlier for earlier, later in pairwise(begins)):
        raise ValueError("at must begin with 0 epochs and rise")


def structural(table: Mapping[str, Any], key: str) -> Structural:
    """Read a schedule of any values. Raises ConfigError, which names `key`."""
    name = table.get(NAME)
    kind = StructuralFunction if is_import_path(name) else KINDS.get(str(name))
    if kind is None:
        raise ConfigError(
            f"{key}.{NAME} must be {quoted(KINDS)} or an import path, since {key} shapes what is trained and changes "
            f"between epochs alone, but is {name!r}."
        )
    try:
        made: Structural = kind.model_validate(dict(table))  # type: ignore[assignment]
    except ValidationError as error:
        known = [field.alias or name for name, field in kind.model_fields.items()]
        raise ConfigError([_sentence(key, problem, known) for problem in error.errors(include_url=False)]) from None
    return made


def _sentence(key: str, problem: Mapping[str, Any], known: Sequence[str]) -> str:
    place = ".".join([key, *map(str, problem["loc"])])
    match problem["type"]:
        case "missing":
            return f"{place} is missing: set it."
        case "extra_forbidden":
            meant = did_you_mean(str(problem["loc"][-1]), known, f"it knows {', '.join(known)}.")
            return f"{place} is not a key of this schedule; {meant}"
        case "int_type" | "int_from_float" | "int_parsing":
            return f"{place} must be a whole number, but is {problem['input']!r}."
    said = str(problem["msg"]).removeprefix("Value error, ")
    return f"{place}: {said}."


# -- a config with such schedules --------------------------------------------------------------------------------------


def shaping(root: type[BaseModel], data: Mapping[str, Any]) -> dict[Key, Structural]:
    """The schedules of a composed config that shape its run, by their place: those where no number may follow one.

    Raises ConfigError with the first that is none.
    """
    _refuse_fixed(data)
    fields = fields_of(root)
    found: dict[Key, Structural] = {}
    for name in SHAPING:
        if name in fields:
            below = type_below(root, name, data)
            found |= {place: structural(value_at(data, place), _dotted(place)) for place in _at(below, data, (name,))}
    return found


def _refuse_fixed(data: Mapping[str, Any]) -> None:
    """Refuse a schedule of what a run keeps. Raises ConfigError, which says what to do instead."""
    for place in places(data.get(TOKENIZER)):
        if place[-1:] == (NAME,):
            raise ConfigError(
                f"{_dotted((TOKENIZER, *place[:-1]))} cannot follow a schedule: a run keeps the tokens that it begins "
                "with. Train with others in a stage of its own, which takes its first weights by init.from, but for "
                "embeddings and output."
            )


def _at(annotation: object, data: Mapping[str, Any], place: Key) -> Iterator[Key]:
    """Where structural schedules stand, at a place or below it."""
    value = value_at(data, place)
    if not isinstance(value, Mapping):
        return
    if not _is_schedule(value):
        for key in value:
            yield from _at(type_below(annotation, key, value), data, (*place, key))
    elif not _has_schedule(section_for(annotation, value)):
        yield place


def _has_schedule(section: type[BaseModel] | None) -> bool:
    """Whether a section has such a key of its own, so that its table is no schedule of what stands there."""
    return section is not None and NAME in fields_of(section)


def _dotted(place: Key) -> str:
    return ".".join(map(str, place))


def in_epoch(data: Mapping[str, Any], found: Mapping[Key, Structural], epoch: int) -> dict[str, Any]:
    """The composed config with the values that it has in an epoch."""
    whole: dict[str, Any] = _copied(data)
    for place, schedule in found.items():
        put(whole, place, _value(schedule, epoch, _dotted(place)))
    return whole


def _value(schedule: Structural, epoch: int, key: str) -> Any:
    try:
        return _copied(schedule.at(epoch))
    except ConfigError as error:
        raise ConfigError([f"{key}.{problem}" for problem in error.problems]) from error


def begun(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """The composed values with the task, and the kind of its data, that the run begins with; the rest is as it is."""
    schedules = [place for place in KINDS_OF_RUNS if _is_schedule(value_at(data, place))]
    return in_epoch(data, {place: structural(value_at(data, place), _dotted(place)) for place in schedules}, 0)


def _is_schedule(value: object) -> bool:
    return isinstance(value, Mapping) and NAME in value


def _copied(nest: object) -> Any:
    """The nest built anew, of the same values at its ends."""
    return rebuilt(nest, lambda leaf: leaf)


def put(data: dict[str, Any], place: Key, value: object) -> None:
    """Put a value at a place of a config, whose tables are there."""
    for key in place[:-1]:
        data = data[key]  # type: ignore[index]
    data[place[-1]] = value  # type: ignore[index]


def turns(found: Mapping[Key, Structural], epochs: int | None) -> list[int]:
    """The epochs, from the second on, at whose begin a value may change, of a run of so many epochs, as far as known.

    Raises ConfigError where only asking in each epoch could tell, and their number is not known.
    """
    begins = set(chain.from_iterable(_turns(schedule, epochs, place) for place, schedule in found.items()))
    return sorted(begin for begin in begins if begin > 0)


def _turns(schedule: Structural, epochs: int | None, place: Key) -> Sequence[int]:
    """The epochs at whose begin a value may change: every one where only asking tells."""
    told = schedule.turns()
    if told is not None:
        return told
    if epochs is None:
        raise ConfigError(
            f"{_dotted(place)} follows a function, which is asked in each epoch: give train.max_duration in epochs."
        )
    return range(epochs)
