"""Learning rate and weight decay of an optimizer in the making: numbers to begin with, and schedules to follow."""

from typing import TypeGuard

from etude.base.horizon import Horizon
from etude.base.schedules import Schedule, ScheduleSection, bind
from etude.train.optim.slot import Rate

RATE, DECAY = "lr", "weight_decay"
"""What torch calls them."""
CALLED = {RATE: "learning_rate", DECAY: "weight_decay"}
"""What `[optimizer]` calls them."""
Spec = float | ScheduleSection


def is_schedule(spec: object) -> TypeGuard[ScheduleSection]:
    """Whether it is a schedule, rather than a number."""
    return isinstance(spec, ScheduleSection)


def beginning(key: str, spec: Spec) -> float:
    """What an optimizer is made with; a schedule sets its value before the first step."""
    if isinstance(spec, ScheduleSection):
        return 1e-3 if key == RATE else 0.0
    return float(spec)


class Rates:
    """Binds what is a schedule to the length of a run, for each group of parameters."""

    def __init__(self, horizon: Horizon, d_model: int | None = None) -> None:
        self._horizon = horizon
        self._d_model = d_model
        self.all: list[Rate] = []

    def follow(self, index: int, key: str, spec: Spec) -> bool:
        """Let the group `index` follow `spec`; False for a number, which it has from its beginning."""
        if is_schedule(spec):
            self.all.append((index, key, self._bound(key, spec)))
            return True
        return False

    def follow_everywhere(self, indices: range, key: str, spec: Spec, *, but: set[int]) -> None:
        """Let all groups but some follow one schedule."""
        if is_schedule(spec):
            schedule = self._bound(key, spec)
            self.all += [(index, key, schedule) for index in indices if index not in but]

    def _bound(self, key: str, spec: ScheduleSection) -> Schedule:
        return bind(spec, self._horizon, key=f"optimizer.{CALLED[key]}", d_model=self._d_model)
