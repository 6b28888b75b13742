"""Numbers.

Legend: B batch, K numbers.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, final

import torch
from torch import Tensor

from etude.metrics.numbers import NumberMetrics, ccc
from etude.model.exact import exact
from etude.model.losses import MeanSquaredError
from etude.model.losses.distances import Concordance
from etude.model.losses.torchs import LossFunction
from etude.tasks.classification.goals.goal import Answer, GoalModule, called
from etude.tasks.parts import Terms
from etude.train.watch.metrics import Metric

NUMBERS = "numbers"
"""The name of the metric that all are computed from."""
DIGITS = 5
"""Of a number, counted from the first of its deviation on."""


@final
class NumbersGoal(GoalModule):
    """A loss of standardised numbers; metrics are of the numbers as they are.

    The model gives (y - mean) / deviation of the training data. A target that is NaN is not counted.
    """

    def __init__(
        self,
        names: Sequence[str],
        metrics: Sequence[str],
        *,
        means: Sequence[float] | None = None,
        deviations: Sequence[float] | None = None,
        loss: LossFunction | None = None,
    ) -> None:
        super().__init__()
        self.names, self.width, self._wanted = tuple(names), len(names), tuple(metrics)
        self.loss: LossFunction = loss if loss is not None else MeanSquaredError(missing=True)
        # No buffers: numbers are made whole on the processor, in float64, which not every device has.
        self._means = torch.tensor(means or [0.0] * self.width, dtype=torch.float64)
        self._deviations = torch.tensor(deviations or [1.0] * self.width, dtype=torch.float64)
        self._digits = [DIGITS - math.floor(math.log10(deviation)) for deviation in self._deviations.tolist()]

    def training_loss(self, outputs_BK: Tensor, targets: Tensor) -> Terms:
        """The loss of every number that is known, standardised."""
        return called(self.loss, outputs_BK, targets)

    def plain_loss(self, outputs_BK: Tensor, targets: Tensor) -> Terms:
        """The same."""
        return self.training_loss(outputs_BK, targets)

    def kept(self, outputs_BK: Tensor) -> Tensor:
        """The outputs, still standardised, [B, K]."""
        return exact(outputs_BK)

    def restored(self, standard_BK: Tensor) -> Tensor:
        """Numbers as they are, of standardised ones: float64, on the processor."""
        return standard_BK.detach().cpu().double() * self._deviations + self._means

    def metrics(self) -> dict[str, Metric]:
        """All from the same moments."""
        loss = _loss_of_all if isinstance(self.loss, Concordance) else None
        return {NUMBERS: NumberMetrics(self.names, self._wanted, loss)}

    def measure(self, metrics: Mapping[str, Metric], targets: Tensor, kept_BK: Tensor) -> None:
        """Let metrics take in a batch."""
        metrics[NUMBERS].update(self.restored(targets), self.restored(kept_BK))

    def columns(self, targets: Tensor, kept_BK: Tensor | None) -> dict[str, Any]:
        """Numbers, those predicted, and the squared error, averaged over numbers; of one alone itself."""
        columns: dict[str, Any] = {"target": self._values(targets)}
        if kept_BK is None:
            return columns
        losses = (self.restored(kept_BK) - self.restored(targets)).square().nanmean(1)
        return {**columns, "prediction": self._values(kept_BK), "loss": losses}

    def answers(self, kept_BK: Tensor) -> list[Answer]:
        """Each sample's numbers."""
        rows = zip(self.texts(kept_BK), self._rounded(kept_BK), strict=True)
        return [Answer(text, math.nan, {}, self._value(row)) for text, row in rows]

    def _value(self, row: Sequence[float]) -> object:
        return row[0] if self.width == 1 else dict(zip(self.names, row, strict=True))

    def texts(self, targets: Tensor) -> list[str]:
        """Standardised numbers as they are, on a line with tabs between."""
        return ["\t".join(f"{value:.15g}" for value in row) for row in self._rounded(targets)]

    def _values(self, standard_BK: Tensor) -> list[Any]:
        rows = self._rounded(standard_BK)
        return [row[0] for row in rows] if self.width == 1 else rows

    def _rounded(self, standard_BK: Tensor) -> list[list[float]]:
        """Numbers as they are, with the digits that float32 has of them."""
        rows = self.restored(standard_BK).tolist()
        return [[round(value, digits) for value, digits in zip(row, self._digits, strict=True)] for row in rows]


def _loss_of_all(moments: Sequence[Tensor]) -> float:
    """1 - ccc of all samples, which the mean over their batches is not; the mean over targets."""
    values = [value for value in map(ccc, moments) if not math.isnan(value)]
    return 1 - sum(values) / len(values) if values else math.nan
