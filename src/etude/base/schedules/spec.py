"""What every schedule is made of: its config, what binds it to a run, and the warm-up that most begin with."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, NamedTuple, final

from pydantic import AfterValidator, Field

from etude.base.config.fields import DurationField, MomentField
from etude.base.config.section import Section
from etude.base.durations import Duration
from etude.base.errors import ConfigError
from etude.base.horizon import Horizon
from etude.base.progress import Progress

Schedule = Callable[[Progress], float]
"""A value over a run: called with the progress before a step, it gives the value for that step."""

Finite = Annotated[float, Field(allow_inf_nan=False)]


def _no_time(duration: Duration) -> Duration:
    if duration.unit == "seconds":
        raise ValueError("must not be a time: schedules follow epochs, steps, batches, tokens, samples or %")
    return duration


Length = Annotated[DurationField, AfterValidator(_no_time)]
"""How long a part of a schedule is: any duration but a time."""
Moment = Annotated[MomentField, AfterValidator(_no_time)]
"""The same, where nothing ("0 steps") means something too."""

NOTHING = Duration(0, "steps")


class Extreme(NamedTuple):
    """A value at the edge of what a schedule gives, for checking it against a field's range."""

    value: float
    where: str
    """Completes "but is 2.0 ...": `at its peak`."""
    attained: bool = True
    """Whether the value is really given, not only approached."""


def check_range(extreme: Extreme, bounds: Mapping[str, float]) -> None:
    """Raise ValueError for a value outside of a range; one that is only approached may lie on an open end."""
    for name, bound in bounds.items():
        if _is_past(extreme, name, bound):
            raise ValueError(f"must be {_WORDS[name]} {bound:.15g}, but is {extreme.value:.15g} {extreme.where}")


def _is_past(extreme: Extreme, name: str, bound: float) -> bool:
    past = bound - extreme.value if name in {"ge", "gt"} else extreme.value - bound
    return past > 0 or (past == 0 and extreme.attained and name in {"gt", "lt"})


_WORDS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}


@final
@dataclass(frozen=True, slots=True)
class Binding:
    """What a schedule is bound to: a run's horizon, the key it stands under, and what else it may ask."""

    horizon: Horizon
    key: str
    d_model: int | None = None
    own_clock: bool = False
    """Inside a chain a part counts steps from its own beginning, and every unit is translated into them."""

    def steps(self, duration: Duration, option: str) -> float:
        """Translate an option's duration into steps. Raises ConfigError naming the option."""
        return self.horizon.in_steps(duration, f"{self.key}.{option}")

    def whole(self, duration: Duration, option: str) -> int:
        """Translate into a whole number of steps, at least 1."""
        return rounded(self.steps(duration, option))

    def run(self, option: str) -> float:
        """Give the steps of the run. Raises ConfigError saying that `option` is needed where they are not known."""
        if self.horizon.steps is None:
            raise ConfigError(
                f"{self.key}.{option} must be given, because the length of this run is unknown "
                "(only time bounds it, or its data have no known length)."
            )
        return self.horizon.steps

    def position(self, unit: str, option: str) -> Schedule:
        """Give the function that measures how far the run is, in `unit`, from its start."""
        if unit == "percent":
            share = 100 / self.run(option)
            return lambda progress: progress.step * share
        if self.own_clock and unit != "steps":
            per_unit = 1 / self.steps(Duration(1, unit), option)
            return lambda progress: progress.step * per_unit
        return _COUNTERS[unit]

    def part(self, number: int, steps: float | None) -> "Binding":
        """Bind part `number` of a chain, for which the run is as long as the part."""
        horizon = replace(self.horizon, steps=steps)
        return replace(self, horizon=horizon, key=f"{self.key}.parts.{number}", own_clock=True)


_COUNTERS: dict[str, Schedule] = {
    "steps": lambda progress: progress.step,
    "batches": lambda progress: progress.batch,
    "epochs": lambda progress: progress.epochs,
    "samples": lambda progress: progress.samples,
    "tokens": lambda progress: progress.tokens,
}


def rounded(value: float) -> int:
    """Round to the nearest whole number (a half goes up), at least 1."""
    return max(1, math.floor(value + 0.5))


