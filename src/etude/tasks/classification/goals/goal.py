"""What a goal is to the task: its losses, its metrics, and how outputs of a model are read.

Legend: B batch, K outputs of the model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, final, runtime_checkable

from torch import Tensor, nn

from etude.base.schedules.values import ScheduledValue
from etude.model.exact import exact
from etude.model.loss import Loss, Mean
from etude.model.losses.torchs import Called, LossFunction
from etude.tasks.classification.goals.thresholds import Thresholds
from etude.tasks.parts import Terms, scheduled_values
from etude.train.watch.metrics import Metric


@final
@dataclass(frozen=True, slots=True)
class Answer:
    """What is predicted of one sample."""

    text: str
    """As it is written on a line."""
    score: float
    """The probability of the likeliest label; NaN where numbers are predicted."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """The probability of every label."""
    value: object = None
    """As it stands in an object: a label, labels, a number, or numbers by name."""


NOTHING = Answer("", 0.0, {}, "")
"""What stands for a sample that says nothing, such as a blank text."""


@runtime_checkable
class Goal(Protocol):
    """What is predicted; a module too where it holds tensors."""

    width: int
    """Outputs of the model."""

    def training_loss(self, outputs_BK: Tensor, targets: Tensor) -> Terms:
        """The loss that training minimises."""

    def plain_loss(self, outputs_BK: Tensor, targets: Tensor) -> Terms:
        """The loss that evaluation reports."""

    def kept(self, outputs_BK: Tensor) -> Tensor:
        """What of the outputs is handed on, in float32."""

    def metrics(self) -> dict[str, Metric]:
        """Metrics that have seen nothing."""

    def measure(self, metrics: Mapping[str, Metric], targets: Tensor, kept_BK: Tensor) -> None:
        """Let metrics take in a batch."""

    def columns(self, targets: Tensor, kept_BK: Tensor | None) -> dict[str, Any]:
        """For saved outputs: target, prediction, scores and loss of each sample."""

    def answers(self, kept_BK: Tensor) -> list[Answer]:
        """What is predicted of each sample."""

    def texts(self, targets: Tensor) -> Sequence[str]:
        """The true answer of each sample, on a line."""

    @property
    def thresholds(self) -> Thresholds | None:
        """From which probability on a label is predicted, where that decides."""

    def best_thresholds(self, targets: Tensor, kept_BK: Tensor) -> Mapping[str, float]:
        """Predict from here on by the thresholds that are best for these samples; each by its label."""


class GoalModule(nn.Module):
    """The base of goals: what they hold follows the task to its device, and is no part of its weights."""

    loss: LossFunction
    thresholds: Thresholds | None

    def __init__(self) -> None:
        super().__init__()
        self.thresholds = None

    def scheduled_values(self) -> list[ScheduledValue]:
        """What of the loss follows a schedule."""
        return scheduled_values(self.loss)

    def best_thresholds(self, targets: Tensor, kept_BK: Tensor) -> Mapping[str, float]:
        """None, unless overridden."""
        del targets, kept_BK
        return {}

    def _hold(self, name: str, value: Tensor | None) -> None:
        self.register_buffer(name, value, persistent=False)


def called(loss: LossFunction, outputs_BK: Tensor, targets_BK: Tensor) -> Terms:
    """The terms of any loss of outputs and targets of one shape; one of torch's own counts what it divides by."""
    match Called(loss)(exact(outputs_BK), targets_BK):
        case Tensor() as mean:
            return Loss.mean(mean, len(targets_BK))
        case Mean() as mean:
            return mean.as_loss()
        case value:
            return value
