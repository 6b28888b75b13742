"""Schedules that warm up to a peak and leave it again, from constant to trapezoid.

In all formulas k is the number of steps already taken, W the steps of the warm-up, N those of the run, and
j = k + 1 - W; so j = 0 at step W - 1, which has the peak.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AliasChoices, ConfigDict, Field, model_validator

from etude.base.config.fields import Switch
from etude.base.durations import Duration
from etude.base.errors import ConfigError
from etude.base.progress import Progress
from etude.base.schedules.spec import Binding, Extreme, Finite, Length, Moment, Peaked, Warmed, also_called

After = Callable[[int, Progress], float]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(gt=0, lt=1)]


class Constant(Peaked):
    """The same value throughout: peak."""

    schedule: Literal["constant"] = "constant"

    def after(self, steps: int, peak: float, binding: Binding) -> After:
        """Stay at the peak."""
        del steps, binding
        return lambda _j, _progress: peak

    def course(self, binding: Binding) -> float | None:
        """Steps of the warm-up; a constant without one has no course."""
        return binding.whole(self.warmup, "warmup") - 1 or None


class _Ending(Peaked):
    """From the peak to `end` over C steps: to the end of the run, or as long as the option `length_key` says."""

    length_key: ClassVar[str]

    end: Finite = 0.0
    """The value after that, held from then on."""

    def span(self, steps: int, binding: Binding) -> float:
        """Give C: as configured, else N - W + 1, so that `end` lies one step after the last of the run."""
        length: Duration | None = getattr(self, self.length_key)
        if length is not None:
            return binding.steps(length, self.length_key)
        return max(1.0, binding.run(self.length_key) - steps + 1)

    def extremes(self) -> Iterator[Extreme]:
        """Give peak and end; the end is only approached where the run ends a step before."""
        yield from super().extremes()
        yield Extreme(self.end, "at its end", attained=getattr(self, self.length_key) is not None)

    def course(self, binding: Binding) -> float | None:
        """Steps up to `end`, where the config gives them."""
        if getattr(self, self.length_key) is None:
            return None
        steps = binding.whole(self.warmup, "warmup")
        return steps - 1 + self.span(steps, binding)


class Linear(_Ending):
    """A straight line: peak + (end - peak) * min(1, j / C).

    C is `over`; unset, N - W + 1, so that no step is spent at `end`.
    """

    model_config = ConfigDict(json_schema_extra=also_called(peak="from", end="to"))
    length_key: ClassVar[str] = "over"

    schedule: Literal["linear"] = "linear"
    peak: Finite = Field(validation_alias=AliasChoices("peak", "from"))
    """The value at the end of the warm-up, or at the start without one; also called `from`."""
    end: Finite = Field(default=0.0, validation_alias=AliasChoices("end", "to"))
    """The value that the line ends at, held from then on; also called `to`."""
    over: Switch[Length] = None
    """How long the line is, from the end of the warm-up; unset, to the end of the run."""

    @model_validator(mode="before")
    @classmethod
    def _one_spelling(cls, data: object) -> object:
        for one, other in (("peak", "from"), ("end", "to")):
            if isinstance(data, Mapping) and one in data and other in data:
                raise ValueError(f"must give either {one} or {other}, which mean the same, but is given both")
        return data

    def after(self, steps: int, peak: float, binding: Binding) -> After:
        """Draw the line."""
        span, end = self.span(steps, binding), self.end
        rise = (end - peak) / span
        return lambda j, _progress: peak + rise * j if j < span else end


class Cosine(_Ending):
    """Half a wave: end + (peak - end) * (1 + cos(pi t)) / 2 with t = min(1, j / C) (Loshchilov and Hutter 2017).

    A quarter wave, peak * cos(pi / 2 * t), is exactly 0 at t = 1. C is `cooldown`; unset, N - W + 1.
    """

    length_key: ClassVar[str] = "cooldown"

    schedule: Literal["cosine"] = "cosine"
    wave: Literal["half", "quarter"] = "half"
    """half: flat at both ends. quarter: flat at the peak only, and always to 0."""
    cooldown: Switch[Length] = None
    """How long the way down is, counted after the warm-up; unset, to the end of the run."""

    @model_validator(mode="after")
    def _a_quarter_ends_at_zero(self) -> Self:
        if self.wave == "quarter" and self.end != 0:
            raise ValueError(f'must end at 0 with wave = "quarter", but is to end at {self.end:.15g}')
        return self

    def after(self, steps: int, peak: float, binding: Binding) -> After:
        """Draw the wave."""
        span, end, cos = self.span(steps, binding), self.end, math.cos
        if self.wave == "quarter":
            turn = math.pi / 2 / span
            return lambda j, _progress: peak * cos(turn * j) if j < span else 0.0
        turn, height = math.pi / span, (peak - end) / 2
        # At j = 0 the sum end + 2 * height may miss the peak by a rounding.
        return lambda j, _progress: (end + height * (1.0 + cos(turn * j)) if j else peak) if j < span else end


class Inverse(Peaked):
    """A power of the steps: peak * ((k + 1) / W) ** -power."""

    schedule: Literal["inverse"] = "inverse"
    warmup: Length
    """How long to warm up: the longer, the slower the way down."""
    power: Annotated[float, Field(ge=0.5, le=1)] = 0.5
    """How fast the value falls: 0.5 is the inverse square root."""

    def after(self, steps: int, peak: float, binding: Binding) -> After:
        """Fall by the power."""
        del binding
        return _power_law(steps, peak, self.power)

    def extremes(self) -> Iterator[Extreme]:
        """Give the peak, the start, and the zero that is never reached."""
        yield from super().extremes()
        yield Extreme(0.0, "in the long run", attained=False)


class Noam(Warmed):
    """The schedule of "Attention is all you need" (Vaswani et al. 2017): peak * ((k + 1) / W) ** -0.5.

    peak = factor * d_model ** -0.5 * W ** -0.5 unless it is given.
    """

    schedule: Literal["noam"] = "noam"
    warmup: Length
    """How long to warm up."""
    peak: Switch[Finite] = None
    """The value at the end of the warm-up; unset, it follows from `factor`, `d_model` and `warmup`."""
    d_model: Switch[Annotated[int, Field(gt=0)]] = None
    """The width of the model; unset, that of the model trained."""
    factor: Positive = 1.0
    """Scales the peak."""

    def summit(self, steps: int, binding: Binding) -> float:
        """Give the peak, or compute it from the width of the model."""
        if self.peak is not None:
            return self.peak
        width = self.d_model or binding.d_model
        if width is None:
            raise ConfigError(f"{binding.key}.d_model must be given, because this model does not tell its width.")
        return self.factor / math.sqrt(width * steps)

    def after(self, steps: int, peak: float, binding: Binding) -> After:
        """Fall by the square root."""
        del binding
        return _power_law(steps, peak, 0.5)

    def extremes(self) -> Iterator[Extreme]:
        """Give the peak where it is known, and the zero that is never reached."""
        if self.peak is not None:
            yield Extreme(self.peak, "at its peak")
        yield Extreme(0.0, "in the long run", attained=False)


def _power_law(steps: int, peak: float, power: float) -> After:
    return lambda j, _progress: peak * ((j + steps) / steps) ** -power


class Exponential(Peaked):
    """A smooth decay by a constant factor: peak * gamma ** (j / every)."""

    schedule: Literal["exponential"] = "exponential"
    gamma: Fraction
    """The value is multiplied by this once in every `every`."""
    every: Length = Duration(1, "steps")
    """How long one factor of gamma takes."""

    def after(self, steps: int, peak: float, binding: Binding) -> After:
        """Fall by gamma."""
        del steps
        every, gamma = binding.steps(self.every, "every"), self.gamma
        return lambda j, _progress: peak * gamma ** (j / every)

    def extremes(self) -> Iterator[Extreme]:
        """Give the peak, the start, and the zero that is never reached."""
        yield from super().extremes()
        yield Extreme(0.0, "in the long run", attained=False)


class Step(Peaked):
    """A drop at regular times: peak * factor ** floor(j / every).

    With `every` in epochs, it counts epochs that lie wholly after the warm-up, by the epochs the run really completes,
    so that a drop falls on an epoch's end.
    """

    schedule: Literal["step"] = "step"
    every: Length
    """How long the value stays."""
    factor: Fraction = 0.5
    """The value is multiplied by this at each drop."""

    def after(self, steps: int, peak: float, binding: Binding) -> After:
        """Count the drops."""
        factor = self.factor
        if self.every.unit == "epochs" and not binding.own_clock:
            first, every = self._first_epoch(steps, binding), self.every.amount
            if every.denominator == 1:
                whole = every.numerator
                return lambda _j, progress: peak * factor ** max(0, (progress.epoch - first) // whole)
            part = float(every)
            # A position such as 0.3 epochs carries a rounding, which must not delay its drop.
            return lambda _j, progress: peak * factor ** max(0, math.floor((progress.epochs - first) / part + 1e-9))
        length = binding.steps(self.every, "every")
        return lambda j, _progress: peak * factor ** math.floor(j / length)

    def _first_epoch(self, steps: int, binding: Binding) -> int:
        """The first epoch (from 0) of which every step is at the peak or below it."""
        if steps == 1:
            return 0
        if self.warmup.unit == "epochs":
            return math.ceil(self.warmup.amount)
        return math.ceil((steps - 1) / binding.steps(Duration(1, "epochs"), "every"))

    def extremes(self) -> Iterator[Extreme]:
        """Give the peak, the start, and the zero that is never reached."""
        yield from super().extremes()
        yield Extreme(0.0, "in the long run", attained=False)


_SHAPES: dict[str, Callable[[float], float]] = {
    "linear": lambda t: 1.0 - t,
    "sqrt": lambda t: 1.0 - math.sqrt(t),
    "cosine": lambda t: (1.0 + math.cos(math.pi * t)) / 2.0,
}


class Trapezoid(Peaked):
    """Warm-up, constant, and a decay over the last D steps (WSD; Hu et al. 2024, Haegele et al. 2024).

    end + (peak - end) * shape(t) with t = (k + 1 - (N - D)) / (D + 1): step N - D - 1 is the last at the peak, the D
    steps after it lie below, and `end` lies one step after the last.
    """

    schedule: Literal["trapezoid"] = "trapezoid"
    decay: Moment = Duration(10, "percent")
    """How long the decay at the end is (a share is one of `over`, where that is given)."""
    shape: Literal["linear", "sqrt", "cosine"] = "linear"
    """The decay: linear 1 - t, sqrt 1 - sqrt(t), or cosine (1 + cos(pi t)) / 2."""
    end: Finite = 0.0
    """The value that the decay ends at, held from then on."""
    over: Switch[Length] = None
    """When the decay ends, from the start of the run; unset, with the run."""

    def after(self, steps: int, peak: float, binding: Binding) -> After:
        """Stay at the peak, then decay."""
        total = binding.run("over") if self.over is None else binding.steps(self.over, "over")
        share = self.decay.unit == "percent"
        decay = total * float(self.decay.amount) / 100 if share else binding.steps(self.decay, "decay")
        # A decay that is longer than what the warm-up leaves begins where the warm-up ends.
        flat = max(0.0, total - math.floor(decay + 0.5) - steps)
        span, end, drop = max(1.0, total - steps + 1 - flat), self.end, peak - self.end
        shape = _SHAPES[self.shape]

        def value(j: int, _progress: Progress) -> float:
            late = j - flat
            if late <= 0:
                return peak
            return end + drop * shape(late / span) if late < span else end

        return value

    def extremes(self) -> Iterator[Extreme]:
        """Give peak and end; the end is only approached where the run ends a step before."""
        yield from super().extremes()
        yield Extreme(self.end, "at its end", attained=self.over is not None)

    def course(self, binding: Binding) -> float | None:
        """Steps up to `end`, where the config gives them."""
        return None if self.over is None else binding.steps(self.over, "over")


class Wsd(Trapezoid):
    """The trapezoid under its other name: warm-up, stable, decay."""

    schedule: Literal["wsd"] = "wsd"  # type: ignore[assignment]
