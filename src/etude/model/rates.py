"""Numbers of the model and the loss that may follow a schedule."""

from typing import TYPE_CHECKING, TypeAlias

from etude.base.schedules import ScheduleSection, scheduled

if TYPE_CHECKING:
    Rate: TypeAlias = float | ScheduleSection
    Weight: TypeAlias = float | ScheduleSection
else:
    Rate = scheduled(ge=0.0, lt=1.0)
    """A share in [0, 1): a constant or a schedule."""
    Weight = scheduled(ge=0.0)
    """The weight of a term of the loss, 0 or more: a constant or a schedule."""


def loss_weight(name: str) -> str:
    """The name under which the weight of a loss term is logged: `train/NAME` is the term itself."""
    return f"loss_weight/{name}"


def initial(rate: float | ScheduleSection) -> float:
    """The constant, or 0 for a schedule, whose value is set before the first step."""
    return float(rate) if isinstance(rate, int | float) else 0.0


def is_constant(rate: float | ScheduleSection | None) -> bool:
    """Whether a config gives a number, or nothing, rather than a schedule."""
    return rate is None or isinstance(rate, int | float)
