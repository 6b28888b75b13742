"""From a config and what samples are labelled with to a goal."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from etude.base.errors import ConfigError
from etude.data.store.targets import Numbers, OneLabel, SeveralLabels, Targets
from etude.metrics.thresholds import HALF
from etude.model.losses import MeanSquaredError, MeanSquaredErrorConfig
from etude.model.losses.binary import BinaryCrossEntropy, BinaryFocal
from etude.model.losses.distances import Concordance, Huber, MeanAbsoluteError
from etude.model.losses.focal import Focal
from etude.model.losses.sample_config import (
    BinaryCrossEntropyConfig,
    ConcordanceConfig,
    FocalConfig,
    HuberConfig,
    MeanAbsoluteErrorConfig,
)
from etude.model.losses.torchs import LossFunction
from etude.model.losses.weighted import balanced_weights
from etude.tasks.classification.config import ClassificationConfig, SampleRun
from etude.tasks.classification.goals.goal import Goal
from etude.tasks.classification.goals.numbers import NumbersGoal
from etude.tasks.classification.goals.one_label import NO_LABEL, OneLabelGoal
from etude.tasks.classification.goals.several_labels import SeveralLabelsGoal
from etude.tasks.classification.goals.thresholds import ChosenThresholds, Thresholds
from etude.tasks.parts import build_loss

BINARY = 2
Table = Mapping[str, float]


def build_goal(config: SampleRun, task: ClassificationConfig, targets: Targets) -> Goal:
    """What is predicted, with its losses and metrics. Raises ConfigError for labels that the data do not have."""
    make: Callable[[SampleRun, ClassificationConfig, Any], Goal] = GOALS[targets.kind]
    return make(config, task, targets)


def build_sample_loss(config: SampleRun) -> LossFunction:
    """The loss of the config."""
    match config.loss:
        case FocalConfig(gamma=gamma, alpha=alpha):
            return BinaryFocal(gamma, alpha) if config.predicts == "labels" else Focal(gamma, NO_LABEL)
        case BinaryCrossEntropyConfig():
            return BinaryCrossEntropy()
        case MeanSquaredErrorConfig():
            return MeanSquaredError(missing=True)
        case MeanAbsoluteErrorConfig():
            return MeanAbsoluteError()
        case HuberConfig(delta=delta):
            return Huber(delta)
        case ConcordanceConfig():
            return Concordance()
    return build_loss(config, ignored=NO_LABEL)


def _one_label(config: SampleRun, task: ClassificationConfig, targets: OneLabel) -> Goal:
    weights = _class_weights(task, targets)
    thresholds = _of_two(task, targets.names)
    loss = build_sample_loss(config)
    return OneLabelGoal(targets.names, task.metrics, loss=loss, class_weights=weights, thresholds=thresholds)


def _class_weights(task: ClassificationConfig, targets: OneLabel) -> Tensor | None:
    match task.class_weights:
        case "balanced":
            return balanced_weights(torch.tensor(targets.counts))
        case dict() as table:
            return _by_label(table, targets.names, "task.class_weights", 1.0)
    return None


def _of_two(task: ClassificationConfig, labels: Sequence[str]) -> Thresholds | None:
    """From which probability on the second of two labels is predicted; None takes the likeliest."""
    match task.thresholds:
        case None:
            return None
        case "f1" if len(labels) == BINARY:
            return ChosenThresholds(1)
        case float() as threshold if len(labels) == BINARY:
            return Thresholds(torch.tensor([threshold]))
        case dict() as table if len(labels) == BINARY:
            return Thresholds(torch.tensor([_one_of_two(table, labels)]))
    raise ConfigError(
        f"task.thresholds is for two labels, or several a sample, but the data have {len(labels)} labels."
    )


def _one_of_two(table: Table, labels: Sequence[str]) -> float:
    first, second = _by_label(table, labels, "task.thresholds", HALF).tolist()
    if len(table) > 1:
        raise ConfigError("task.thresholds of two labels must be that of one of them, since both add up to 1.")
    return float(second) if labels[1] in table else 1 - float(first)


def _several_labels(config: SampleRun, task: ClassificationConfig, targets: SeveralLabels) -> Goal:
    return SeveralLabelsGoal(
        targets.names,
        task.metrics,
        loss=build_sample_loss(config),
        pos_weight=_pos_weight(config, targets),
        thresholds=_of_several(task, targets.names),
        separator=targets.separator or ";",
    )


def _of_several(task: ClassificationConfig, labels: Sequence[str]) -> Thresholds:
    """From which probability on each label is predicted."""
    match task.thresholds:
        case "f1":
            return ChosenThresholds(len(labels))
        case dict() as table:
            return Thresholds(_by_label(table, labels, "task.thresholds", HALF))
        case float() as number:
            return Thresholds(torch.full((len(labels),), number))
    return Thresholds(torch.full((len(labels),), HALF))


def _pos_weight(config: SampleRun, targets: SeveralLabels) -> Tensor | None:
    match config.loss:
        case BinaryCrossEntropyConfig(pos_weight="balanced"):
            counts, known = torch.tensor(targets.counts), torch.tensor(targets.known)
            return (known - counts).clamp(min=1) / counts.clamp(min=1)
        case BinaryCrossEntropyConfig(pos_weight=dict() as table):
            return _by_label(table, targets.names, "loss.pos_weight", 1.0)
        case BinaryCrossEntropyConfig(pos_weight=float() as weight):
            return torch.full((len(targets.names),), weight)
    return None


def _numbers(config: SampleRun, task: ClassificationConfig, targets: Numbers) -> Goal:
    if task.thresholds is not None:
        raise ConfigError("task.thresholds is for labels, but numbers are predicted.")
    loss = build_sample_loss(config)
    return NumbersGoal(targets.names, task.metrics, means=targets.means, deviations=targets.deviations, loss=loss)


def _by_label(table: Table, labels: Sequence[str], key: str, otherwise: float) -> Tensor:
    """A table's number of each label. Raises ConfigError for a label that there is not."""
    other = next((name for name in table if name not in labels), None)
    if other is not None:
        raise ConfigError(f'{key} names the label "{other}", but the data have {", ".join(labels[:10])}.')
    return torch.tensor([table.get(name, otherwise) for name in labels])


GOALS: Mapping[str, Callable[..., Goal]] = {
    OneLabel.kind: _one_label,
    SeveralLabels.kind: _several_labels,
    Numbers.kind: _numbers,
}
"""By the kind of target."""
