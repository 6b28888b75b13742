"""Numbers of the model and the loss that may follow a schedule."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from etude.base.schedules import scheduled

if TYPE_CHECKING:
    Rate: TypeAlias = Any
    Weight: TypeAlias = Any
else:
    Rate = scheduled(ge=0.0, lt=1.0)
    """A share in [0, 1): a constant or a schedule."""
    Weight = scheduled(ge=0.0)
    """The weight of a term of the loss, 0 or more: a constant or a schedule."""


class ScheduledValue(NamedTuple):
    """A value that its config gives as a schedule; whoever steps sets it before every step."""

    key: str
    """Where it stands in the config, such as "model.dropout"."""
    spec: Any
    """The schedule, to be bound to the run's horizon."""
    apply: Callable[[float], object]
    """Brings a value into force."""
    called: str = ""
    """The name it is logged under; the last part of the key where not given."""

    @property
    def name(self) -> str:
        """The name it is logged under."""
        return self.called or self.key.rpartition(".")[2]


def loss_weight(name: str) -> str:
    """The name under which the weight of a loss term is logged: `train/NAME` is the term itself."""
    return f"loss_weight/{name}"


def initial(rate: Any) -> float:
    """The constant, or 0 for a schedule, whose value is set before the first step."""
    return float(rate) if isinstance(rate, int | float) else 0.0


def is_constant(rate: Any) -> bool:
    """Whether a config gives a number, or nothing, rather than a schedule."""
    return rate is None or isinstance(rate, int | float)
