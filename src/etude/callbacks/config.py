"""The `[log]` section: how a run is shown while it goes, and where its scalars go beside `metrics.jsonl`."""

import importlib.util
import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from etude.base.config.components import Imported, component
from etude.base.config.imports import check_signature, resolve_import
from etude.base.config.section import Section
from etude.base.errors import ConfigError
from etude.train.record import Logger

TENSORBOARD = "tensorboard"
"""The package, the key, and the folder of a run."""


class LogConfig(Section):
    """How a run is shown while it goes, and where its scalars go beside `metrics.jsonl`."""

    progress: bool = True
    """Show progress: one live display on a terminal, plain lines elsewhere."""
    tensorboard: bool | Literal["auto"] = "auto"
    """Write event files for TensorBoard; auto: where it is installed."""
    loggers: list[Annotated[Imported, component({})]] = Field(default_factory=list)
    """Further loggers, each a class by import path with `log(row)`; one that takes `folder` gets the run folder."""


def build_progress(config: LogConfig) -> list[Any]:
    """The callbacks that show a run: one, or none where `log.progress` is off."""
    if not config.progress:
        return []
    from etude.callbacks.progress import progress_display

    return [progress_display()]


def build_loggers(config: LogConfig, folder: Path) -> list[Logger]:
    """The loggers beside `metrics.jsonl`; nothing is opened before the first row.

    Raises ConfigError where `log.tensorboard = true` and it is not installed, or a class of the user's has no `log`.
    """
    loggers: list[Logger] = []
    if config.tensorboard is not False:
        if is_installed(TENSORBOARD):
            from etude.callbacks.tensorboard import TensorBoardLogger

            loggers.append(TensorBoardLogger(folder / TENSORBOARD))
        elif config.tensorboard is True:
            raise ConfigError(
                "log.tensorboard is true, but tensorboard is not installed: run pip install 'etude[tensorboard]', "
                "or leave log.tensorboard out."
            )
    return [*loggers, *_imported(config.loggers, folder)]


def is_installed(package: str) -> bool:
    """Whether `package` can be imported; a bare folder of that name does not count."""
    found = importlib.util.find_spec(package)
    return found is not None and found.origin is not None


def _imported(entries: Sequence[Imported], folder: Path) -> list[Logger]:
    loggers = []
    for index, entry in enumerate(entries):
        where = f"log.loggers[{index}]"
        make = resolve_import(entry.type)
        if not callable(make):
            raise ConfigError(f"{where} {entry.type} must be a class or function, but is a {type(make).__name__}.")
        takes_folder = "folder" in inspect.signature(make).parameters and "folder" not in entry.arguments
        offered = {"folder": folder} if takes_folder else {}
        check_signature(make, {**offered, **entry.arguments}, where)
        logger = make(**offered, **entry.arguments)
        if not callable(getattr(logger, "log", None)):
            raise ConfigError(
                f"{where} {entry.type} must have a method log(row), but {type(logger).__name__} has none."
            )
        loggers.append(logger)
    return loggers
