"""Configs with stages: `etude train`, `plan`, `check` and `show` of a pipeline."""

import json
from argparse import Namespace
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from itertools import filterfalse
from pathlib import Path

from etude.app.check import check
from etude.app.cli.naming import command, shell_word
from etude.app.cli.picture import check_picture, write_file
from etude.app.cli.streams import flushed, put, say
from etude.app.interrupted import COMMAND, told
from etude.app.running import build_job
from etude.app.stages.done import FINISHED
from etude.app.stages.loading import load_pipeline, origins_of
from etude.app.stages.node import Node
from etude.app.stages.picture import svg
from etude.app.stages.pipeline import Choice, Pipeline, Report
from etude.app.stages.shown import as_json, graph, standings, summary
from etude.app.stages.tables import TRAIN
from etude.app.stages.told import Composed
from etude.base.config.loading import Loaded
from etude.base.config.section import Section
from etude.base.errors import ConfigError
from etude.base.near import did_you_mean
from etude.tasks.config import LoadedConfig
from etude.train.interrupt import Interrupted


def opened(config: str, overrides: list[str]) -> Pipeline:
    """The pipeline of a config; what should be said about how it was composed is said."""
    pipeline = load_pipeline(config, overrides, build_job)
    for note in pipeline.notes:
        say(note)
    return pipeline


def run_stages(arguments: Namespace, overrides: list[str]) -> int:
    """Run what is missing or has changed of a pipeline."""
    if arguments.second is not None or arguments.beside is not None:
        raise ConfigError("A config with stages takes no second config.")
    pipeline = opened(arguments.config, overrides)
    choice = Choice(begin=arguments.tool or "", only=arguments.only or "", force=arguments.force_from or "")
    say(f"Pipeline folder: {pipeline.folder}")
    _, reports = pipeline.run(say, choice, _telling)
    say(ending(reports))
    return 0


def refuse_stages(arguments: Namespace) -> None:
    """Refuse flags of a pipeline for a config without stages. Raises ConfigError."""
    for flag, value in (("only", arguments.only), ("force-from", arguments.force_from)):
        if value is not None:
            raise ConfigError(f"--{flag} names a stage, but {arguments.config} has none.")


def ending(reports: list[Report]) -> str:
    """What the stages have come to, and what to do next."""
    ran = [report.node.name for report in reports if report.ran]
    head = f"Done: {', '.join(ran)}." if ran else f"Nothing to do: {len(reports)} stages are done."
    trained = [report.node for report in reports if report.node.do == TRAIN]
    lines = [head, *summary(reports)]
    if trained:
        lines += ["Next:", f"  {command()} test {shell_word(trained[-1].folder)}"]
    return "\n".join(lines)


def plan_stages(arguments: Namespace, overrides: list[str], draw: Callable[[LoadedConfig, Namespace], None]) -> int:
    """Print and draw the graph of a pipeline, or have one of its stages planned."""
    pipeline = opened(arguments.config, overrides)
    if arguments.stage is not None:
        draw(_training(pipeline, arguments.stage), arguments)
        return 0
    for flag, value in (("csv", arguments.csv), ("steps", arguments.steps), ("world", arguments.world)):
        if value is not None:
            raise ConfigError(f"--{flag} is for the plan of one stage: give --stage NAME as well.")
    if arguments.output is not None:
        check_picture(arguments.output, "output")
    stands = standings(pipeline)
    with flushed():
        put(json.dumps({"stages": as_json(stands)}) if arguments.json else "\n".join(graph(stands)))
    if arguments.output is not None:
        write_file(arguments.output, svg(pipeline.folder.name, stands))
    return 0


def _training(pipeline: Pipeline, name: str) -> LoadedConfig:
    """The config of a stage that trains. Raises ConfigError for another."""
    trained = {node.name: node for node in pipeline.nodes if node.do == TRAIN}
    found = trained[name].made.composed if name in trained else None
    if found is None:
        hint = did_you_mean(name, trained, f"those that train are {', '.join(trained)}.")
        raise ConfigError(f'--stage names "{name}", which is no stage that trains; {hint}')
    return found.loaded


def check_stages(config: str, overrides: list[str]) -> Iterator[str]:
    """What is found out of every stage; one whose inputs are not there yet is known by its config alone."""
    pipeline = opened(config, overrides)
    stands = standings(pipeline)
    yield from graph(stands)
    there = {node.name for node, found in stands if found.state == FINISHED}
    for node in pipeline.nodes:
        if node.made.composed is not None and node.do == TRAIN:
            yield f"\nstage {node.name}"
            yield from _checked(node, node.made.composed, there)


def _checked(node: Node, composed: Composed, there: Container[str]) -> Iterator[str]:
    """What is found out of a training; `there` are the stages that are done."""
    missing = list(filterfalse(there.__contains__, node.stage.inputs()))
    if missing:
        yield f"config      valid; the rest can be checked once {' and '.join(missing)} is done"
    else:
        yield from map(str, check(composed.loaded, say))


def shown_stages(config: str, overrides: list[str]) -> Loaded[Section]:
    """The composed config of a pipeline, with the origin of each value."""
    pipeline = opened(config, overrides)
    return Loaded(Section(), dict(pipeline.config), pipeline.path, origins_of(pipeline))


@contextmanager
def _telling(folder: Path) -> Iterator[None]:
    """Say where an interrupted stage stands, and how it goes on."""
    try:
        yield
    except Interrupted as ending:
        say(told(ending, folder))
        raise
    except KeyboardInterrupt:
        say(f"Interrupted in {folder}. {COMMAND}.")
        raise
