"""Everything that a schedule drives beside the optimizers' rates: bound, brought into force, logged and remembered."""

import math
from collections.abc import Callable, Sequence
from typing import TypedDict

from etude.base.horizon import Horizon
from etude.base.progress import Progress
from etude.base.schedules import Driven, bind, bind_whole
from etude.base.schedules.values import ScheduledValue, When


class Kept(TypedDict):
    """What a checkpoint keeps of a value."""

    now: float | None


class Value:
    """A scheduled value of a run, bound to its length; it is logged under its name."""

    def __init__(self, value: ScheduledValue, horizon: Horizon, d_model: int | None = None) -> None:
        make: Callable[..., Callable[[Progress], float]] = bind_whole if value.whole else bind
        self.name = value.name
        self.when: When = value.when
        self.schedule = make(value.spec, horizon, key=value.key, d_model=d_model)
        self.now = math.nan
        """The value in force."""
        self._apply = value.apply

    def set(self, progress: Progress) -> None:
        """Bring the value to where it belongs at `progress`."""
        value = self.schedule(progress)
        if value != self.now:
            self.now = value
            self._apply(value)

    def take_over(self, former: "Value") -> None:
        """Go on where `former`, of the same name, stands."""
        match self.schedule, former.schedule:
            case Driven() as own, Driven() as old if type(own) is type(old):
                own.load_state_dict(old.state_dict())
        if self.when == "epoch":
            self.load_state_dict(former.state_dict())

    def state_dict(self) -> Kept:
        """The value in force: an epoch that is continued goes on with the one it began with."""
        return {"now": None if math.isnan(self.now) else self.now}

    def load_state_dict(self, state: Kept) -> None:
        """Go on from `state_dict()`."""
        if state["now"] is not None:
            self.now = state["now"]
            self._apply(self.now)


class Values:
    """All scheduled values of a run, in the order in which they are set and logged.

    Those of a step are set before each; those of an epoch, by which its batches are planned, where it begins, and they
    are held to its end. What follows validations is told of them, and remembered as what an epoch holds is.

    >>> given = []
    >>> values = Values([ScheduledValue("model.dropout", 0.1, given.append)], Horizon())
    >>> values.set(Progress())
    >>> given, values.row()
    ([0.1], {'dropout': 0.1})
    """

    def __init__(self, values: Sequence[ScheduledValue], horizon: Horizon, d_model: int | None = None) -> None:
        self.all: list[Value] = []
        self.of_steps: list[Value] = []
        self.of_epochs: list[Value] = []
        self.driven: dict[str, Driven] = {}
        """The schedules that follow validations, by name."""
        for value in values:
            self._take(Value(value, horizon, d_model))

    def _take(self, value: Value) -> None:
        self.all.append(value)
        (self.of_steps if value.when == "step" else self.of_epochs).append(value)
        if isinstance(value.schedule, Driven):
            self.driven[value.name] = value.schedule

    def begin_epoch(self, progress: Progress) -> None:
        """Set what the batches of an epoch that begins at `progress` are planned by."""
        for value in self.of_epochs:
            value.set(progress)

    def set(self, progress: Progress) -> None:
        """Set what a step is taken with, before the one that comes next at `progress`."""
        for value in self.of_steps:
            value.set(progress)

    def look(self, begun: Progress, progress: Progress) -> None:
        """Set what step comes at `progress`, in an epoch that began at `begun`, whose batches are not planned anew."""
        for value in self.of_epochs:
            value.now = value.schedule(begun)
        self.set(progress)

    def row(self) -> dict[str, float]:
        """The values in force, by the names under which they are logged."""
        return {value.name: value.now for value in self.all}

    def take_over(self, former: "Values") -> None:
        """Go on with what validations, and the batches of an epoch, have made of values that both have."""
        told = {value.name: value for value in former.all}
        for value in self.all:
            if value.name in told:
                value.take_over(told[value.name])

    def parts(self) -> dict[str, Value]:
        """What of them is remembered: the values that an epoch holds."""
        return {f"data value {value.name}": value for value in self.of_epochs}
