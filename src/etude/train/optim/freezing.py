"""Parameters that are not trained: for good, or as long as a schedule says."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from pydantic import BeforeValidator, Discriminator, Tag
from torch import nn

from etude.base.errors import ConfigError
from etude.base.patterns import matches
from etude.base.schedules import ScheduleSection, scheduled
from etude.base.schedules.values import ScheduledValue

HALF = 0.5
NUMBERS = ("values", "points", "peak", "from", "to", "end")
"""Options of schedules that hold what they give; elsewhere `false` switches an option off."""


def _as_numbers(value: object) -> Any:
    """Read true and false, on their own and as what a schedule gives, as 1 and 0."""
    match value:
        case bool():
            return float(value)
        case Mapping():
            return dict(value) | {key: _as_numbers(value[key]) for key in NUMBERS if key in value}
        case list() | tuple():
            return list(map(_as_numbers, value))
    return value


def _kind(value: object) -> str:
    return "table" if isinstance(value, Mapping | ScheduleSection) else "flag"


if TYPE_CHECKING:
    Frozen: TypeAlias = Any
else:
    Frozen = Annotated[
        Annotated[bool, Tag("flag")] | Annotated[scheduled(ge=0, le=1), BeforeValidator(_as_numbers), Tag("table")],
        Discriminator(_kind),
    ]
"""Whether parameters are frozen: true, false, or a schedule of them (above a half means frozen)."""


def found(module: nn.Module, pattern: str, key: str, elsewhere: Collection[str] = ()) -> list[nn.Parameter]:
    """The parameters that `pattern` means.

    Raises ConfigError where it means none, nor one of `elsewhere`: names that the module has in other epochs.
    """
    parameters = [p for name, p in module.named_parameters() if matches(name, pattern)]
    if not parameters and not any(matches(name, pattern) for name in elsewhere):
        raise ConfigError(f"{key} has the pattern {pattern!r}, which matches no parameter.")
    return parameters


def freeze(module: nn.Module, patterns: Iterable[str], key: str, elsewhere: Collection[str] = ()) -> None:
    """Stop the training of the parameters that `patterns` mean.

    Raises ConfigError for a pattern that means none, here or `elsewhere`.
    """
    for pattern in patterns:
        for parameter in found(module, pattern, key, elsewhere):
            parameter.requires_grad_(False)


class Thaw:
    """Freezes and thaws the parameters of several patterns: one is trained while none of its patterns is in force."""

    def __init__(self) -> None:
        self._patterns: dict[str, list[nn.Parameter]] = {}
        self._frozen: dict[str, bool] = {}

    def add(self, pattern: str, parameters: list[nn.Parameter]) -> Callable[[float], None]:
        """Take a pattern up; what is returned brings a value of its schedule into force."""
        # What is frozen for good stays so.
        self._patterns[pattern] = [p for p in parameters if p.requires_grad]
        self._frozen[pattern] = False
        return partial(self._set, pattern)

    def _set(self, pattern: str, value: float) -> None:
        self._frozen[pattern] = value > HALF
        held = self._held()
        for parameter in set().union(*self._patterns.values()):
            parameter.requires_grad_(parameter not in held)
            if parameter in held:
                parameter.grad = None

    def _held(self) -> set[nn.Parameter]:
        """The parameters that a pattern freezes now."""
        held: set[nn.Parameter] = set()
        for name in filter(self._frozen.__getitem__, self._patterns):
            held.update(self._patterns[name])
        return held


def constant_patterns(frozen: Sequence[str] | Mapping[str, object]) -> list[str]:
    """The patterns that are frozen for good."""
    if not isinstance(frozen, Mapping):
        return list(frozen)
    return [pattern for pattern, value in frozen.items() if value is True]


def thawing(
    module: nn.Module, scheduled_patterns: Mapping[str, Frozen], key: str, elsewhere: Collection[str] = ()
) -> list[ScheduledValue]:
    """What freezes and thaws by schedule, logged as `freeze/PATTERN` (1 while frozen).

    Raises ConfigError for a pattern that means no parameter, here or `elsewhere`.
    """
    thaw = Thaw()
    return [
        ScheduledValue(
            f"{key}.{pattern}", spec, thaw.add(pattern, found(module, pattern, key, elsewhere)), f"freeze/{pattern}"
        )
        for pattern, spec in scheduled_patterns.items()
        if isinstance(spec, ScheduleSection)
    ]
