"""Labels that each are there or not.

Legend: B batch, K labels.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, final

import torch
from torch import Tensor

from etude.metrics.scores import LabelScores
from etude.metrics.several_labels import LabelMetrics
from etude.metrics.thresholds import HALF, f1_thresholds
from etude.model.exact import exact
from etude.model.losses.binary import BinaryCrossEntropy, BinaryFocal, binary_costs
from etude.model.losses.torchs import LossFunction, plain
from etude.tasks.classification.goals.goal import Answer, GoalModule, called
from etude.tasks.classification.goals.one_label import RANKING
from etude.tasks.classification.goals.thresholds import Thresholds
from etude.tasks.parts import Terms
from etude.train.watch.metrics import Metric

LABELS = "labels"
"""The name of the metric that most are computed from."""


@final
class SeveralLabelsGoal(GoalModule):
    """Binary cross entropy of each label, or the focal loss of it; a label is predicted from its threshold on.

    `pos_weight` [K], where given, weighs labels that are there, in training alone. A target that is NaN is not counted.
    """

    pos_weight: Tensor | None
    thresholds: Thresholds

    def __init__(
        self,
        labels: Sequence[str],
        metrics: Sequence[str],
        *,
        loss: LossFunction | None = None,
        pos_weight: Tensor | None = None,
        thresholds: Thresholds | None = None,
        separator: str = ";",
    ) -> None:
        super().__init__()
        self.labels, self.width, self._wanted = tuple(labels), len(labels), tuple(metrics)
        self.loss: LossFunction = loss if loss is not None else BinaryCrossEntropy()
        self._plain = plain(self.loss)
        self._separator = separator
        self._hold("pos_weight", pos_weight)
        self.thresholds = thresholds or Thresholds(torch.full((len(labels),), HALF))

    def training_loss(self, outputs_BK: Tensor, targets: Tensor) -> Terms:
        """The loss of every label that is known."""
        match self.loss:
            case BinaryCrossEntropy() | BinaryFocal() as own:
                return own(outputs_BK, targets, self.pos_weight)
        return called(self.loss, outputs_BK, targets)

    def plain_loss(self, outputs_BK: Tensor, targets: Tensor) -> Terms:
        """The binary cross entropy."""
        return called(self._plain, outputs_BK, targets)

    def kept(self, outputs_BK: Tensor) -> Tensor:
        """Logits [B, K]: probabilities would be 1 of much that differs."""
        return exact(outputs_BK)

    def metrics(self) -> dict[str, Metric]:
        """Those of predicted labels, and those of scores."""
        return {LABELS: LabelMetrics(self.labels, self._wanted), RANKING: LabelScores(self.labels, self._wanted)}

    def measure(self, metrics: Mapping[str, Metric], targets: Tensor, kept_BK: Tensor) -> None:
        """Let metrics take in a batch."""
        metrics[LABELS].update(targets, self.chosen(kept_BK))
        metrics[RANKING].update(targets, kept_BK)

    def chosen(self, kept_BK: Tensor) -> Tensor:
        """Which labels are predicted, [B, K] bool."""
        return kept_BK.sigmoid() >= self.thresholds.in_force

    def best_thresholds(self, targets: Tensor, kept_BK: Tensor) -> Mapping[str, float]:
        """Those of the largest F1."""
        found_K = f1_thresholds(targets, kept_BK.sigmoid())
        self.thresholds.choose(found_K)
        return dict(zip(self.labels, found_K.tolist(), strict=True))

    def columns(self, targets: Tensor, kept_BK: Tensor | None) -> dict[str, Any]:
        """Labels that are there, those predicted, probabilities of all in their order, and the mean loss of a label."""
        columns: dict[str, Any] = {"target": self._named(targets > 0)}
        if kept_BK is None:
            return columns
        costs_BK, there_BK = binary_costs(kept_BK, targets)
        losses = costs_BK.where(there_BK, 0.0).sum(1) / there_BK.sum(1).clamp(min=1)
        found = {"prediction": self._named(self.chosen(kept_BK)), "scores": kept_BK.sigmoid(), "loss": losses}
        return {**columns, **found}

    def answers(self, kept_BK: Tensor) -> list[Answer]:
        """Each sample's labels, and the probabilities of all."""
        rows = zip(self._named(self.chosen(kept_BK)), kept_BK.sigmoid().tolist(), strict=True)
        return [self._answer(labels, probabilities) for labels, probabilities in rows]

    def _answer(self, labels: list[str], probabilities: Sequence[float]) -> Answer:
        scores = dict(zip(self.labels, probabilities, strict=True))
        least = min((scores[label] for label in labels), default=math.nan)
        return Answer(self._separator.join(labels), least, scores, labels)

    def texts(self, targets: Tensor) -> list[str]:
        """The labels that are there, on a line."""
        return [self._separator.join(labels) for labels in self._named(targets > 0)]

    def _named(self, there_BK: Tensor) -> list[list[str]]:
        return [[name for name, there in zip(self.labels, row, strict=True) if there] for row in there_BK.tolist()]
