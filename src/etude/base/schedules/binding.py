"""Fields that may hold a schedule, and what makes a function of a run out of one."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Any

from pydantic import AfterValidator, Discriminator, Field, Tag

from etude.base.config.section import Section
from etude.base.errors import ConfigError
from etude.base.horizon import Horizon
from etude.base.progress import Progress
from etude.base.schedules.combined import Function, ScheduleSpec
from etude.base.schedules.spec import Binding, Schedule, ScheduleSection, check_range, rounded


def bind(spec: float | ScheduleSection, horizon: Horizon, *, key: str, d_model: int | None = None) -> Schedule:
    """Make a function of progress: the value for the step that comes next.

    `key` is the dotted key that errors name; `d_model` the model's width, for noam. Raises ConfigError for what this
    run cannot tell, such as its own length. The result is a `Driven` where the schedule follows validations.
    """
    if isinstance(spec, ScheduleSection):
        return spec.bind(Binding(horizon, key, d_model))
    constant = float(spec)
    return lambda _progress: constant


def bind_whole(
    spec: float | ScheduleSection, horizon: Horizon, *, key: str, d_model: int | None = None
) -> Callable[[Progress], int]:
    """Make the same for a whole number: rounded (a half goes up), at least 1. Raises ConfigError as `bind` does."""
    if not isinstance(spec, ScheduleSection):
        constant = rounded(spec)
        return lambda _progress: constant
    schedule = bind(spec, horizon, key=key, d_model=d_model)
    if hasattr(schedule, "follow_validation"):
        raise ConfigError(f"{key} must be a schedule that does not follow validations, but is {spec.schedule}.")
    return lambda progress: rounded(schedule(progress))


def smallest(size: float | ScheduleSection) -> int | None:
    """Give a whole constant, or the least that a schedule comes to; None where only a user's function knows."""
    if not isinstance(size, ScheduleSection):
        return rounded(size)
    return min((rounded(extreme.value) for extreme in size.extremes()), default=None)


def largest(size: float | ScheduleSection) -> int | None:
    """Give a whole constant, or the most that a schedule comes to; None where only a user's function knows."""
    if not isinstance(size, ScheduleSection):
        return rounded(size)
    return max((rounded(extreme.value) for extreme in size.extremes()), default=None)


def scheduled(
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
    *,
    whole: bool = False,
) -> Any:
    """Declare a field that holds a number in a range or a schedule whose values stay in it.

    Use it as the type of a field: `dropout: scheduled(ge=0, lt=1) = 0.1`. In JSON Schema the field has
    `"schedulable": true`. `whole` numbers take no fraction; their schedules are rounded by `bind_whole`.
    """
    given = {"ge": ge, "gt": gt, "le": le, "lt": lt}
    bounds = {name: bound for name, bound in given.items() if bound is not None}
    constant: Any = int if whole else Annotated[float, Field(allow_inf_nan=False)]
    number = Annotated[constant, Field(ge=ge, gt=gt, le=le, lt=lt)]
    table = Annotated[ScheduleSpec, AfterValidator(partial(_in_range, bounds=bounds, whole=whole))]
    return Annotated[
        Annotated[number, Tag("number")] | Annotated[table, Tag("table")],
        Discriminator(_number_or_table),
        Field(json_schema_extra={"schedulable": True}),
    ]


def _number_or_table(value: object) -> str:
    return "table" if isinstance(value, Mapping | Section) else "number"


def _in_range(spec: ScheduleSection, bounds: Mapping[str, float], *, whole: bool) -> ScheduleSection:
    """Refuse a schedule that leaves the range; one that only its values can tell of checks them itself."""
    for extreme in spec.extremes():
        if extreme.attained or not whole:
            check_range(extreme, bounds)
    return spec.within(bounds) if isinstance(spec, Function) and not whole else spec
