"""Losses over targets: each returns a sum and a count, computed in float32.

Legend: N targets, M width of the model, V vocabulary.
"""

from functools import partial
from typing import Any, Literal, final

import torch
import torch.nn.functional as F
from torch import Tensor

from etude.base.config.section import Section
from etude.model.fused_loss import linear_cross_entropy
from etude.model.loss import Loss
from etude.model.rates import Rate, ScheduledValue, initial, is_constant


class LossConfig(Section):
    """`[loss]`."""

    type: Literal["cross_entropy"] = "cross_entropy"
    label_smoothing: Rate = 0.0
    """Share of each target's mass spread over the whole vocabulary, in training only."""


def _wide(value: Tensor) -> Tensor:
    return value if value.dtype == torch.float64 else value.float()


@final
class CrossEntropy:
    """Cross entropy in nats, summed over the targets that are not `ignore_index`.

    `label_smoothing` follows torch: a target has mass 1 - s + s / V, every other token s / V. It may be set
    between steps.

    >>> loss = CrossEntropy(ignore_index=0)(torch.zeros(2, 3, 4), torch.tensor([[1, 2, 0], [3, 0, 0]]))
    >>> round(float(loss.value), 4), int(loss.count)
    (1.3863, 3)
    """

    def __init__(self, label_smoothing: float = 0.0, ignore_index: int = -100) -> None:
        self.label_smoothing = label_smoothing
        self.ignore_index = ignore_index
        self._schedule: Any = None

    @classmethod
    def of(cls, config: LossConfig, ignore_index: int = -100) -> "CrossEntropy":
        """The loss that a config describes."""
        loss = cls(initial(config.label_smoothing), ignore_index)
        loss._schedule = None if is_constant(config.label_smoothing) else config.label_smoothing
        return loss

    def scheduled_values(self) -> list[ScheduledValue]:
        """The label smoothing, where the config gives it as a schedule."""
        if self._schedule is None:
            return []
        return [ScheduledValue("loss.label_smoothing", self._schedule, partial(setattr, self, "label_smoothing"))]

    def __call__(self, logits: Tensor, targets: Tensor, *, count: int | None = None) -> Loss:
        """Logits [..., V], targets [...]; `count`, where known, saves counting on the device."""
        total = F.cross_entropy(
            _wide(logits.flatten(0, -2)),
            targets.flatten(),
            ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing,
            reduction="sum",
        )
        return Loss(total, (targets != self.ignore_index).sum() if count is None else count)

    def from_hidden(self, hidden: Tensor, weight: Tensor, targets: Tensor, *, count: int | None = None) -> Loss:
        """The same of the logits `hidden @ weight.T`, which are never all held: hidden [..., M], weight [V, M]."""
        total = linear_cross_entropy(
            hidden.flatten(0, -2),
            weight,
            targets.flatten(),
            label_smoothing=self.label_smoothing,
            ignore_index=self.ignore_index,
        )
        return Loss(total, (targets != self.ignore_index).sum() if count is None else count)


@final
class MeanSquaredError:
    """Squared error summed over all elements."""

    def __call__(self, logits: Tensor, targets: Tensor) -> Loss:
        """Two tensors of one shape."""
        error = _wide(logits) - _wide(targets)
        return Loss(error.square().sum(), error.numel())