def also_called(**spellings: str) -> Callable[[dict[str, Any]], None]:
    """Let a JSON Schema know the other spelling of some options, so that editors complete it too."""

    def extend(schema: dict[str, Any]) -> None:
        properties, required = schema["properties"], schema.get("required", [])
        for key, other in spellings.items():
            properties[other] = properties[key] | {"title": other.capitalize()}
            if key in required:
                required.remove(key)
                schema["anyOf"] = [{"required": [key]}, {"required": [other]}]

    return extend


class ScheduleSection(Section):
    """The config of one schedule."""

    schedule: str
    """Which schedule this is."""

    def bind(self, binding: Binding) -> Schedule:
        """Give the schedule's function for a run. Raises ConfigError for what this run cannot tell."""
        raise NotImplementedError

    def extremes(self) -> Iterator[Extreme]:
        """Give the values between which all others lie, as far as the config tells."""
        raise NotImplementedError

    def course(self, binding: Binding) -> float | None:
        """Steps after which the value no longer changes; None where that is not a property of the schedule."""
        del binding
        return None


def _linearly(steps: int, peak: float, after: Callable[[int, Progress], float]) -> Schedule:
    """Warm up by the same amount every step, then go on as `after` says."""

    def value(progress: Progress) -> float:
        done = progress.step + 1
        return peak * (done / steps) if done < steps else after(done - steps, progress)

    return value


def _exponentially(steps: int, peak: float, after: Callable[[int, Progress], float]) -> Schedule:
    """Warm up by the same factor every step, then go on as `after` says."""
    factor = steps ** (1 / (steps - 1))

    def value(progress: Progress) -> float:
        j = progress.step + 1 - steps
        return peak * factor**j if j < 0 else after(j, progress)

    return value


class Warmed(ScheduleSection):
    """A schedule that begins with a warm-up: over W steps the value rises to `peak`, which step W - 1 has.

    After it, j = k + 1 - W counts from 0 at the peak. Without a warm-up, W = 1.
    """

    warmup: Moment = NOTHING
    """How long to warm up: step k of W uses peak * (k + 1) / W."""
    warmup_shape: Literal["linear", "exponential"] = "linear"
    """linear, or exponential: from the same first value to the same peak, with a constant factor per step."""

    def bind(self, binding: Binding) -> Schedule:
        """Join warm-up and what follows it."""
        try:
            steps = binding.whole(self.warmup, "warmup")
        except ConfigError as error:
            raise ConfigError([*error.problems, *self._problems_after(binding)]) from None
        peak = self.summit(steps, binding)
        join = _linearly if self.warmup_shape == "linear" or steps == 1 else _exponentially
        return join(steps, peak, self.after(steps, peak, binding))

    def summit(self, steps: int, binding: Binding) -> float:
        """Give the peak, after a warm-up of so many steps."""
        raise NotImplementedError

    def after(self, steps: int, peak: float, binding: Binding) -> Callable[[int, Progress], float]:
        """Give the value as a function of j and of progress, after a warm-up of so many steps."""
        raise NotImplementedError

    def _problems_after(self, binding: Binding) -> tuple[str, ...]:
        """Say what is wrong beside the warm-up, so that all is said at once."""
        try:
            self.after(1, self.summit(1, binding), binding)
        except ConfigError as error:
            return error.problems
        return ()

    def warming(self, peak: float) -> Iterator[Extreme]:
        """Give the lowest value of the warm-up towards a peak, as far as the config tells."""
        if self.warmup.amount:
            steps = int(self.warmup.amount) if self.warmup.unit == "steps" else 0
            yield Extreme(peak / steps if steps else 0.0, "at the start of its warm-up", attained=bool(steps))


class Peaked(Warmed):
    """A warmed schedule whose peak is given."""

    peak: Finite
    """The value at the end of the warm-up, or at the start without one."""

    def summit(self, steps: int, binding: Binding) -> float:
        """Give the peak of the config."""
        del steps, binding
        return self.peak

    def extremes(self) -> Iterator[Extreme]:
        """Give the peak and the start of the warm-up."""
        yield Extreme(self.peak, "at its peak")
        yield from self.warming(self.peak)
