"""Reads a config with stages: each stage composed, checked and put in order, before anything is written."""

from collections.abc import Container, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from pydantic import Field

from etude.app.fork.way import Build
from etude.app.stages.fits import check_fit
from etude.app.stages.graph import ordered
from etude.app.stages.names import Names
from etude.app.stages.node import Node
from etude.app.stages.own import own
from etude.app.stages.pipeline import Pipeline
from etude.app.stages.rounds import written_out
from etude.app.stages.table import Kind, kind_of
from etude.app.stages.tables import (
    CONFIG_KEY,
    DO,
    NAME,
    TRAIN,
    Entry,
    entries_of,
    for_stages,
    has_stages,
    only,
    repeats_of,
)
from etude.app.stages.told import Composed, Told
from etude.base.config.command import Overrides, parse
from etude.base.config.composing import Layer, Origin, command_layer, file_layers, merged
from etude.base.config.lines import Key
from etude.base.config.loading import validated
from etude.base.config.section import Section
from etude.base.errors import ConfigError
from etude.base.paths import user_path
from etude.tasks.config import STAGES, Config
from etude.tasks.run_config import RunConfig
from etude.tasks.run_files import home_of

RUN = "run"


class _Run(Section):
    """The shared config, as far as it says where the pipeline lies."""

    run: RunConfig = Field(default_factory=RunConfig)  # made anew: its folder follows the current one


def is_pipeline(path: Path | str | None) -> bool:
    """Whether a config file has stages; one that cannot be read has none."""
    if path is None:
        return False
    try:
        return has_stages(file_layers(user_path(path)))
    except ConfigError:
        return False


def load_pipeline(path: Path | str, overrides: Overrides, build: Build) -> Pipeline:
    """Compose and check every stage of a config. Raises ConfigError with what is wrong with any of them."""
    file = user_path(path)
    files, command = file_layers(file), command_layer([*home_of(path), *parse(overrides)])
    entries = written_out(entries_of(file, files, command), repeats_of(files, file))
    return made(for_stages(command, entries), run_of(file, [*files, command]), file, build)


def run_of(path: Path | None, layers: Sequence[Layer]) -> RunConfig:
    """What the shared config says of the run; it is called after its file unless it has a name."""
    run = validated(_Run, merged(_Run, [only(layer, [RUN]) for layer in layers]), path).config.run
    name = run.name or ("pipeline" if path is None else path.stem)
    return run.model_copy(update={"name": name})


def made(entries: Sequence[Entry], run: RunConfig, path: Path | None, build: Build) -> Pipeline:
    """The pipeline of these stages. Raises ConfigError with the problems of all of them."""
    folder = run.dir / run.name
    names = Names(folder, entries)
    nodes = ordered(_nodes([Told(entry, names, build) for entry in entries]))
    check_fit(nodes)
    notes = set(chain.from_iterable(one.loaded.notes for one in _configs(nodes)))
    return Pipeline(folder, nodes, composed(run, nodes), path, run.requeue_signals, sorted(notes))


def _nodes(every: Sequence[Told]) -> list[Node]:
    """Each stage made. Raises ConfigError with the problems of all of them."""
    nodes, problems = [], list[str]()
    for told in every:
        try:
            nodes.append(Node(told, _kind(told.entry)(told)))
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)))
    return nodes


def _configs(nodes: Sequence[Node]) -> Iterator[Composed]:
    """The configs of the stages that have one of their own."""
    return filter(None, (node.made.composed for node in nodes))


def _kind(entry: Entry) -> Kind:
    return own if entry.made is not None else kind_of(entry.do, f'stage "{entry.name}": {DO}', f" ({entry.origin})")


def composed(run: RunConfig, nodes: Sequence[Node]) -> dict[str, Any]:
    """The composed config: what all stages that have a config share, then each stage with what it has of its own."""
    whole = {node.name: _whole(node, run) for node in nodes if node.made.composed is not None}
    shared = _shared(list(whole.values()))
    place: dict[str, Any] = {"name": run.name, "dir": str(run.dir), "seed": run.seed}
    tables = [{"name": node.name, **_own(node, whole.get(node.name, {}), shared)} for node in nodes]
    return {RUN: place, **shared, STAGES: tables}


def _whole(node: Node, run: RunConfig) -> dict[str, Any]:
    """The config of a stage, of whose run only a seed of its own is kept."""
    assert node.made.composed is not None
    named = node.made.composed.named()
    seed = named.pop(RUN)["seed"]
    return named if seed == run.seed else {RUN: {"seed": seed}, **named}


def _shared(configs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The sections that all of these have alike."""
    first = configs[0] if configs else {}
    return {name: part for name, part in first.items() if all(one.get(name) == part for one in configs)}


def _own(node: Node, whole: Mapping[str, Any], shared: Mapping[str, Any]) -> dict[str, Any]:
    """What the table of a stage holds beside its name."""
    written = dict(node.made.written)
    if node.made.composed is not None:
        return written | _own_sections(node, whole, shared)
    if node.do == TRAIN:
        return written
    changes = merged(Config, [Layer(dict(layer.data)) for layer in node.told.entry.layers]).data
    return {**_lacking(changes, written), **written}


def _own_sections(node: Node, whole: Mapping[str, Any], shared: Mapping[str, Any]) -> dict[str, Any]:
    """The sections that a stage does not share; under `config` those whose names its own keys have."""
    own = {name: part for name, part in whole.items() if shared.get(name) != part}
    taken = {name: own.pop(name) for name in node.made.own if name in own}
    return own | ({CONFIG_KEY: taken} if taken else {})


def _lacking(table: Mapping[str, Any], keys: Container[str]) -> dict[str, Any]:
    """A table without these keys."""
    return {key: part for key, part in table.items() if key not in keys}


def origins_of(pipeline: Pipeline) -> dict[Key, Origin]:
    """Where each value of the composed config of a pipeline was given."""
    found: dict[Key, Origin] = {}
    for number, node in enumerate(pipeline.nodes):
        place: Key = (STAGES, number)
        found |= _at(place, _origins_of_table(node))
        if node.made.composed is not None:
            origins = node.made.composed.loaded.origins
            found = {**origins, **found, **_at(place, origins)}
    return found


def _origins_of_table(node: Node) -> dict[Key, Origin]:
    """Where the keys of a stage's table were given, and the table itself."""
    found: dict[Key, Origin] = dict.fromkeys(((), (NAME,), (DO,)), node.told.entry.origin)
    for layer in node.told.entry.layers:
        found |= {key: origin for key, origin in layer.origins.items() if key}
    return found


def _at(place: Key, origins: Mapping[Key, Origin]) -> dict[Key, Origin]:
    """The origins of a table's keys, as those of the config that has it at a place."""
    return {(*place, *key): origin for key, origin in origins.items()}
