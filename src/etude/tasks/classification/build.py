"""From a config and what a run keeps to a task, whatever its samples are and whatever it predicts of them."""

from typing import Any

from torch import nn

from etude.base.config.components import Imported
from etude.data.store.targets import Targets
from etude.tasks.classification.config import ClassificationConfig, SampleRun
from etude.tasks.classification.goals.build import build_goal, build_sample_loss
from etude.tasks.classification.inputs import SampleProcessor
from etude.tasks.classification.task import ClassificationTask
from etude.tasks.parts import imported, imported_task, initialised, made_model
from etude.train.task import Task


def build_task(config: SampleRun, processor: SampleProcessor) -> Task:
    """The task with its model, initialised from (seed, names) alone; no weights are loaded."""
    model = build_model(config, processor)
    match config.task:
        case ClassificationConfig() as given:
            goal = build_goal(config, given, processor.targets)
            return ClassificationTask(model, goal, reader=processor.reader(), by_group=config.by is not None)
    offered = {"model": model, "loss": build_sample_loss(config), **_offered(processor)}
    return imported_task(config.task, offered)


def build_model(config: SampleRun, processor: SampleProcessor) -> nn.Module:
    """The network, initialised. Raises ConfigError for one that cannot be made."""
    width = len(processor.targets.names)
    match config.model:
        case Imported() as given:
            offered = {**_offered(processor), "outputs": width, "epoch": config.epoch}
            made = made_model(config, lambda: imported(given, offered, "model"), "The model's sizes")
        case _:
            made = made_model(config, lambda: processor.model(config, width), processor.sizes(config))
    return initialised(config, made)


def _offered(processor: SampleProcessor) -> dict[str, Any]:
    targets: Targets = processor.targets
    return {**processor.offered(), "labels": tuple(targets.names), "classes": len(targets.names)}
