"""What `configure_optimizers` returned, in any of its forms, as the optimizers of a run."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from torch import nn

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
    everybody = [p for entry in entries.values() for group in entry.optimizer.param_groups for p in group["params"]]
    slots = [_slot(name, entry, names, everybody, horizon, say, read_schedule) for name, entry in entries.items()]
    _tell_of_shared(slots, names, say)
    return slots


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
    rates: list[Rate] = []
    scheduler = None
    every = _every(name, entry, horizon)
    if _is_torch_schedule(entry.schedule):
        scheduler = entry.schedule
        if scheduler.optimizer is not entry.optimizer:
            raise ConfigError(
                f"The {type(scheduler).__name__} of the optimizer {name!r} was made for another optimizer; give each "
                f"its own."
            )
    elif entry.schedule is not None:
        rate = read_schedule(entry.schedule)
        schedule = bind(rate, horizon, key=f"the schedule of the optimizer {name!r}")
        rates = [(index, "lr", schedule) for index in range(len(entry.optimizer.param_groups))]
    slot = Slot(
        name,
        entry.optimizer,
        rates=rates,
        names=names,
        others=everybody,
        scheduler=scheduler,
        scheduler_every=every,
        notice=say,
    )
    strangers = sum(parameter not in names for parameter in slot.parameters)
    if strangers:
        say(
            f"Of the {len(slot.parameters)} parameters of the optimizer {name!r} {strangers} are not the task's, so "
            f"that no checkpoint holds them."
        )
    return slot


def _every(name: str, entry: Scheduled, horizon: Horizon) -> Duration | None:
    """How often a torch scheduler is stepped; None for the usual."""
    if entry.every is None:
        return None
    told = f"The schedule of the optimizer {name!r} has every={str(entry.every)!r}, which"
    try:
        every = Duration.parse(entry.every)
    except ValueError as error:
        raise ConfigError(f"{told} {error}.") from None
    if not _is_torch_schedule(entry.schedule) and every != Duration(1, "step"):
        raise ConfigError(f"{told} is for torch's schedulers alone: Etude's schedules are followed every step.")
    if every.unit != "percent":
        return every
    if horizon.steps is None:
        raise ConfigError(f"{told} is a share of a run whose length is not known ahead; give it in steps or epochs.")
    return Duration(every.amount * Fraction(horizon.steps) / 100, "steps")


def _is_torch_schedule(schedule: object) -> bool:
    return isinstance(schedule, torch.optim.lr_scheduler.LRScheduler)


def _entries(returned: object) -> dict[str, Scheduled]:
    match returned:
        case torch.optim.Optimizer() | Scheduled():
            return {ONLY: _entry(returned)}
        case Mapping():
            return {str(name): _entry(value) for name, value in returned.items()}
        case [[*optimizers], schedules] if not _has_optimizer(schedules):
            return _with_schedules(optimizers, schedules)
        case [torch.optim.Optimizer(), schedule] if _is_schedule(schedule):
            return {ONLY: _entry(returned)}
        case [_, *_]:
            return {str(index): _entry(value) for index, value in enumerate(returned)}
    raise ConfigError(f"configure_optimizers must return {_FORMS}, but returned {type(returned).__name__}.")


def _is_schedule(value: object) -> bool:
    """Whether what stands beside an optimizer is its schedule, rather than a second optimizer."""
    return _is_torch_schedule(value) or isinstance(value, int | float | Mapping) or _is_function(value)


def _has_optimizer(value: object) -> bool:
    return isinstance(value, (list, tuple)) and any(isinstance(part, torch.optim.Optimizer) for part in value)


def _is_function(value: object) -> bool:
    return callable(value) and not isinstance(value, (type, torch.optim.Optimizer))


def _with_schedules(optimizers: Iterable[object], schedules: object) -> dict[str, Scheduled]:
    """Optimizers in order, each with its schedule: a torch one belongs to the optimizer it was made for."""
    if not isinstance(schedules, (list, tuple)):
        raise ConfigError(
            f"configure_optimizers must return {_FORMS}, but returned a {type(schedules).__name__} in the place of the "
            f"schedules."
        )
    entries = {str(index): _entry(optimizer) for index, optimizer in enumerate(optimizers)}
    for index, schedule in enumerate(schedules):
        name = str(index)
        if _is_torch_schedule(schedule):
            name = next((key for key, entry in entries.items() if entry.optimizer is schedule.optimizer), name)
        if name not in entries:
            raise ConfigError("configure_optimizers returned more schedules than optimizers.")
        entries[name] = Scheduled(entries[name].optimizer, schedule, entries[name].every)
    return entries


def _entry(value: object) -> Scheduled:
    match value:
        case Scheduled():
            return value
        case torch.optim.Optimizer():
            return Scheduled(value)
        case [torch.optim.Optimizer() as optimizer, schedule]:
            return Scheduled(optimizer, schedule)
    raise ConfigError(f"configure_optimizers must return {_FORMS}, but there is a {type(value).__name__} in it.")
