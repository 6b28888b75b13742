"""Schedules that follow the results of validations: plateau and newbob. They have state, which a checkpoint keeps."""

import math
from abc import abstractmethod
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal, Protocol, final, runtime_checkable

from pydantic import Field

from etude.base.config.fields import Switch
from etude.base.durations import Duration
from etude.base.errors import ConfigError
from etude.base.modes import Mode, mode_of
from etude.base.progress import Progress
from etude.base.schedules.decays import Fraction
from etude.base.schedules.spec import Binding, Extreme, Finite, Length, Peaked, Schedule

Count = Annotated[int, Field(ge=1)]
LOSS, EPOCH_LOSS = "val/loss", "val/epoch_loss"
Nonnegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


@runtime_checkable
class Driven(Protocol):
    """A bound schedule that reads validations; its state belongs in the checkpoint under the key it is bound to."""

    def __call__(self, progress: Progress) -> float:
        """Give the value for the step to come."""

    def check(self, metrics: Mapping[str, float]) -> None:
        """Raise ConfigError where the monitored metric is not among these, or which one is meant cannot be told."""

    def follow_validation(self, metrics: Mapping[str, float], progress: Progress) -> None:
        """Take a validation's results in. Raises ConfigError as `check` does."""

    def state_dict(self) -> dict[str, Any]:
        """Give all that a restart needs, as JSON."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` gave."""


@runtime_checkable
class Compares(Protocol):
    """A `Driven` schedule that holds validations against earlier ones."""

    def begin_anew(self) -> None:
        """Compare with no validation before: what is measured from now on is something else."""


def begin_anew(schedules: Iterable[Driven]) -> None:
    """Let schedules compare with no validation before, those of them that do."""
    for schedule in schedules:
        if isinstance(schedule, Compares):
            schedule.begin_anew()


