"""Schedules made of others or by the user, and the union of all."""

import inspect
import math
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import accumulate, pairwise
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BeforeValidator, ConfigDict, Discriminator, Field, PrivateAttr, Tag, model_validator

from etude.base.config.components import is_import_path
from etude.base.config.fields import Switch, anchored
from etude.base.config.imports import check_signature, resolve_import
from etude.base.errors import ConfigError
from etude.base.horizon import Horizon
from etude.base.progress import Progress
from etude.base.schedules.decays import Constant, Cosine, Exponential, Inverse, Linear, Noam, Step, Trapezoid, Wsd
from etude.base.schedules.one_cycle import OneCycle
from etude.base.schedules.spec import Binding, Extreme, Moment, Schedule, ScheduleSection, check_range, rounded
from etude.base.schedules.tables import Piecewise, Stairs, check_moments
from etude.base.schedules.validated import Driven, Newbob, Plateau, begin_anew

_ANY = Binding(Horizon(steps=1e6, steps_per_epoch=1e3, samples_per_step=1.0, tokens_per_step=1.0), "chain")
"""A run of which everything is known: whether a part tells its length does not depend on the run."""

IMPORTED = "package.module:function"
"""The name that messages give to a schedule by import path."""


class Chain(ScheduleSection):
    """One schedule after the other.

    Part p begins at moment `at[p]` of the run; without `at`, when part p - 1 has finished: W - 1 steps of
    warm-up and then its `over`, `cooldown`, last point, or `every` times its values. So a warm-up to a peak, followed
    by a part that begins at that peak, equals one schedule with that warm-up. The last part lasts to the end of the
    run. Each part counts steps from its own beginning, all its durations are translated into steps, and "the run" is
    for it as long as the part; a value therefore arrives at its end on the first step of the next part. The last part
    may be a plateau or newbob, which follows the validations after its own steps.
    """

    schedule: Literal["chain"] = "chain"
    parts: Annotated[tuple["ScheduleSpec", ...], Field(min_length=1)]
    """The schedules, one after the other."""
    at: Switch[tuple[Moment, ...]] = None
    """When each part begins: as many moments as parts, the first of them 0."""

    @model_validator(mode="after")
    def _the_parts_fit_together(self) -> Self:
        for number, part in enumerate(self.parts[:-1]):
            if _follows_validations(part):
                raise ValueError(
                    f"must have no part but the last that follows validations: it is {part.schedule} in parts.{number}"
                )
        if self.at is None:
            self._check_lengths()
        else:
            check_moments(self.at, "at", len(self.parts), "parts")
        return self

    def _check_lengths(self) -> None:
        """Refuse a part that does not tell when the next begins."""
        for number, part in enumerate(self.parts[:-1]):
            if part.course(_ANY) is None:
                raise ValueError(f"must give at, because parts.{number} ({part.schedule}) has no known length")

    def bind(self, binding: Binding) -> Schedule:
        """Bind every part to its own stretch of the run."""
        starts = self._starts(binding)
        spans: list[float | None] = [late - early for early, late in pairwise(starts)]
        end = binding.horizon.steps
        spans.append(None if end is None else max(end, starts[-1] + 1) - starts[-1])
        numbered = enumerate(zip(self.parts, spans, strict=True))
        bound = [part.bind(binding.part(number, span)) for number, (part, span) in numbered]

        return (_DrivenChain if isinstance(bound[-1], Driven) else _Chain)(starts, bound)

    def extremes(self) -> Iterator[Extreme]:
        """Give those of all parts."""
        for number, part in enumerate(self.parts):
            for extreme in part.extremes():
                yield extreme._replace(where=f"{extreme.where} in parts.{number}")

    def course(self, binding: Binding) -> float | None:
        """Steps of all parts together, where the last tells its own."""
        start = self._starts(binding)[-1]
        last = self.parts[-1].course(binding.part(len(self.parts) - 1, binding.horizon.steps))
        return None if last is None else start + rounded(last)

    def _starts(self, binding: Binding) -> list[int]:
        """Give the step that each part begins with."""
        if self.at is not None:
            return [0, *(binding.whole(moment, f"at.{number}") for number, moment in enumerate(self.at[1:], start=1))]
        steps = binding.horizon.steps
        courses = [part.course(binding.part(number, steps)) for number, part in enumerate(self.parts[:-1])]
        return [0, *accumulate(rounded(course or 1) for course in courses)]


def _follows_validations(part: ScheduleSection) -> bool:
    """Whether a part reads validations, itself or in the last part of its own."""
    return _follows_validations(part.parts[-1]) if isinstance(part, Chain) else isinstance(part, Plateau | Newbob)


class _Chain:
    """A bound `chain`: each part counts steps from its own beginning."""

    def __init__(self, starts: Sequence[int], bound: Sequence[Schedule]) -> None:
        self._starts = starts
        self._bound = bound

    def __call__(self, progress: Progress) -> float:
        part = bisect_right(self._starts, progress.step) - 1
        return self._bound[part](self._within(part, progress))

    def _within(self, part: int, progress: Progress) -> Progress:
        return Progress(progress.step - self._starts[part], *progress[1:])


