"""What `configure_optimizers` returned, in any of its forms, as the optimizers of a run."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from etude.base.durations import Duration
from etude.base.errors import ConfigError
from etude.base.horizon import Horizon
from etude.base.schedules import bind
from etude.train.optim.build import ONLY, names_of
from etude.train.optim.slot import Rate, Slot

_FORMS = (
    "an optimizer, several in a tuple or list, ([optimizers], [schedules]), or a mapping of names to an optimizer or "
    "(optimizer, schedule)"
)


@dataclass(frozen=True)
class Scheduled:
    """An optimizer with its schedule, and, for a torch scheduler, how often it is stepped.

    `schedule` is a number, one of Etude's (followed every step), or any `torch.optim.lr_scheduler`, stepped once an
    epoch unless `every` says otherwise; a ReduceLROnPlateau is stepped after each validation.
    """

    optimizer: torch.optim.Optimizer
    schedule: Any = None
    every: str | Duration | None = None


def configured_slots(
    returned: Any, module: nn.Module, horizon: Horizon, say: Callable[[str], None], read_schedule: Callable[[Any], Any]
) -> list[Slot]:
    """The slots of what a task returned; `read_schedule` turns a schedule as written into a spec."""
    entries = _entries(returned)
    names = names_of(module)
    owners: dict[nn.Parameter, str] = {}
    everybody = [p for entry in entries.values() for group in entry.optimizer.param_groups for p in group["params"]]
    slots = []
    for name, entry in entries.items():
        slot = _slot(name, entry, names, everybody, horizon, say, read_schedule)
        for parameter in slot.parameters:
            if owners.setdefault(parameter, name) != name:
                say(f"The optimizers {owners[parameter]!r} and {name!r} share {names.get(parameter, 'a parameter')}.")
        slots.append(slot)
    return slots


def _slot(
    name: str,
    entry: Scheduled,
    names: Mapping[nn.Parameter, str],
    everybody: list[nn.Parameter],
    horizon: Horizon,
    say: Callable[[str], None],
    read_schedule: Callable[[Any], Any],
) -> Slot:
    rates: list[Rate] = []
    scheduler = None
    if _is_torch_schedule(entry.schedule):
        scheduler = entry.schedule
    elif entry.schedule is not None:
        rate = read_schedule(entry.schedule)
        schedule = bind(rate, horizon, key=f"the schedule of the optimizer {name!r}")
        rates = [(index, "lr", schedule) for index in range(len(entry.optimizer.param_groups))]
    every = entry.every if isinstance(entry.every, Duration) or entry.every is None else Duration.parse(entry.every)
    return Slot(
        name,
        entry.optimizer,
        rates=rates,
        names=names,
        others=everybody,
        scheduler=scheduler,
        scheduler_every=every,
        notice=say,
    )


def _is_torch_schedule(schedule: Any) -> bool:
    return isinstance(schedule, torch.optim.lr_scheduler.LRScheduler)


def _entries(returned: Any) -> dict[str, Scheduled]:
    if isinstance(returned, (torch.optim.Optimizer, Scheduled)):
        return {ONLY: _entry(returned)}
    if isinstance(returned, Mapping):
        return {str(name): _entry(value) for name, value in returned.items()}
    if isinstance(returned, (tuple, list)) and returned:
        if isinstance(returned[0], (list, tuple)) and len(returned) == 2:  # noqa: PLR2004
            return _with_schedules(returned[0], returned[1])
        if len(returned) == 2 and _is_torch_schedule(returned[1]):  # noqa: PLR2004
            return {ONLY: _entry(returned)}
        return {str(index): _entry(value) for index, value in enumerate(returned)}
    raise ConfigError(f"configure_optimizers must return {_FORMS}, but returned {type(returned).__name__}.")


def _with_schedules(optimizers: Iterable[Any], schedules: Iterable[Any]) -> dict[str, Scheduled]:
    """Optimizers in order, each with its schedule: a torch one belongs to the optimizer it was made for."""
    entries = {str(index): _entry(optimizer) for index, optimizer in enumerate(optimizers)}
    for index, schedule in enumerate(schedules):
        name = str(index)
        if _is_torch_schedule(schedule):
            name = next((key for key, entry in entries.items() if entry.optimizer is schedule.optimizer), name)
        if name not in entries:
            raise ConfigError("configure_optimizers returned more schedules than optimizers.")
        entries[name] = Scheduled(entries[name].optimizer, schedule, entries[name].every)
    return entries


def _entry(value: Any) -> Scheduled:
    if isinstance(value, Scheduled):
        return value
    if isinstance(value, torch.optim.Optimizer):
        return Scheduled(value)
    if isinstance(value, (tuple, list)) and len(value) == 2 and isinstance(value[0], torch.optim.Optimizer):  # noqa: PLR2004
        return Scheduled(value[0], value[1])
    raise ConfigError(f"configure_optimizers must return {_FORMS}, but there is a {type(value).__name__} in it.")
