"""The `[log]` section: how a run is shown while it goes, and where its scalars go beside `metrics.jsonl`."""

import importlib.util
import inspect
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from etude.base.config.components import Imported, component
from etude.base.config.imports import check_signature, resolve_import
from etude.base.config.section import Section
from etude.base.errors import ConfigError
from etude.callbacks.mlflow import MlflowConfig
from etude.callbacks.wandb import WandbConfig
from etude.train.watch.record import Logger

TENSORBOARD = "tensorboard"
"""The package, the key, and the folder of a run."""


LOGGERS: dict[str, type[Section]] = {"mlflow": MlflowConfig, "wandb": WandbConfig}


class LogConfig(Section):
    """How a run shows its progress, and where its scalars go besides `metrics.jsonl`."""

    progress: bool = True
    """Show progress: one live display on a terminal, plain lines elsewhere."""
    tensorboard: bool | Literal["auto"] = "auto"
    """Write event files for TensorBoard; auto: if it is installed."""
    loggers: list[Annotated[MlflowConfig | WandbConfig | Imported, component(LOGGERS)]] = Field(default_factory=list)
    """Further loggers: "mlflow", "wandb", or a class by import path with `log(row)`, which may take the run folder as
    `folder`."""


def build_progress(config: LogConfig) -> list[Any]:
    """The callbacks that show a run: one, or none where `log.progress` is off."""
    if not config.progress:
        return []
    from etude.callbacks.notebook import progress_display

    return [progress_display()]


def build_loggers(config: LogConfig, folder: Path | None) -> list[Logger]:
    """The loggers beside `metrics.jsonl`, of a run without a folder those that need none; nothing is opened yet.

    Raises ConfigError where one that is named is not installed, or a class of the user's has no `log`.
    """
    loggers: list[Logger] = []
    if config.tensorboard is not False and folder is not None:
        if is_installed(TENSORBOARD):
            from etude.callbacks.tensorboard import TensorBoardLogger

            loggers.append(TensorBoardLogger(folder / TENSORBOARD))
        elif config.tensorboard is True:
            raise ConfigError(
                "log.tensorboard is true, but tensorboard is not installed: run pip install 'etude[tensorboard]', "
                "or leave log.tensorboard out."
            )
    return [*loggers, *(_logger(entry, folder, f"log.loggers[{i}]") for i, entry in enumerate(config.loggers))]


def is_installed(package: str) -> bool:
    """Whether `package` can be imported; a bare folder of that name does not count."""
    found = importlib.util.find_spec(package)
    return found is not None and found.origin is not None


def _logger(entry: MlflowConfig | WandbConfig | Imported, folder: Path | None, where: str) -> Logger:
    if isinstance(entry, Imported):
        return _imported(entry, folder, where)
    if not is_installed(entry.type):
        raise ConfigError(
            f"{where} is {entry.type}, which is not installed: run pip install 'etude[{entry.type}]', or leave it out."
        )
    return entry.build(folder)


def _imported(entry: Imported, folder: Path | None, where: str) -> Logger:
    make = resolve_import(entry.type, where)
    if not callable(make):
        raise ConfigError(f"{where} {entry.type} must be a class or function, but is a {type(make).__name__}.")
    takes_folder = "folder" in inspect.signature(make).parameters and "folder" not in entry.arguments
    offered = {"folder": folder} if takes_folder else {}
    check_signature(make, {**offered, **entry.arguments}, where)
    logger: Logger = make(**offered, **entry.arguments)
    if not callable(getattr(logger, "log", None)):
        raise ConfigError(f"{where} {entry.type} must have a method log(row), but {type(logger).__name__} has none.")
    return logger
