"""From a config to what a run has beside its task and its data: terms, schedules, optimizers, callbacks."""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etude.base.config.components import Imported
from etude.base.config.imports import check_signature, resolve_import
from etude.base.config.reading import shown
from etude.base.errors import ConfigError
from etude.base.horizon import Horizon
from etude.base.schedules.values import ScheduledValue
from etude.model.losses.penalties import ImportedTerm, L2Config, l1, l2
from etude.model.rates import initial, is_constant, loss_weight
from etude.tasks.config import Config
from etude.tasks.parts import imported
from etude.train.optim.build import build_imported, build_optimizer
from etude.train.optim.slot import Slot
from etude.train.step.regularisers import OfParameters, Regulariser, chosen
from etude.train.task import Task
from etude.train.watch.callback import check_callback

Say = Callable[[str], None]


@dataclass(frozen=True)
class LossTerms:
    """What `[loss]` adds to the terms that a step returns."""

    extra: Sequence[Regulariser]
    """Those of `[loss.terms]`."""
    weights: dict[str, float]
    """Those of `[loss.weights]` now; schedules change them in place."""
    scheduled: Sequence[ScheduledValue]
    """The weights of both that follow a schedule."""


def build_terms(config: Config, task: Task) -> LossTerms:
    """The further terms of the loss, and the weights that the config gives by name."""
    terms = LossTerms([], {}, scheduled := [])
    extra = []
    for name, entry in config.loss.terms.items():
        where = f"loss.terms.{name}"
        term = Regulariser(name, _measure(config, task, entry, where), initial(entry.weight))
        extra.append(term)
        if not is_constant(entry.weight):
            apply = functools.partial(setattr, term, "weight")
            scheduled.append(ScheduledValue(f"{where}.weight", entry.weight, apply, loss_weight(name)))
    for name, weight in config.loss.weights.items():
        terms.weights[name] = initial(weight)
        if not is_constant(weight):
            apply = functools.partial(terms.weights.__setitem__, name)
            scheduled.append(ScheduledValue(f"loss.weights.{name}", weight, apply, loss_weight(name)))
    return dataclasses.replace(terms, extra=extra)


def _measure(config: Config, task: Task, entry: Any, where: str) -> Callable[[Task], Any]:
    """The function of the task that a term of `[loss.terms]` is."""
    if not isinstance(entry, ImportedTerm):
        patterns = [entry.match] if isinstance(entry.match, str) else entry.match
        decay_all = bool(getattr(config.optimizer, "decay_all", False))
        parameters = chosen(task, patterns, f"{where}.match", decay_all=decay_all)
        return OfParameters(l2 if isinstance(entry, L2Config) else l1, parameters)
    made = resolve_import(entry.type, f"{where}.type")
    if inspect.isclass(made):
        made = imported(entry, {}, where)
    elif callable(made):
        check_signature(made, entry.arguments, where, positional=1)
        made = functools.partial(made, **entry.arguments)
    if not callable(made):
        raise ConfigError(f"{where}.type {entry.type} must be a function of the task, but is a {type(made).__name__}.")
    return made  # type: ignore[no-any-return]


def build_callbacks(config: Config) -> list[Any]:
    """The user's callbacks."""
    found = []
    for where, entry in callback_entries(config).items():
        found.append(imported(entry, {}, where))
        check_callback(found[-1], f"{where}.type")
    return found


def callback_entries(config: Config) -> dict[str, Imported]:
    """The user's callbacks in order, by key: `callbacks[0]` of a list, `callbacks.NAME` of a table."""
    given = config.callbacks
    if isinstance(given, Mapping):
        return {f"callbacks.{name}": entry for name, entry in given.items()}
    return {f"callbacks[{index}]": entry for index, entry in enumerate(given)}


def build_slots(config: Config, say: Say) -> Callable[[Task, Horizon], Sequence[Slot]]:
    """A function that makes the optimizer of `[optimizer]`."""

    def make(task: Task, horizon: Horizon) -> list[Slot]:
        if not isinstance(config.optimizer, Imported):
            return [build_optimizer(task, config.optimizer, horizon, say)]
        found = resolve_import(config.optimizer.type, "optimizer.type")
        return [build_imported(task, found, config.optimizer.arguments, say, horizon)]

    return make


def imported_files(config: Config) -> list[Path]:
    """The files beside the config that its import paths name. Raises ConfigError for one that is not there."""
    parts: dict[str, object] = {"model": config.model, "loss": config.loss, "optimizer": config.optimizer}
    parts |= {f"loss.terms.{name}": entry for name, entry in config.loss.terms.items()}
    parts |= callback_entries(config)
    paths = {"task": config.task.type} | {key: one.type for key, one in parts.items() if isinstance(one, Imported)}
    files = []
    for where, path in paths.items():
        name = path.rpartition(":")[0]
        if name.endswith(".py"):
            files.append(Path(name))
            if not files[-1].is_file():
                raise ConfigError(f'{where}.type "{path}" cannot be imported: {shown(files[-1])} is not a file.')
    return files
