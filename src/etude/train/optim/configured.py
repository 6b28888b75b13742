"""What `configure_optimizers` returned, in any of its forms, as the optimizers of a run."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeGuard

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from etude.base.durations import Duration
from etude.base.errors import ConfigError
from etude.base.horizon import Horizon
from etude.base.schedules import ScheduleSection, bind
from etude.train.optim.build import ONLY
from etude.train.optim.grouping import names_of
from etude.train.optim.slot import Rate, Slot

ReadSchedule = Callable[[object], float | ScheduleSection]
"""Turns a schedule as written into a spec."""
_FORMS = (
    "an optimizer, several in a tuple or list, (optimizer, schedule), ([optimizers], [schedules]), or a mapping of "
    "names to an optimizer or (optimizer, schedule)"
)


@dataclass(frozen=True)
class Scheduled:
    """An optimizer with its schedule, and, for a torch scheduler, how often it is stepped.

    `schedule` is a number, one of Etude's (followed every step), or any `torch.optim.lr_scheduler`, stepped once an
    epoch unless `every` says otherwise; a ReduceLROnPlateau is stepped after each validation, or, with `every`, after
    the first one since it was due. Steps are those that the optimizer itself has taken.
    """

    optimizer: torch.optim.Optimizer
    schedule: Any = None
    every: str | Duration | None = None


def configured_slots(
    returned: object, module: nn.Module, horizon: Horizon, say: Callable[[str], None], read_schedule: ReadSchedule
) -> list[Slot]:
    """The slots of what a task returned; `read_schedule` turns a schedule as written into a spec."""
    entries = _entries(returned)
    names = names_of(module)
    if not entries:
        raise ConfigError(f"configure_optimizers must return {_FORMS}, but returned none.")
    everybody = [p for entry in entries.values() for p in _parameters_of(entry.optimizer)]
    slots = [_slot(name, entry, names, everybody, horizon, say, read_schedule) for name, entry in entries.items()]
    _tell_of_shared(slots, names, say)
    return slots


def _parameters_of(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def _tell_of_shared(slots: Sequence[Slot], names: Mapping[nn.Parameter, str], say: Callable[[str], None]) -> None:
    """Say which parameters are of several optimizers."""
    owners: dict[nn.Parameter, str] = {}
    for slot in slots:
        for parameter in slot.parameters:
            owner = owners.setdefault(parameter, slot.name)
            if owner != slot.name:
                say(f"The optimizers {owner!r} and {slot.name!r} share {names.get(parameter, 'a parameter')}.")


def _slot(
    name: str,
    entry: Scheduled,
    names: Mapping[nn.Parameter, str],
    everybody: list[nn.Parameter],
    horizon: Horizon,
    say: Callable[[str], None],
    read_schedule: ReadSchedule,
) -> Slot:
    every = _every(name, entry, horizon)
    slot = Slot(
        name,
        entry.optimizer,
        rates=_rates(name, entry, horizon, read_schedule),
        names=names,
        others=everybody,
        scheduler=_torch_scheduler(name, entry),
        scheduler_every=every,
        notice=say,
    )
    _tell_of_strangers(slot, names, say)
    return slot


def _torch_scheduler(name: str, entry: Scheduled) -> LRScheduler | None:
    """The schedule that is torch's, which must be that of its own optimizer."""
    scheduler = entry.schedule
    if not _is_torch_schedule(scheduler):
        return None
    if scheduler.optimizer is not entry.optimizer:
        raise ConfigError(
            f"The {type(scheduler).__name__} of the optimizer {name!r} was made for another optimizer; give each "
            f"its own."
        )
    return scheduler


def _rates(name: str, entry: Scheduled, horizon: Horizon, read_schedule: ReadSchedule) -> list[Rate]:
    """What follows a schedule that is not torch's."""
    if entry.schedule is None or _is_torch_schedule(entry.schedule):
        return []
    schedule = bind(read_schedule(entry.schedule), horizon, key=f"the schedule of the optimizer {name!r}")
    return [(index, "lr", schedule) for index in range(len(entry.optimizer.param_groups))]


