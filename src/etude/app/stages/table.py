"""The kinds of stages by name, and the stages that the config of one run is made of."""

from functools import partial
from pathlib import Path
from typing import Protocol

from etude.app.fork.branch import leave
from etude.app.fork.way import Build, is_fork
from etude.app.stages.align import align
from etude.app.stages.average import average
from etude.app.stages.evaluate import evaluate
from etude.app.stages.node import Made
from etude.app.stages.own import own
from etude.app.stages.share import Share
from etude.app.stages.stage import Artifact, Stage
from etude.app.stages.told import Told
from etude.app.stages.train import Train
from etude.base.config.components import is_import_path, quoted
from etude.base.errors import ConfigError
from etude.base.near import did_you_mean
from etude.tasks.config import LoadedConfig


class Kind(Protocol):
    """Makes a stage of what it is told."""

    def __call__(self, told: Told) -> Made:
        """Give the stage; nothing is read but configs, or written. Raises ConfigError."""


def train(told: Told) -> Made:
    """A stage that trains."""
    composed = told.config()
    takes = tuple(dict.fromkeys(one.stage for one in composed.references.values()))
    stage = Train(told.name, composed.loaded, told.build, takes=takes, named=composed.named())
    return Made(stage, composed=composed, references=composed.dotted(), splits=("train", "val"))


KINDS: dict[str, Kind] = {"train": train, "align": align, "average": average, "evaluate": evaluate}


def kind_of(name: str, key: str = "stage.do", where: str = "") -> Kind:
    """The kind of stage that a name or an import path (`package.module:function`, `stages.py:make`) stands for.

    Raises ConfigError, which names `key` and ends with `where` that stands, where there is none.
    """
    if name in KINDS:
        return KINDS[name]
    if is_import_path(name):
        return own
    hint = did_you_mean(name, KINDS, f"it must be {quoted(KINDS)} or an import path.", quote='"')
    raise ConfigError(f'{key} is "{name}"; {hint}{where}')


def stages_of(loaded: LoadedConfig, folder: Path, build: Build) -> tuple[list[Stage[Artifact]], Train]:
    """What the run in `folder` is made of: the stages before its training, and the training.

    That is the training alone, but for a fork, whose training begins from what it shares with its parent.
    """
    if not is_fork(folder):
        return [], Train("train", loaded, build)
    begin = partial(leave, loaded, build)
    return [Share("share", loaded, build)], Train("train", loaded, build, begins={"share": begin})
