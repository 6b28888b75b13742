"""Pipelines from Python: stages of configs and of functions, in one folder."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, final

from etude.app.interrupted import telling
from etude.app.running import build_job
from etude.app.stages.loading import RUN, made, run_of
from etude.app.stages.own import INPUTS
from etude.app.stages.pipeline import Choice
from etude.app.stages.pipeline import Pipeline as Course
from etude.app.stages.rounds import written_out
from etude.app.stages.stage import Artifact
from etude.app.stages.tables import TRAIN, Entry, check_name, has_stages, refuse_same_names, without
from etude.base.config.command import Override, Overrides, parse
from etude.base.config.composing import Layer, Origin, command_layer, file_layers
from etude.base.errors import ConfigError
from etude.base.paths import user_path
from etude.base.says import Say
from etude.tasks.pipelines import RepeatTable

Function = Callable[..., object]
"""Takes the artifacts of earlier stages by name, and `folder` and `say` where it asks for them by name; gives a path,
a table of what JSON holds, or nothing: then its folder is what it leaves."""


@final
@dataclass(frozen=True)
class Stage:
    """A stage of a pipeline: a config and what it changes, or a function of what earlier stages have left.

    `do` is `train`, `align`, `average` or `evaluate`; `overrides` maps dotted keys, those of the stage and of the
    config, to values. Stages name each other as in a file: `overrides={"init.from": [{"checkpoint": "ctc/best"}]}`.
    A function names those it takes from in `inputs`.
    """

    name: str
    function: Function | None = None
    config: str | Path | None = None
    """The config file; that of the pipeline unless given."""
    overrides: Mapping[str, object] = field(default_factory=dict)
    do: str = TRAIN
    inputs: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Refuse what is no stage. Raises ConfigError."""
        check_name(self.name, "in Python")
        if self.function is not None and not callable(self.function):
            raise ConfigError(f'stage "{self.name}": its function cannot be called: it is {self.function!r}.')
        if self.function is not None and (self.config is not None or self.do != TRAIN):
            raise ConfigError(f'stage "{self.name}": a function takes no config and no do.')


@final
@dataclass(frozen=True)
class Repeat:
    """Stages that are run several times, as `[[repeat]]` has them in a file.

    Those of round 2 are called `NAME-2`. What a stage changes in later rounds stands in its overrides below `again`:
    `{"again.loss.alignments": "aligned"}`.
    """

    stages: Sequence[Stage]
    times: int

    def __post_init__(self) -> None:
        """Refuse what cannot be repeated. Raises ConfigError."""
        if not self.stages or not all(isinstance(stage, Stage) for stage in self.stages):
            raise ConfigError("A repeat is made of one or more etude.Stage.")
        if not isinstance(self.times, int) or self.times < 1:
            raise ConfigError(f"{self._said()}: times must be a whole number from 1 on, but is {self.times!r}.")

    def _said(self) -> str:
        return f'Repeat from "{self.stages[0].name}" to "{self.stages[-1].name}"'

    def table(self) -> tuple[RepeatTable, Origin]:
        """The same as a table of a file."""
        table = {"from": self.stages[0].name, "to": self.stages[-1].name, "times": self.times}
        return RepeatTable.model_validate(table), Origin(flag=self._said())


@final
class Pipeline:
    """Stages in one folder: `run` does what is missing or has changed of them, and nothing else.

        align = Stage("align", do="align", overrides={"model": "ctc/best"})
        Pipeline([Stage("ctc"), align], config="speech.toml").run()

    `config` is the file that all of them change, `overrides` what all of them change in it.
    """

    def __init__(
        self,
        stages: Sequence[Stage | Repeat],
        *,
        config: str | Path | None = None,
        overrides: Overrides = (),
        name: str = "",
        say: Say = print,
    ) -> None:
        if not stages or not all(isinstance(stage, Stage | Repeat) for stage in stages):
            raise ConfigError("A pipeline is made of one or more etude.Stage and etude.Repeat.")
        self.stages = tuple(chain.from_iterable(map(_flat, stages)))
        self._repeats = tuple(one for one in stages if isinstance(one, Repeat))
        self._config = None if config is None else user_path(config)
        self._overrides = parse(overrides)
        self._name = name
        self._say = say

    def run(
        self,
        folder: str | Path | None = None,
        *,
        from_: str = "",
        only: str = "",
        force_from: str = "",
    ) -> dict[str, Artifact]:
        """Run what is missing or has changed; what the stages have left, by name.

        The folder is `runs/NAME` unless given. `from_` uses the stages before that one as they are, `only` runs one
        alone, `force_from` runs one and all that depend on it anew. Raises ConfigError before anything is written,
        and what the stages raise.
        """
        course = self.course(folder)
        for note in course.notes:
            self._say(note)
        choice = Choice(begin=from_, only=only, force=force_from)
        artifacts, reports = course.run(self._say, choice, partial(telling, say=self._say))
        ran = [report.node.name for report in reports if report.ran]
        self._say(f"Done: {', '.join(ran)}." if ran else f"Nothing to do: {len(reports)} stages are done.")
        return artifacts

    def course(self, folder: str | Path | None = None) -> Course:
        """The pipeline as the shell has it. Raises ConfigError for what cannot be."""
        overrides = [*self._overrides, *self._place(folder)]
        above = command_layer(overrides)
        entries = [self._entry(stage, above) for stage in self.stages]
        refuse_same_names(entries)
        entries = written_out(entries, [repeat.table() for repeat in self._repeats])
        files = [] if self._config is None else _files(self._config)
        run = run_of(self._config, [*files, above])
        return made(entries, run, self._config, build_job)

    def _place(self, folder: str | Path | None) -> list[Override]:
        """Where the pipeline lies."""
        where = {} if folder is None else {"dir": str(user_path(folder).absolute().parent), "name": Path(folder).name}
        named = {"name": self._name} if self._name else {}
        return [Override((RUN, key), value, "Pipeline") for key, value in {**named, **where}.items()]

    def _entry(self, stage: Stage, above: Layer) -> Entry:
        """A stage as one of a file."""
        file = self._config if stage.config is None else user_path(stage.config)
        layer = command_layer(parse(stage.overrides))
        layer.command = False  # what a stage changes is laid over its config as a file is
        if stage.inputs:
            layer.data[INPUTS] = list(stage.inputs)
        base = [] if file is None else _files(file)
        return Entry(
            stage.name,
            stage.do if stage.function is None else _named(stage.function),
            path=file,
            layers=[layer],
            base=base,
            above=[without(above, (RUN,))],
            origin=Origin(flag=f'Stage("{stage.name}")'),
            made=stage.function,
        )


def _flat(part: Stage | Repeat) -> Sequence[Stage]:
    """The stages of a part of a pipeline."""
    return part.stages if isinstance(part, Repeat) else (part,)


def _files(path: Path) -> list[Layer]:
    """The layers of a config. Raises ConfigError for one with stages of its own."""
    layers = file_layers(path)
    if has_stages(layers):
        raise ConfigError(f"{path} has stages of its own: run it by etude train, or give a config of one run.")
    return layers


def _named(function: Any) -> str:
    """What a function is called where a stage says what it does."""
    return str(getattr(function, "__name__", type(function).__name__))