class _Level:
    """A scale on a warmed value that falls after some validations: what plateau and newbob share."""

    def __init__(self, key: str, config: "Plateau | Newbob", value: Callable[[float, Progress], float]) -> None:
        self._key = key
        self._monitor = config.monitor
        self._mode = config.mode
        self._value = value
        self._scale = 1.0
        self._followed: str | None = None
        """The metric, once a validation has given it: from then on it may be missing."""

    def __call__(self, progress: Progress) -> float:
        return self._value(self._scale, progress)

    def check(self, metrics: Mapping[str, float]) -> None:
        """Refuse a metric that is not there."""
        self._monitored({**metrics, EPOCH_LOSS: metrics[LOSS]} if LOSS in metrics else metrics)

    def follow_validation(self, metrics: Mapping[str, float], progress: Progress) -> None:
        """Take a validation's results in."""
        if self._comes_later(metrics):
            return
        if self._is_missing(metrics):
            self._miss()
            return
        self._followed = name = self._followed or self._monitored(metrics)
        self._take(metrics[name], self._sign(name), progress)

    def _sign(self, name: str) -> float:
        """Less of sign * metric is better."""
        return -1.0 if (self._mode or mode_of(name)) == "max" else 1.0

    def state_dict(self) -> dict[str, Any]:
        """Give scale and metric."""
        return {"scale": self._scale, "followed": self._followed}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` gave, also in a version before."""
        self._scale, self._followed = state["scale"], state.get("followed", self._monitor)

    def _is_missing(self, metrics: Container[str]) -> bool:
        """Whether a metric that there is was not given: no target counted, or the task did not log it this time."""
        if self._followed is not None:
            return self._followed not in metrics
        return not metrics or (self._monitor in {LOSS, EPOCH_LOSS} and LOSS not in metrics)

    def _comes_later(self, metrics: Container[str]) -> bool:
        """Whether an epoch's loss is waited for, which is known at the ends of epochs alone."""
        return self._monitor == EPOCH_LOSS and EPOCH_LOSS not in metrics and LOSS in metrics

    def _monitored(self, metrics: Mapping[str, float]) -> str:
        if self._monitor is None:
            return self._the_only_one(metrics)
        if self._monitor in metrics:
            return self._monitor
        known = ", ".join(metrics) or "none"
        raise ConfigError(f"{self._key}.monitor must be a logged metric, but is {self._monitor}; there are: {known}.")

    def _the_only_one(self, metrics: Iterable[str]) -> str:
        named = list(filter(_can_be_meant, metrics)) or list(metrics)
        if len(named) != 1:
            raise ConfigError(f"{self._key}.monitor must be given: it could be any of {', '.join(named)}.")
        return named[0]

    def _miss(self) -> None:
        """Take in that a validation did not give the metric: it is not a bad one."""

    @abstractmethod
    def begin_anew(self) -> None:
        """Compare with no validation before; the scale stays."""

    @abstractmethod
    def _take(self, result: float, sign: float, progress: Progress) -> None:
        """Change the scale after a validation; less of sign * result is better."""


class _Monitored(Peaked):
    """A peak that falls by `factor` when validations tell."""

    factor: Fraction = 0.5
    """The value is multiplied by this."""
    minimum: Nonnegative = 0.0
    """The value is not lowered below this; one that is below it already is left alone."""
    mode: Switch[Mode] = None
    """Whether less or more of the metric is better; its name tells for the usual ones, and less is of the others."""

    def after(self, steps: int, peak: float, binding: Binding) -> Callable[[int, Progress], float]:
        """Stay at the peak; the level falls elsewhere."""
        del steps, binding
        return lambda _j, _progress: peak

    def warmed(self, binding: Binding) -> Callable[[float, Progress], float]:
        """Give the value as a function of its scale and of progress."""
        rising = Peaked.bind(self, binding)
        return lambda scale, progress: scale * rising(progress)

    def lowered(self, scale: float) -> float:
        """Give the scale after one fall; never a higher one."""
        floor = self.minimum / self.peak if self.peak else 0.0
        return min(scale, max(scale * self.factor, floor))

    def extremes(self) -> Iterator[Extreme]:
        """Give the peak, the start, and the lowest value."""
        yield from super().extremes()
        yield Extreme(min(self.minimum, self.peak), "at its minimum", attained=self.minimum > 0)


class Plateau(_Monitored):
    """peak, multiplied by `factor` at the `patience`-th validation in a row that brought no improvement.

    (torch's ReduceLROnPlateau waits for one more.) A validation that is not a number is a bad one.
    """

    schedule: Literal["plateau"] = "plateau"
    patience: Count = 3
    """Validations in a row without improvement."""
    min_delta: Nonnegative = 0.0
    """An improvement beats the best by more than this."""
    cooldown: Annotated[int, Field(ge=0)] = 0
    """Validations after a fall that are not counted as bad."""
    monitor: str = "val/loss"
    """The metric."""

    def bind(self, binding: Binding) -> Schedule:
        """Give the schedule with its counters at the start."""
        return PlateauSchedule(self, binding)


class Newbob(_Monitored):
    """peak, multiplied by `factor` after a validation that gained too little on the previous one.

    That is where (previous - current) / abs(current) < threshold. One that is not a number counts as missing, and the
    one after a missing one is compared with none.
    """

    schedule: Literal["newbob"] = "newbob"
    threshold: Finite = 0.01
    """The least gain at which the value stays."""
    relative: bool = True
    """Measure the gain relative to abs(current)."""
    min_epochs: Switch[Length] = None
    """No fall before this."""
    compare: Literal["previous", "best"] = "previous"
    """Measure the gain against the previous validation, or against the best so far."""
    monitor: Switch[str] = None
    """The metric; needed where several could be meant."""

    def bind(self, binding: Binding) -> Schedule:
        """Give the schedule with its memory empty."""
        return NewbobSchedule(self, binding)


@final
class PlateauSchedule(_Level):
    """A bound `plateau`."""

    def __init__(self, config: Plateau, binding: Binding) -> None:
        super().__init__(binding.key, config, config.warmed(binding))
        self._config = config
        self._best: float | None = None
        self._bad = 0
        self._cooling = 0

    def _take(self, result: float, sign: float, progress: Progress) -> None:
        del progress
        if self._improves(result, sign):
            self._best, self._bad = result, 0
        else:
            self._bad += 1
        if self._cooling:
            self._cooling, self._bad = self._cooling - 1, 0
        if self._bad >= self._config.patience:
            self._scale = self._config.lowered(self._scale)
            self._bad, self._cooling = 0, self._config.cooldown

    def begin_anew(self) -> None:
        """Look for the best anew."""
        self._best, self._bad = None, 0

    def _improves(self, result: float, sign: float) -> bool:
        if self._best is None:
            return not math.isnan(result)
        return sign * result < sign * self._best - self._config.min_delta

    def state_dict(self) -> dict[str, Any]:
        """Give scale, best result and counters."""
        return super().state_dict() | {"best": self._best, "bad": self._bad, "cooling": self._cooling}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        super().load_state_dict(state)
        self._best, self._bad, self._cooling = state["best"], state["bad"], state["cooling"]


@final
class NewbobSchedule(_Level):
    """A bound `newbob`."""

    def __init__(self, config: Newbob, binding: Binding) -> None:
        super().__init__(binding.key, config, config.warmed(binding))
        self._config = config
        self._earliest = _earliest_fall(config, binding)
        self._reference: float | None = None

    def _take(self, result: float, sign: float, progress: Progress) -> None:
        if math.isnan(result):
            self._miss()
            return
        reference = self._reference
        if reference is None or self._config.compare == "previous" or sign * result < sign * reference:
            self._reference = result
        if reference is not None and self._may_fall(progress):
            self._judge(sign * (reference - result), result)

    def begin_anew(self) -> None:
        """Forget the previous validation, and the best."""
        self._reference = None

    def _miss(self) -> None:
        """Forget the previous validation: the next one has none to be compared with. The best stays the best."""
        if self._config.compare == "previous":
            self._reference = None

    def _may_fall(self, progress: Progress) -> bool:
        return self._earliest is None or self._earliest.reached(progress)

    def _judge(self, gain: float, result: float) -> None:
        """Lower the scale where a result gained too little."""
        if (_relative(gain, result) if self._config.relative else gain) < self._config.threshold:
            self._scale = self._config.lowered(self._scale)

    def state_dict(self) -> dict[str, Any]:
        """Give the scale and the result to compare with."""
        return super().state_dict() | {"reference": self._reference}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        super().load_state_dict(state)
        self._reference = state["reference"]


def _can_be_meant(name: str) -> bool:
    """Whether a metric is of validation, and not the loss of an epoch, which at its end is said a second time."""
    return name.startswith("val/") and name != EPOCH_LOSS


def _relative(gain: float, result: float) -> float:
    """A gain relative to the result that it led to; from nothing to 0 it is endless."""
    if result:
        return gain / abs(result)
    return math.copysign(math.inf, gain) if gain else 0.0


def _earliest_fall(config: Newbob, binding: Binding) -> Duration | None:
    duration = config.min_epochs
    if duration is None:
        return None
    if duration.unit == "percent":
        return duration.of(Duration(binding.run("min_epochs"), "steps"))
    return Duration(binding.whole(duration, "min_epochs"), "steps") if binding.own_clock else duration
