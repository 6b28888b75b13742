"""Callbacks around stages that do not train: told where each begins and where it has ended."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from pydantic import Field

from etude.app.build import build_callbacks
from etude.app.stages.node import Node
from etude.app.stages.stage import Artifact
from etude.app.stages.tables import TRAIN, changing, only
from etude.base.config.composing import merged
from etude.base.config.loading import validated
from etude.base.config.section import Section
from etude.base.progress import Progress
from etude.base.says import Say
from etude.tasks.config import CallbackField
from etude.train.watch.callback import RunView, read_only
from etude.train.watch.events import Events, ending_by

CALLBACKS = "callbacks"


class _Watched(Section):
    """Of a config, what watches."""

    callbacks: list[CallbackField] | dict[str, CallbackField] = Field(default_factory=list)


@dataclass
class Watch:
    """A stage that is watched."""

    node: Node
    metrics: dict[str, float] = field(default_factory=dict)
    """What it has measured, once it has ended."""

    def ended(self, artifact: Artifact) -> None:
        """Note what the stage has left."""
        self.metrics.update(artifact.metrics)

    def view(self) -> RunView:
        """What callbacks see: no task, and no step of a training."""
        loaded = self.node.loaded
        config = {} if loaded is None else loaded.data
        return RunView(Progress(), None, read_only(config), read_only(self.metrics), self.node.folder)


@contextmanager
def watched(node: Node, say: Say) -> Iterator[Watch]:
    """Tell the callbacks of the config around a stage; one that trains tells them itself.

    Raises ConfigError for callbacks that there are not.
    """
    watch = Watch(node)
    if node.do == TRAIN and not node.is_own:
        yield watch
        return
    events = Events(_callbacks(node), view=watch.view, say=say)
    with ending_by(events):
        events.stage_start(node.name)
        yield watch
        events.stage_end(node.name)
    if events.requested is not None:
        say(
            f"A callback asked to stop ({events.stop_reason}), but {node.name} does not train: it has ended as it does."
        )


def _callbacks(node: Node) -> list[Any]:
    """The callbacks that the shared config names and, unless the keys of a stage are arguments, its own."""
    entry = node.told.entry
    own = [] if node.is_own else [*chain.from_iterable(changing(layer, ()) for layer in entry.layers)]
    layers = [only(layer, [CALLBACKS]) for layer in (*entry.base, *own, *entry.above)]
    return build_callbacks(validated(_Watched, merged(_Watched, layers), entry.path).config)
