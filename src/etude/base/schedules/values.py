"""A value of a run that follows a schedule: where it stands in the config, and how it is brought into force."""

from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias

from etude.base.schedules.spec import ScheduleSection

When: TypeAlias = Literal["step", "epoch"]
"""When a value is taken up: before every step, or where an epoch begins, for its batches are planned by it."""


class ScheduledValue(NamedTuple):
    """One of them, not yet bound to the length of a run.

    >>> ScheduledValue("model.dropout", 0.1, print).name
    'dropout'
    """

    key: str
    """Where it stands in the config, such as "model.dropout"."""
    spec: float | ScheduleSection
    """The schedule, to be bound to the run's horizon."""
    apply: Callable[[float], object]
    """Brings a value into force."""
    called: str = ""
    """The name it is logged under; the last part of the key where not given."""
    when: When = "step"
    whole: bool = False
    """Whether it is a whole number, at least 1."""

    @property
    def name(self) -> str:
        """The name it is logged under."""
        return self.called or self.key.rpartition(".")[2]
