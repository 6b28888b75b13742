"""A sweep as it was asked for: its space, its folder, what judges its runs, and the config of each of them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field

from etude.app.stages.tables import has_stages
from etude.app.sweep.composed import Composed, OfRun, OfStages
from etude.app.sweep.conditions import looking, read_condition
from etude.app.sweep.draws import PLACES, draw
from etude.app.sweep.judge import Judge, judge_of
from etude.app.sweep.names import name_of
from etude.app.sweep.ranges import Values
from etude.app.sweep.space import Point, Space, read_space
from etude.app.sweep.words import read_flags
from etude.base.config.command import Override
from etude.base.config.composing import command_layer, compose, dotted, file_layers
from etude.base.config.lines import split_key
from etude.base.config.loading import validated
from etude.base.config.section import Section
from etude.base.config.writing import inline
from etude.base.errors import ConfigError, RefusedError
from etude.base.paths import user_path
from etude.tasks.config import Config, LoadedConfig, load_config
from etude.tasks.run_config import RunConfig
from etude.tasks.run_files import CONFIG
from etude.tasks.sweeps import SweepConfig

SEARCHES = ("tpe", "cma_es")
"""Methods that choose a combination by what came of those before."""


class _Asked(Section):
    """What of a config says where a sweep lies and what it is."""

    model_config = ConfigDict(extra="ignore")

    run: RunConfig = Field(default_factory=RunConfig)  # made anew: its folder follows the current one
    sweep: SweepConfig = SweepConfig()


@dataclass(frozen=True)
class Plan:
    """A sweep, before anything of it is run."""

    path: Path
    """Its config file."""
    same: Sequence[Override]
    """What the command line changes in every run."""
    space: Space
    config: SweepConfig
    folder: Path
    judge: Judge
    requeue: Sequence[str]
    """Signals that ask for the same command to be queued again."""
    has_stages: bool = False
    """Whether its trials are pipelines."""

    @property
    def metric(self) -> str:
        """What trials are judged by."""
        return self.judge.metric

    @property
    def goal(self) -> str:
        """Whether less or more of it is better."""
        return self.judge.goal

    @property
    def name(self) -> str:
        """What it is called."""
        return self.folder.name

    @property
    def is_search(self) -> bool:
        """Whether combinations are chosen one after the other."""
        return self.config.method in SEARCHES

    @cached_property
    def points(self) -> dict[str, Point]:
        """All combinations by name, where they are known beforehand. Raises ConfigError."""
        if self.is_search:
            return {}
        named: dict[str, Point] = {}
        for number, point in enumerate(self._chosen()):
            name = name_of(point, self.space.keys, None if self.config.method == "grid" else number)
            if name in named:
                raise ConfigError(f"Two combinations of the sweep are called {name}: give their tables names.")
            named[name] = point
        if not named:
            raise ConfigError("sweep.where allows none of the combinations.")
        return named

    def _chosen(self) -> Iterator[Point]:
        if self.config.method in PLACES:
            trials = self.config.trials or 0
            yield from draw(self.space, self.config.method, trials, self.config.seed, self.allows)
        else:
            yield from filter(self.allows, self.space.grid())

    @cached_property
    def _conditions(self) -> list[Any]:
        return list(map(read_condition, self.config.where))

    def allows(self, point: Point) -> bool:
        """Whether a combination meets every condition. Raises ConfigError where that cannot be told."""
        look = looking(point.values, lambda: self._composed(point.values))
        return all(condition(point.values, look) for condition in self._conditions)

    def _composed(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """The config of a combination with its defaults; without them where it is no valid one."""
        try:
            return self.composed("", values).view
        except ConfigError:
            return compose(Config, self.path, self._overrides("", values)).data

    def composed(self, name: str, values: Mapping[str, Any]) -> Composed:
        """The config of a trial. Raises ConfigError."""
        if self.has_stages:
            return OfStages(self.path, self._overrides(name, values))
        return OfRun(self.load(name, values))

    def load(self, name: str, values: Mapping[str, Any]) -> LoadedConfig:
        """The config of a trial that is one run. Raises ConfigError."""
        return load_config(self.path, self._overrides(name, values))

    def _overrides(self, name: str, values: Mapping[str, Any]) -> list[Override]:
        own = {"run.dir": str(self.folder), "run.name": name or "x"}
        given = [_override(key, value) for key, value in {**self._located(values), **own}.items()]
        return [*self.same, *given]

    def _located(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Values that a database has kept, as the config gives them: text in it knows the folder of its file."""
        return {key: self._candidate(key, value) for key, value in values.items()}

    def _candidate(self, key: str, value: object) -> object:
        choice = self.space.choices.get(key)
        listed = choice.values if isinstance(choice, Values) else [table.values.get(key) for table in self.space.tables]
        return next((one for one in listed if inline(one) == inline(value)), value)


def _override(key: str, value: object) -> Override:
    return Override(split_key(key), value, f"{key} of the sweep")


def read_plan(config: str | Path, words: Sequence[str], *, runs: bool = True) -> Plan:
    """The sweep that a config file and a command line ask for; one that is not run need not say what is swept.

    Raises ConfigError, RefusedError.
    """
    path = user_path(config)
    same, flags = read_flags(words)
    layer = compose(Config, path, same)
    asked = validated(_Asked, replace(layer, problems=[]), path).config
    folder = asked.run.dir / (asked.run.name or path.stem)
    if (folder / CONFIG).exists():
        raise RefusedError(f"{folder} is the folder of a run: give --run.name for the sweep.")
    space = read_space(asked.sweep, flags, [dotted(one.key) for one in same])
    if runs and not space.keys:
        raise ConfigError(
            "A sweep needs keys with several values: give --section.key V1,V2, or [sweep.keys] in the config."
        )
    files = file_layers(path)
    judge = judge_of(asked.sweep, path, files, command_layer(same))
    if runs:
        _check(asked.sweep, space)
    return Plan(path, same, space, asked.sweep, folder, judge, asked.run.requeue_signals, has_stages(files))


def _check(config: SweepConfig, space: Space) -> None:
    """Refuse what contradicts itself. Raises ConfigError."""
    if config.method == "grid" and space.ranges:
        raise ConfigError(
            f"{space.ranges[0]} is a range, and a grid needs values: give --sweep.method random, quasi_random, tpe or "
            f"cma_es, and --sweep.trials."
        )
    if config.method == "grid" and config.trials is not None:
        raise ConfigError("sweep.trials is for draws and searches; a grid runs all of its combinations.")
    if config.method != "grid" and config.trials is None:
        raise ConfigError(f'sweep.trials must be given with sweep.method "{config.method}": how many runs to draw.')
