"""From a config to what a run has beside its task and its data: terms, schedules, optimizers, callbacks."""

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from etude.base.config.components import Imported
from etude.base.config.imports import check_signature, resolve_import
from etude.base.config.reading import shown
from etude.base.errors import ConfigError
from etude.base.horizon import Horizon
from etude.base.schedules.values import ScheduledValue
from etude.model.losses.penalties import ImportedTerm, L1Config, L2Config, TermConfig, l1, l2
from etude.model.rates import Weight, initial, is_constant, loss_weight
from etude.tasks.config import Config
from etude.tasks.parts import imported
from etude.train.optim.build import build_imported, build_optimizer
from etude.train.optim.slot import Slot
from etude.train.step.regularisers import OfParameters, Regulariser, chosen
from etude.train.task import Task
from etude.train.watch.events import check_callback

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
    extra: list[Regulariser] = []
    weights: dict[str, float] = {}
    scheduled: list[ScheduledValue] = []
    for name, entry in config.loss.terms.items():
        where = f"loss.terms.{name}"
        term = Regulariser(name, _measure(config, task, entry, where), initial(entry.weight))
        extra.append(term)
        scheduled += _scheduled(f"{where}.weight", name, entry.weight, functools.partial(setattr, term, "weight"))
    for name, weight in config.loss.weights.items():
        weights[name] = initial(weight)
        apply = functools.partial(weights.__setitem__, name)
        scheduled += _scheduled(f"loss.weights.{name}", name, weight, apply)
    return LossTerms(extra, weights, scheduled)


def _scheduled(key: str, name: str, weight: Weight, apply: Callable[[float], object]) -> list[ScheduledValue]:
    """What brings the weight of a term to where its schedule has it; nothing for a constant."""
    return [] if is_constant(weight) else [ScheduledValue(key, weight, apply, loss_weight(name))]


def _measure(config: Config, task: Task, entry: TermConfig, where: str) -> Callable[[Task], object]:
    """The function of the task that a term of `[loss.terms]` is."""
    match entry:
        case L2Config():
            return OfParameters(l2, _penalised(config, task, entry, where))
        case L1Config():
            return OfParameters(l1, _penalised(config, task, entry, where))
        case ImportedTerm():
            return _own_measure(entry, where)


def _penalised(config: Config, task: Task, entry: L1Config | L2Config, where: str) -> list[nn.Parameter]:
    """The parameters that a penalty acts on."""
    patterns = [entry.match] if isinstance(entry.match, str) else entry.match
    decay_all = bool(getattr(config.optimizer, "decay_all", False))
    return chosen(task, patterns, f"{where}.match", decay_all=decay_all)


def _own_measure(entry: ImportedTerm, where: str) -> Callable[[Task], object]:
    """The user's own function of the task, or an object that can be called like one."""
    made = resolve_import(entry.type, f"{where}.type")
    if inspect.isclass(made):
        made = imported(entry, {}, where)
    elif callable(made):
        check_signature(made, entry.arguments, where, positional=1)
        made = functools.partial(made, **entry.arguments)
    if not callable(made):
        raise ConfigError(f"{where}.type {entry.type} must be a function of the task, but is a {type(made).__name__}.")
    return made  # type: ignore[no-any-return]


class Watched(Protocol):
    """A config, or the part of one that names callbacks."""

    @property
    def callbacks(self) -> Sequence[Imported] | Mapping[str, Imported]:
        """The user's callbacks."""


def build_callbacks(config: Watched) -> list[Any]:
    """The user's callbacks."""
    found = []
    for where, entry in callback_entries(config).items():
        found.append(imported(entry, {}, where))
        check_callback(found[-1], f"{where}.type")
    return found


def callback_entries(config: Watched) -> dict[str, Imported]:
    """The user's callbacks in order, by key: `callbacks[0]` of a list, `callbacks.NAME` of a table."""
    match config.callbacks:
        case Mapping() as named:
            return {f"callbacks.{name}": entry for name, entry in named.items()}
        case listed:
            return {f"callbacks[{index}]": entry for index, entry in enumerate(listed)}


def build_slots(config: Config, say: Say) -> Callable[[Task, Horizon], Sequence[Slot]]:
    """A function that makes the optimizer of `[optimizer]`."""

    def make(task: Task, horizon: Horizon) -> list[Slot]:
        if not isinstance(config.optimizer, Imported):
            return [build_optimizer(task, config.optimizer, horizon, say)]
        found = resolve_import(config.optimizer.type, "optimizer.type")
        return [build_imported(task, found, config.optimizer.arguments, say, horizon)]

    return make


def _imports(config: Config) -> Iterator[tuple[str, str]]:
    """What the config gives by a type that may be an import path: the key, and the type."""
    parts: dict[str, object] = {"model": config.model, "loss": config.loss, "optimizer": config.optimizer}
    parts |= {f"loss.terms.{name}": entry for name, entry in config.loss.terms.items()}
    yield "task", config.task.type
    for where, part in (parts | callback_entries(config)).items():
        if isinstance(part, Imported):
            yield where, part.type


def imported_files(config: Config) -> list[Path]:
    """The files beside the config that its import paths name. Raises ConfigError for one that is not there."""
    files = []
    for where, path in _imports(config):
        name = path.rpartition(":")[0]
        if name.endswith(".py"):
            file = Path(name)
            if not file.is_file():
                raise ConfigError(f'{where}.type "{path}" cannot be imported: {shown(file)} is not a file.')
            files.append(file)
    return files
