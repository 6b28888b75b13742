"""The kinds of stages by name, and the stages that a config is made of."""

from functools import partial
from pathlib import Path
from typing import Protocol

from etude.app.fork.branch import leave
from etude.app.fork.way import Build, is_fork
from etude.app.stages.share import Share
from etude.app.stages.stage import Artifact, Stage
from etude.app.stages.train import Train
from etude.base.config.components import is_import_path, quoted
from etude.base.config.imports import resolve_import
from etude.base.errors import ConfigError
from etude.base.near import nearest
from etude.tasks.config import LoadedConfig


class Kind(Protocol):
    """Makes a stage of a name from a config and from what makes a job of it."""

    def __call__(self, name: str, loaded: LoadedConfig, build: Build) -> Stage[Artifact]:
        """Give the stage; nothing is read or written yet."""


STAGES: dict[str, Kind] = {"train": Train, "share": Share}
RESERVED = ("align", "average", "evaluate")
"""Names of kinds that this version does not have."""


def kind_of(name: str, key: str = "stage.do") -> Kind:
    """The kind of stage that a name or an import path (`package.module:Class`, `stages.py:make`) stands for.

    Raises ConfigError, which names `key`, where there is none.
    """
    if name in STAGES:
        return STAGES[name]
    if is_import_path(name):
        kind: Kind = resolve_import(name, key)
        if not callable(kind):
            raise ConfigError(f"{key} {name} must be a class or function, but is a {type(kind).__name__}.")
        return kind
    if name in RESERVED:
        raise ConfigError(f'{key} cannot be "{name}" yet: this version has {quoted(STAGES)} and import paths.')
    near = nearest(name, STAGES)
    hint = f'did you mean "{near}"?' if near else f"it must be {quoted(STAGES)} or an import path."
    raise ConfigError(f'{key} is "{name}"; {hint}')


def stages_of(loaded: LoadedConfig, folder: Path, build: Build) -> tuple[list[Stage[Artifact]], Train]:
    """What the run in `folder` is made of: the stages before its training, and the training.

    That is the training alone, but for a fork, whose training begins from what it shares with its parent.
    """
    if not is_fork(folder):
        return [], Train("train", loaded, build)
    begin = partial(leave, loaded, build)
    return [Share("share", loaded, build)], Train("train", loaded, build, begins={"share": begin})
