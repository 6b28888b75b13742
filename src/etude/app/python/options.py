"""What a trainer is told in Python: the options of `[train]` and `[optimizer]`, read as a config is."""

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any

import torch
from pydantic import Field

from etude.base.config.components import Imported, component, quoted
from etude.base.config.loading import Loaded, load
from etude.base.config.other_words import hint
from etude.base.config.section import Section
from etude.base.errors import ConfigError
from etude.base.schedules import ScheduleSection
from etude.base.schedules.spec import Binding, Schedule
from etude.callbacks.config import LOGGERS, TENSORBOARD, LogConfig
from etude.train.config import TrainConfig
from etude.train.optim.config import OPTIMIZERS, AdamWConfig, OptimizerConfig

OWN = ("optimizer", "learning_rate", "callbacks", "loggers", "run_dir", "resume", "seed", "progress", "say")
"""The trainer's options beside those of `[train]`."""
OF_FIT = ("loss", "teacher_forcing")
_SHORT = {"lr": "learning_rate", "optim": "optimizer", "verbose": "progress"}
_PLACE = re.compile(r' \(overrides\["[^"]*"\]\)')


class _RunOptions(Section):
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 1


class TrainerOptions(Section):
    """What a trainer is told, as the `config.toml` of its run folder holds it."""

    run: _RunOptions = _RunOptions()
    train: TrainConfig = TrainConfig()
    optimizer: Annotated[OptimizerConfig | Imported, component(OPTIMIZERS, "adamw")] = AdamWConfig()


class Called(ScheduleSection):
    """A schedule that is a Python function of progress."""

    schedule: str = "function"
    function: Any = None

    def bind(self, binding: Binding) -> Schedule:
        """Give the function itself."""
        del binding
        function: Schedule = self.function
        return function


def read_options(
    options: Mapping[str, Any], *, optimizer: Any = None, learning_rate: Any = None, seed: int = 1
) -> Loaded[TrainerOptions]:
    """Check every option; `optimizer` is a name, an import path or a table.

    Raises ConfigError with all problems at once; an unknown name is refused with the nearest, or with what Etude
    calls it.
    """
    refuse_unknown(options)
    overrides: dict[str, Any] = {
        f"train.{name}": str(value) if isinstance(value, torch.device) else value for name, value in options.items()
    }
    if optimizer is not None:
        if not isinstance(optimizer, (str, Mapping)):
            raise ConfigError(
                f"optimizer must be a name, a table with a type, a torch optimizer, its class, or a function of the "
                f"parameters, but is a {type(optimizer).__name__}."
            )
        table = {"type": optimizer} if isinstance(optimizer, str) else optimizer
        overrides |= {f"optimizer.{name}": value for name, value in table.items()}
    if learning_rate is not None and not isinstance(learning_rate, (Called, torch.optim.lr_scheduler.LRScheduler)):
        overrides["optimizer.learning_rate"] = learning_rate
    return _loaded({**overrides, "run.seed": seed})


class _LogOptions(Section):
    log: LogConfig = LogConfig()


def read_loggers(loggers: Sequence[Any]) -> tuple[LogConfig, list[Any]]:
    """What is told by name, by import path or as a table with a type, and the loggers that are objects already.

    Raises ConfigError for a name that is none, and for an object without `log`.
    """
    named = [logger for logger in loggers if isinstance(logger, (str, Mapping)) and logger != TENSORBOARD]
    own = [logger for logger in loggers if not isinstance(logger, (str, Mapping))]
    for logger in own:
        if isinstance(logger, type) or not callable(getattr(logger, "log", None)):
            what = f"the class {logger.__name__}" if isinstance(logger, type) else f"a {type(logger).__name__}"
            raise ConfigError(
                f'loggers must be "{TENSORBOARD}", {quoted(LOGGERS)}, import paths or objects with log(row), but one '
                f"is {what}."
            )
    given = {"log.loggers": [dict(one) if isinstance(one, Mapping) else one for one in named]}
    config = _loaded({**given, "log.tensorboard": TENSORBOARD in loggers}, _LogOptions).config.log
    return config, own


def read_rate(rate: Any) -> Any:
    """A learning rate as written in Python (a number, a table, a function of progress), checked as in a config."""
    if rate is None or isinstance(rate, (ScheduleSection, torch.optim.lr_scheduler.LRScheduler)):
        return rate
    if callable(rate):
        return Called(function=rate)
    config = _loaded({"optimizer.learning_rate": dict(rate) if isinstance(rate, Mapping) else rate}).config.optimizer
    return config.learning_rate


def refuse_unknown(options: Iterable[str]) -> None:
    """Raise ConfigError for every name that is no option, each with the nearest that is."""
    known = [*TrainConfig.model_fields, *OWN]
    problems = []
    for name in options:
        if name in TrainConfig.model_fields:
            continue
        said = "" if name in _SHORT else hint(name)
        near = _SHORT.get(name) or next(
            iter(difflib.get_close_matches(name, [*known, *OF_FIT], n=1, cutoff=0.5)),
            f"one of {', '.join(known)}",
        )
        problems.append(f"{name} is not an option of the trainer; {said}." if said else _asked(name, near))
    if problems:
        raise ConfigError(problems)


def _asked(name: str, near: str) -> str:
    return f"{name} is not an option of the trainer; did you mean {near}?"


def _loaded(overrides: Mapping[str, Any], kind: type[Any] = TrainerOptions) -> Loaded[Any]:
    try:
        return load(kind, None, overrides)
    except ConfigError as error:  # there is no file or line to name
        raise ConfigError([_PLACE.sub("", problem).replace("?.", "?") for problem in error.problems]) from None


def is_made(optimizer: Any) -> bool:
    """Whether `optimizer` is one of torch's, or what makes one, rather than a name or a table."""
    return isinstance(optimizer, torch.optim.Optimizer) or callable(optimizer)


OptimizerMaker = Callable[..., torch.optim.Optimizer]
