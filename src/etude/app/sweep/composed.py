"""The config of a trial: that of a run, or of a pipeline with all of its stages."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, final

from etude.app.running import build_job
from etude.app.runs.changes import Change, changes_between
from etude.app.stages.loading import load_pipeline
from etude.app.stages.node import Node
from etude.base.config.command import Override
from etude.base.config.loading import difference
from etude.base.config.writing import toml
from etude.tasks.config import STAGES, LoadedConfig


class Composed(Protocol):
    """The config of a trial, valid as a whole."""

    @property
    def view(self) -> Mapping[str, Any]:
        """Nested tables in which conditions look keys up, and by which changes are seen later."""

    def toml(self) -> str:
        """The config as a file that runs as it is."""

    def changed(self, before: Mapping[str, Any]) -> Iterator[str]:
        """What of it changes numbers and was another, as clauses; `before` is an earlier view."""


@final
class OfRun:
    """The config of one run."""

    def __init__(self, loaded: LoadedConfig) -> None:
        self._loaded = loaded
        self.view = loaded.data

    def toml(self) -> str:
        """Its composed config."""
        return self._loaded.toml()

    def changed(self, before: Mapping[str, Any]) -> Iterator[str]:
        """The keys that change numbers."""
        return _counting(changes_between(before, self.view, type(self._loaded.config)))


@final
class OfStages:
    """The config of a pipeline: sections that all stages share, and in `stage` each stage by name."""

    def __init__(self, path: Path, overrides: list[Override]) -> None:
        self._pipeline = load_pipeline(path, overrides, build_job)
        shared = {key: part for key, part in self._pipeline.config.items() if key != STAGES}
        tables = {str(table["name"]): table for table in self._pipeline.config[STAGES]}
        self._nodes = {node.name: node for node in self._pipeline.nodes}
        self.view = {**shared, STAGES: {name: _whole(node, tables[name]) for name, node in self._nodes.items()}}

    def toml(self) -> str:
        """Its composed config, with its stages."""
        return toml(self._pipeline.config)

    def changed(self, before: Mapping[str, Any]) -> Iterator[str]:
        """The stages that there were not, or are not any more, and the keys of each that change numbers."""
        was, now = before.get(STAGES, {}), self.view[STAGES]
        if was.keys() != now.keys():
            yield f"the stages were {', '.join(was)} and are {', '.join(now)}"
            return
        for name, node in self._nodes.items():
            yield from (f"{STAGES}.{name}.{clause}" for clause in _changed_of(node, was[name], now[name]))


def _whole(node: Node, table: Mapping[str, Any]) -> Mapping[str, Any]:
    """All that a stage is told: its config, or of one without a config its table."""
    return table if node.made.composed is None else node.made.composed.named()


def _changed_of(node: Node, before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    composed = node.made.composed
    if composed is not None:
        return _counting(changes_between(before, now, type(composed.loaded.config)))
    return (f"{key} was {was} and is {is_now}" for key, was, is_now in difference(before, now))


def _counting(changes: Iterable[Change]) -> Iterator[str]:
    """The changes of keys that change numbers."""
    return (str(change) for change in changes if change.meaning.identity != "none")
