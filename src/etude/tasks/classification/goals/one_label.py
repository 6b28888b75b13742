"""One of several labels.

Legend: B batch, C classes.
"""

from collections.abc import Mapping, Sequence
from typing import Any, final

import torch.nn.functional as F
from torch import Tensor

from etude.metrics.classes import ClassMetrics
from etude.metrics.scores import ClassScores
from etude.metrics.thresholds import f1_thresholds
from etude.model.exact import exact
from etude.model.losses import CrossEntropy
from etude.model.losses.focal import Focal
from etude.model.losses.torchs import LossFunction, plain
from etude.model.losses.weighted import shared_cross_entropy, weighted_cross_entropy
from etude.tasks.classification.goals.goal import Answer, GoalModule
from etude.tasks.classification.goals.thresholds import Thresholds
from etude.tasks.parts import Terms, loss_of
from etude.train.watch.metrics import Metric

NO_LABEL = -100
"""What stands in the place of a label that a loss does not count."""
CLASSES, RANKING = "confusion", "ranking"
"""The names of the metrics that the others are computed from."""


@final
class OneLabelGoal(GoalModule):
    """Cross entropy of the label, or another loss of classes; metrics of the likeliest label.

    `loss` is used in training, with `class_weights` [C] where they are given; evaluation reports the plain cross
    entropy. `thresholds` [1] is the probability from which on the second of two labels is predicted; None takes the
    likeliest.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        labels: Sequence[str],
        metrics: Sequence[str],
        *,
        loss: LossFunction | None = None,
        class_weights: Tensor | None = None,
        thresholds: Thresholds | None = None,
    ) -> None:
        super().__init__()
        self.labels, self.width, self._wanted = tuple(labels), len(labels), tuple(metrics)
        self.loss: LossFunction = loss if loss is not None else CrossEntropy(ignore_index=NO_LABEL)
        self._plain = plain(self.loss)
        self.thresholds = thresholds
        self._hold("class_weights", class_weights)

    def training_loss(self, outputs_BK: Tensor, targets: Tensor) -> Terms:
        """The loss of each label, smoothed and weighted as is asked for; targets may be shares of labels [B, C]."""
        match self.loss, self.class_weights:
            case CrossEntropy(label_smoothing=smoothing), weights if targets.is_floating_point():
                return shared_cross_entropy(outputs_BK, targets, weights, label_smoothing=smoothing)
            case CrossEntropy(label_smoothing=smoothing), Tensor() as weights_C:
                return weighted_cross_entropy(outputs_BK, targets, weights_C, label_smoothing=smoothing)
            case Focal() as focal, weights:
                return focal(outputs_BK, targets, weights)
        return loss_of(self.loss, outputs_BK, targets, len(targets))

    def plain_loss(self, outputs_BK: Tensor, targets: Tensor) -> Terms:
        """The loss without smoothing and weights."""
        return loss_of(self._plain, outputs_BK, targets, len(targets))

    def kept(self, outputs_BK: Tensor) -> Tensor:
        """Log-probabilities [B, C]."""
        return F.log_softmax(exact(outputs_BK), -1)

    def metrics(self) -> dict[str, Metric]:
        """Those of the likeliest label, from one confusion matrix, and those of scores."""
        return {CLASSES: ClassMetrics(self.labels, self._wanted), RANKING: ClassScores(self.labels, self._wanted)}

    def measure(self, metrics: Mapping[str, Metric], targets: Tensor, kept_BK: Tensor) -> None:
        """Let metrics take in a batch."""
        metrics[CLASSES].update(targets, self.chosen(kept_BK))
        metrics[RANKING].update(targets, kept_BK)

    def chosen(self, kept_BC: Tensor) -> Tensor:
        """The number of each sample's label, [B]."""
        if self.thresholds is None:
            return kept_BC.argmax(-1)
        return (kept_BC[:, 1].exp() >= self.thresholds.in_force).long()

    def best_thresholds(self, targets: Tensor, kept_BK: Tensor) -> Mapping[str, float]:
        """The one of the largest F1 of the second label."""
        if self.thresholds is None:
            return {}
        found_1 = f1_thresholds((targets == 1)[:, None], kept_BK[:, 1:].exp())
        self.thresholds.choose(found_1)
        return {self.labels[1]: float(found_1)}

    def columns(self, targets: Tensor, kept_BK: Tensor | None) -> dict[str, Any]:
        """Label, likeliest label, probabilities of all labels in their order, and cross entropy."""
        columns: dict[str, Any] = {"target": self.texts(targets)}
        if kept_BK is None:
            return columns
        losses = F.nll_loss(kept_BK, targets, reduction="none")
        return {**columns, "prediction": self.texts(self.chosen(kept_BK)), "scores": kept_BK.exp(), "loss": losses}

    def answers(self, kept_BK: Tensor) -> list[Answer]:
        """Each sample's label, its probability, and those of all."""
        rows = zip(self.texts(self.chosen(kept_BK)), kept_BK.exp().tolist(), strict=True)
        return [self._answer(label, probabilities) for label, probabilities in rows]

    def _answer(self, label: str, probabilities: Sequence[float]) -> Answer:
        scores = dict(zip(self.labels, probabilities, strict=True))
        return Answer(label, scores[label], scores, label)

    def texts(self, targets: Tensor) -> list[str]:
        """The labels of numbers [B]."""
        return [self.labels[number] for number in targets.tolist()]
