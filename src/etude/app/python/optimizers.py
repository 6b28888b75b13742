"""The optimizer and the learning rate that a trainer is given, and the optimizers of a run made of them."""

from collections.abc import Mapping
from typing import TypeGuard, final

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from etude.app.python.options import TrainerOptions, load_given
from etude.base.config.components import Imported
from etude.base.config.imports import resolve_import
from etude.base.errors import ConfigError
from etude.base.horizon import Horizon
from etude.base.says import Say
from etude.base.schedules import ScheduleSection
from etude.base.schedules.spec import Binding, Schedule
from etude.train.optim.build import ONLY, Maker, build_imported, build_optimizer
from etude.train.optim.config import AdamWConfig, OptimizerConfig
from etude.train.optim.configured import configured_slots
from etude.train.optim.slot import Slot
from etude.train.task import Task


class Called(ScheduleSection):
    """A schedule that is a Python function of progress."""

    schedule: str = "function"
    function: Schedule

    def bind(self, binding: Binding) -> Schedule:
        """Give the function itself."""
        del binding
        return self.function


def read_rate(rate: object) -> float | ScheduleSection:
    """A learning rate as written in Python (a number, a table, a function of progress), checked as in a config."""
    match rate:
        case ScheduleSection():
            return rate
        case _ if callable(rate):
            return Called(function=rate)
        case Mapping():
            rate = dict(rate)
    read = load_given(TrainerOptions, {"optimizer.learning_rate": rate}).config.optimizer
    assert isinstance(read, AdamWConfig)  # the default: nothing but its rate was given
    given: float | ScheduleSection = read.learning_rate
    return given


@final
class ChosenOptimizer:
    """What a trainer is told about its optimizer.

    `optimizer` is a name, an import path, a table with a type, a torch optimizer, its class, or a function of the
    parameters; None leaves it to the task, or to the default. `learning_rate` is a number, a table, a function of
    progress, or the torch scheduler of an optimizer that is given too.
    """

    def __init__(self, optimizer: object = None, learning_rate: object = None) -> None:
        self._is_given = optimizer is not None or learning_rate is not None
        self._made: Optimizer | Maker | None = optimizer if _is_made(optimizer) else None
        self._named = optimizer if self._made is None else None
        self._rate = _rate_beside(self._made, learning_rate)

    @property
    def is_made(self) -> bool:
        """Whether it is an object of Python's, which no config can hold."""
        return self._made is not None

    def keys(self) -> dict[str, object]:
        """The keys of `[optimizer]` that it gives, as far as a config can hold them."""
        table = _table(self._named)
        match self._rate:
            case None | Called() | LRScheduler():
                return table
        return {**table, "learning_rate": self._rate}

    def slots(self, task: Task, horizon: Horizon, *, config: OptimizerConfig | Imported, say: Say) -> list[Slot]:
        """The optimizers of a run: those that the task configures, the one given, or the one of `config`."""
        returned = task.configure_optimizers()
        if returned is not None:
            self._refuse_beside(task)
            return configured_slots(returned, task, horizon, say, read_rate)
        match self._made:
            case None:
                return [self._of_config(config, task, horizon, say)]
            case Optimizer() as made:
                return self._of_optimizer(made, task, horizon, say)
            case make:
                return [self._of_function(make, task, horizon, say)]

    def _refuse_beside(self, task: Task) -> None:
        if self._is_given:
            raise ConfigError(
                f"{type(task).__name__} configures its own optimizers, so the trainer takes neither optimizer nor "
                f"learning_rate."
            )

    def _of_optimizer(self, made: Optimizer, task: Task, horizon: Horizon, say: Say) -> list[Slot]:
        entry = made if self._rate is None else {ONLY: (made, self._rate)}
        return configured_slots(entry, task, horizon, say, read_rate)

    def _of_function(self, make: Maker, task: Task, horizon: Horizon, say: Say) -> Slot:
        arguments = {} if self._rate is None else {"learning_rate": read_rate(self._rate)}
        return build_imported(task, make, arguments, say, horizon)

    def _of_config(self, config: OptimizerConfig | Imported, task: Task, horizon: Horizon, say: Say) -> Slot:
        called = self._called()
        match config:
            case Imported():
                return build_imported(task, resolve_import(config.type), config.arguments | called, say, horizon)
        return build_optimizer(task, config.model_copy(update=called), horizon, say)

    def _called(self) -> dict[str, ScheduleSection]:
        """The learning rate, where it is a function, which no config can hold."""
        match self._rate:
            case Called() as schedule:
                return {"learning_rate": schedule}
        return {}


def _is_made(optimizer: object) -> TypeGuard[Optimizer | Maker]:
    """Whether it is one of torch's, or what makes one, rather than a name or a table."""
    return isinstance(optimizer, Optimizer) or callable(optimizer)


def _rate_beside(optimizer: object, rate: object) -> object:
    """The learning rate, a function as a schedule; a torch scheduler must be that of the optimizer."""
    match rate:
        case LRScheduler():
            return _of(rate, optimizer)
    return Called(function=rate) if callable(rate) else rate


def _of(scheduler: LRScheduler, optimizer: object) -> LRScheduler:
    if scheduler.optimizer is not optimizer:
        raise ConfigError(
            f"learning_rate is a {type(scheduler).__name__}, which torch made for an optimizer of its own: "
            f"give that one as optimizer too."
        )
    return scheduler


def _table(optimizer: object) -> dict[str, object]:
    """An optimizer that is told by a name or a table, as a table."""
    match optimizer:
        case None:
            return {}
        case str():
            return {"type": optimizer}
        case Mapping():
            return dict(optimizer)
    raise ConfigError(
        f"optimizer must be a name, a table with a type, a torch optimizer, its class, or a function of the "
        f"parameters, but is a {type(optimizer).__name__}."
    )