class _DrivenChain(_Chain):
    """One whose last part follows validations: those of its own steps."""

    @property
    def _last(self) -> Driven:
        last = self._bound[-1]
        assert isinstance(last, Driven)
        return last

    def check(self, metrics: Mapping[str, float]) -> None:
        """Refuse a metric that is not there."""
        self._last.check(metrics)

    def follow_validation(self, metrics: Mapping[str, float], progress: Progress) -> None:
        """Let the last part take a validation in, where it has taken a step before it."""
        if progress.step > self._starts[-1]:
            self._last.follow_validation(metrics, self._within(-1, progress))

    def begin_anew(self) -> None:
        """Let the last part compare with no validation before."""
        begin_anew([self._last])

    def state_dict(self) -> dict[str, Any]:
        """Give what the last part remembers."""
        return self._last.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        self._last.load_state_dict(state)


def _anchored(value: object) -> object:
    return anchored(value) if isinstance(value, str) else value


class Function(ScheduleSection):
    """A custom schedule: a function of the progress by import path; further keys are its keyword arguments."""

    model_config = ConfigDict(extra="allow")

    schedule: Annotated[str, Field(pattern=":"), BeforeValidator(_anchored)]
    """`package.module:function`, or `file.py:function` beside the config."""
    _bounds: Mapping[str, float] = PrivateAttr(default_factory=dict)

    def within(self, bounds: Mapping[str, float]) -> Self:
        """Give the same, of which every value must lie in a range; only calling the function can tell."""
        bounded = self.model_copy()
        bounded._bounds = dict(bounds)  # noqa: SLF001 - a copy of its own
        return bounded

    def bind(self, binding: Binding) -> Schedule:
        """Import the function, and give it its arguments. Raises ConfigError where either fails."""
        function: Callable[..., float] = resolve_import(self.schedule, f"{binding.key}.schedule")
        if not callable(function):
            raise ConfigError(f"{binding.key}.schedule must be a function of progress, but {self.schedule} is none.")
        arguments = dict(self.model_extra or {})
        check_signature(function, arguments, binding.key, positional=1)
        called = partial(function, **arguments) if arguments else function
        if not inspect.isfunction(function):
            return called  # an object may have more to it: events, validations to follow

        def value(progress: Progress) -> float:
            return self._checked(called, progress, binding.key)

        return value

    def _checked(self, function: Callable[..., object], progress: Progress, key: str) -> float:
        """Give the function's value for a step. Raises ConfigError where it fails, or is no number of the range."""
        where = f"from {self.schedule} at step {progress.step + 1}"
        try:
            found = function(progress)
        except Exception as error:
            raise ConfigError(f"{key} gets no value {where}: {type(error).__name__}: {error}.") from error
        number = float(found) if hasattr(found, "__float__") else math.nan
        if not math.isfinite(number):
            raise ConfigError(f"{key} must be a finite number, but is {found!r} {where}.")
        self._check_bounds(Extreme(number, where), key)
        return number

    def _check_bounds(self, extreme: Extreme, key: str) -> None:
        try:
            check_range(extreme, self._bounds)
        except ValueError as error:
            raise ConfigError(f"{key} {error}.") from None

    def extremes(self) -> Iterator[Extreme]:
        """Give none: only the function knows."""
        return iter(())


def _tag(value: object) -> str | None:
    """Name the schedule that a table, or an object already made, is meant as."""
    name = value.get("schedule") if isinstance(value, Mapping) else getattr(value, "schedule", None)
    if is_import_path(name):
        return IMPORTED
    return name if name is None or isinstance(name, str) else str(name)


ScheduleSpec = Annotated[
    Annotated[Constant, Tag("constant")]
    | Annotated[Linear, Tag("linear")]
    | Annotated[Cosine, Tag("cosine")]
    | Annotated[Inverse, Tag("inverse")]
    | Annotated[Noam, Tag("noam")]
    | Annotated[Exponential, Tag("exponential")]
    | Annotated[Step, Tag("step")]
    | Annotated[Stairs, Tag("stairs")]
    | Annotated[Piecewise, Tag("piecewise")]
    | Annotated[Trapezoid, Tag("trapezoid")]
    | Annotated[Wsd, Tag("wsd")]
    | Annotated[OneCycle, Tag("one_cycle")]
    | Annotated[Plateau, Tag("plateau")]
    | Annotated[Newbob, Tag("newbob")]
    | Annotated[Chain, Tag("chain")]
    | Annotated[Function, Tag(IMPORTED)],
    Discriminator(_tag),
]
"""The config of any schedule: a table that names its `schedule`."""

Chain.model_rebuild()
SCHEDULES: tuple[type[ScheduleSection], ...] = tuple(get_args(part)[0] for part in get_args(get_args(ScheduleSpec)[0]))
"""Every kind of schedule."""
