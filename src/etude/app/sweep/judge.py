"""What the trials of a sweep are judged by: a metric, and of a pipeline the stage that measures it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etude.app.results.summary import number_in
from etude.app.runs.pipelines import DONE
from etude.app.stages.rounds import written_out
from etude.app.stages.tables import TRAIN, Entry, changing, entries_of, for_stages, has_stages, repeats_of
from etude.base.config.composing import Layer, merged
from etude.base.config.nest import value_at
from etude.base.errors import ConfigError
from etude.base.files import json_or_empty
from etude.base.modes import mode_of
from etude.base.near import did_you_mean
from etude.tasks.config import Config
from etude.tasks.sweeps import SweepConfig
from etude.train.watch.record import METRICS

MONITOR, MODE = ("train", "monitor"), ("train", "mode")
DEFAULT_MONITOR = "val/loss"
KEY = "sweep.metric"


@dataclass(frozen=True)
class Judge:
    """A metric, and where it is measured."""

    metric: str
    goal: str
    """Whether less (`min`) or more (`max`) of it is better."""
    stage: str = ""
    """Of a pipeline: the stage that measures it."""
    trains: bool = True
    """Whether it is measured by validations of a training, rather than once at the end of a stage."""

    def run(self, trial: Path) -> Path:
        """The folder of what is judged of a trial."""
        return trial / self.stage

    def rows(self, trial: Path) -> Path:
        """The file with what the validations of a trial have measured."""
        return self.run(trial) / METRICS

    def measured_at_end(self, trial: Path) -> float | None:
        """What a stage that does not train has measured."""
        return number_in(json_or_empty(self.run(trial) / DONE).get("metrics"), self.metric)

    def missing(self, trial: Path) -> str:
        """Say that a trial has not measured it."""
        if self.trains:
            return f"No validation gave a finite {self.metric}."
        given = json_or_empty(self.run(trial) / DONE).get("metrics")
        names = ", ".join(given) if isinstance(given, Mapping) else ""
        return f'The stage "{self.stage}" gave no finite {self.metric}; it gave {names or "nothing"}.'


def judge_of(asked: SweepConfig, path: Path, files: Sequence[Layer], command: Layer) -> Judge:
    """What judges the trials of a config, whose files and command line these are. Raises ConfigError."""
    if has_stages(files):
        entries = for_stages(command, written_out(entries_of(path, files, command), repeats_of(files, path)))
        return _of_stage(asked, _chosen(asked.stage, entries))
    if asked.stage is not None:
        raise ConfigError(f'sweep.stage is "{asked.stage}", but {path} has no stages.')
    return _judge(asked, merged(Config, [*files, command]).data)


def _chosen(name: str | None, entries: Sequence[Entry]) -> Entry:
    """The stage that is named, or else the last that trains."""
    if name is None:
        found = [entry for entry in entries if entry.do == TRAIN]
        if not found:
            raise ConfigError("sweep.stage must name the stage whose metric judges, since none trains.")
        return found[-1]
    known = {entry.name: entry for entry in entries}
    if name not in known:
        hint = did_you_mean(name, known, f"there are {', '.join(known)}.", quote='"')
        raise ConfigError(f'sweep.stage is "{name}", which is not a stage; {hint}')
    return known[name]


def _of_stage(asked: SweepConfig, entry: Entry) -> Judge:
    if entry.do != TRAIN:
        if asked.metric is None:
            raise ConfigError(f'{KEY} must say which metric of the stage "{entry.name}" judges.')
        return _judge(asked, {}, entry.name, trains=False)
    changes = [changed for layer in entry.layers for changed in changing(layer, ())]
    return _judge(asked, merged(Config, [*entry.base, *changes, *entry.above]).data, entry.name)


def _judge(asked: SweepConfig, data: Mapping[str, Any], stage: str = "", *, trains: bool = True) -> Judge:
    monitored = str(value_at(data, MONITOR) or DEFAULT_MONITOR)
    metric = asked.metric or monitored
    if metric.startswith("test/"):
        raise ConfigError(f'{KEY} is "{metric}", but the test set never ranks: take a metric of val.')
    told = value_at(data, MODE) if metric == monitored else None
    goal = asked.goal or told or mode_of(metric)
    if not goal:
        raise ConfigError(f'{KEY} is "{metric}", which Etude does not know: give sweep.goal, min or max.')
    return Judge(metric, str(goal), stage, trains)