def _tell_of_strangers(slot: Slot, names: Mapping[nn.Parameter, str], say: Callable[[str], None]) -> None:
    """Say how many parameters of an optimizer are not the task's."""
    strangers = sum(parameter not in names for parameter in slot.parameters)
    if strangers:
        say(
            f"Of the {len(slot.parameters)} parameters of the optimizer {slot.name!r} {strangers} are not the task's, "
            f"so no checkpoint holds them."
        )


def _every(name: str, entry: Scheduled, horizon: Horizon) -> Duration | None:
    """How often a torch scheduler is stepped; None for the usual."""
    if entry.every is None:
        return None
    told = f"The schedule of the optimizer {name!r} has every={str(entry.every)!r}, which"
    every = _parsed(entry.every, told)
    if not _is_torch_schedule(entry.schedule) and every != Duration(1, "step"):
        raise ConfigError(f"{told} is only for torch's schedulers: Etude's schedules change every step.")
    return _in_steps(every, horizon, told) if every.unit == "percent" else every


def _parsed(every: str | Duration, told: str) -> Duration:
    try:
        return Duration.parse(every)
    except ValueError as error:
        raise ConfigError(f"{told} {error}.") from None


def _in_steps(share: Duration, horizon: Horizon, told: str) -> Duration:
    """A share of the run as steps."""
    if horizon.steps is None:
        raise ConfigError(f"{told} is a share of a run whose length is unknown; give it in steps or epochs.")
    return Duration(share.amount * Fraction(horizon.steps) / 100, "steps")


def _is_torch_schedule(schedule: object) -> TypeGuard[LRScheduler]:
    return isinstance(schedule, LRScheduler)


def _entries(returned: object) -> dict[str, Scheduled]:
    match returned:
        case torch.optim.Optimizer() | Scheduled():
            return {ONLY: _entry(returned)}
        case Mapping():
            return _entries_of(returned.items())
        case [[*optimizers], schedules] if not _has_optimizer(schedules):
            return _with_schedules(optimizers, schedules)
        case [torch.optim.Optimizer(), schedule] if _is_schedule(schedule):
            return {ONLY: _entry(returned)}
        case [_, *_]:
            return _entries_of(enumerate(returned))
    raise ConfigError(f"configure_optimizers must return {_FORMS}, but returned {type(returned).__name__}.")


def _entries_of(parts: Iterable[tuple[object, object]]) -> dict[str, Scheduled]:
    """The entries of what is returned by name or in order."""
    return {str(name): _entry(value) for name, value in parts}


def _is_schedule(value: object) -> bool:
    """Whether what stands beside an optimizer is its schedule, rather than a second optimizer."""
    match value:
        case LRScheduler() | int() | float() | Mapping():
            return True
        case type() | torch.optim.Optimizer():
            return False
    return callable(value)


def _has_optimizer(value: object) -> bool:
    match value:
        case list() | tuple():
            return any(map(_is_optimizer, value))
    return False


def _is_optimizer(value: object) -> bool:
    return isinstance(value, torch.optim.Optimizer)


def _with_schedules(optimizers: Iterable[object], schedules: object) -> dict[str, Scheduled]:
    """Optimizers in order, each with its schedule: a torch one belongs to the optimizer it was made for."""
    if not isinstance(schedules, (list, tuple)):
        raise ConfigError(
            f"configure_optimizers must return {_FORMS}, but returned a {type(schedules).__name__} in the place of the "
            f"schedules."
        )
    entries = _entries_of(enumerate(optimizers))
    for index, schedule in enumerate(schedules):
        name = _owner(schedule, entries) or str(index)
        if name not in entries:
            raise ConfigError("configure_optimizers returned more schedules than optimizers.")
        entries[name] = Scheduled(entries[name].optimizer, schedule, entries[name].every)
    return entries


def _owner(schedule: object, entries: Mapping[str, Scheduled]) -> str | None:
    """The name of the optimizer that a torch scheduler was made for."""
    if not _is_torch_schedule(schedule):
        return None
    return next((name for name, entry in entries.items() if entry.optimizer is schedule.optimizer), None)


def _entry(value: object) -> Scheduled:
    match value:
        case Scheduled():
            return value
        case torch.optim.Optimizer():
            return Scheduled(value)
        case [torch.optim.Optimizer() as optimizer, schedule]:
            return Scheduled(optimizer, schedule)
    raise ConfigError(f"configure_optimizers must return {_FORMS}, but there is a {type(value).__name__} in it.")
