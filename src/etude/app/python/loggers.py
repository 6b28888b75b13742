"""The loggers that a trainer is given: by name, by import path, as a table with a type, or as objects."""

from collections.abc import Mapping, Sequence
from itertools import filterfalse
from typing import cast

from etude.app.python.options import load_given
from etude.base.config.components import quoted
from etude.base.config.section import Section
from etude.base.errors import ConfigError
from etude.callbacks.config import LOGGERS, TENSORBOARD, LogConfig
from etude.train.watch.record import Logger


class _LogOptions(Section):
    log: LogConfig = LogConfig()


def read_loggers(loggers: Sequence[object] | None) -> tuple[LogConfig, list[Logger]]:
    """What is told by name, by import path or as a table with a type, and the loggers that are objects already.

    Raises ConfigError for a name that is none, and for an object without `log`.
    """
    if loggers is None:
        return LogConfig(), []
    own = list(map(_checked, filterfalse(_is_named, loggers)))
    named = [_as_written(logger) for logger in filter(_is_named, loggers) if logger != TENSORBOARD]
    given = {"log.loggers": named, "log.tensorboard": TENSORBOARD in loggers}
    return load_given(_LogOptions, given).config.log, own


def _is_named(logger: object) -> bool:
    return isinstance(logger, str | Mapping)


def _as_written(logger: object) -> object:
    """A name or a table, as a config holds it."""
    match logger:
        case Mapping():
            return dict(logger)
    return logger


def _checked(logger: object) -> Logger:
    match logger:
        case type():
            what = f"the class {logger.__name__}"
        case object(log=log) if callable(log):
            return cast("Logger", logger)
        case _:
            what = f"a {type(logger).__name__}"
    raise ConfigError(
        f'loggers must be "{TENSORBOARD}", {quoted(LOGGERS)}, import paths or objects with log(row), but one is {what}.'
    )
