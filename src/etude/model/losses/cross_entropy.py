"""Cross entropy and the z-loss beside it, over targets: each returns a sum and a count, computed in float32."""

from functools import partial
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor

from etude.base.schedules.values import ScheduledValue
from etude.model.exact import exact
from etude.model.loss import Loss
from etude.model.losses.config import CROSS_ENTROPY, Z_LOSS, LossConfig
from etude.model.losses.fused import linear_cross_entropy, linear_cross_entropy_and_z
from etude.model.rates import Rate, initial, is_constant, loss_weight


def _scheduled(key: str, spec: Rate, loss: object, attribute: str, called: str = "") -> list[ScheduledValue]:
    """What sets `attribute` of a loss, where the config gives it as a schedule."""
    return [] if is_constant(spec) else [ScheduledValue(key, spec, partial(setattr, loss, attribute), called)]


@final
class CrossEntropy:
    """Cross entropy in nats, summed over the targets that are not `ignore_index`.

    For logits x of target y it is log sum_v exp(x_v) - sum_v q_v x_v. `label_smoothing` s follows torch: q is
    1 - s + s / V for y and s / V for every other token (Szegedy et al. 2016). It may be set between steps.

    >>> loss = CrossEntropy(ignore_index=0)(torch.zeros(2, 3, 4), torch.tensor([[1, 2, 0], [3, 0, 0]]))
    >>> round(float(loss.value), 4), int(loss.count)
    (1.3863, 3)
    """

    def __init__(self, label_smoothing: float = 0.0, ignore_index: int = -100) -> None:
        self.label_smoothing = label_smoothing
        self.ignore_index = ignore_index
        self._scheduled: list[ScheduledValue] = []

    @classmethod
    def of(cls, config: LossConfig, ignore_index: int = -100) -> "CrossEntropy":
        """The loss that a config describes, without its other terms."""
        loss = cls(initial(config.label_smoothing), ignore_index)
        loss._scheduled = _scheduled("loss.label_smoothing", config.label_smoothing, loss, "label_smoothing")
        return loss

    def scheduled_values(self) -> list[ScheduledValue]:
        """The label smoothing, where the config gives it as a schedule."""
        return self._scheduled

    def plain(self) -> "CrossEntropy":
        """What evaluation reports: the same without smoothing."""
        return CrossEntropy(ignore_index=self.ignore_index)

    def __call__(self, logits: Tensor, targets: Tensor, *, count: int | None = None) -> Loss:
        """Logits [..., V], targets [...]; `count`, where known, saves counting on the device."""
        total = F.cross_entropy(
            exact(logits.flatten(0, -2)),
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
class ZLoss:
    """The square of the log-partition, (log sum_v exp(x_v))^2, summed over the targets that are not `ignore_index`.

    It keeps the logits x from drifting away together, which the cross entropy does not see (Chowdhery et al. 2022,
    "PaLM", section 5, with a weight of 1e-4). `weight` may be set between steps.

    >>> loss = ZLoss(ignore_index=0)(torch.zeros(2, 3, 4), torch.tensor([[1, 2, 0], [3, 0, 0]]))
    >>> round(float(loss.value), 4), loss.weight  # the square of log 4
    (1.9218, 0.0001)
    """

    def __init__(self, weight: float = 1e-4, ignore_index: int = -100) -> None:
        self.weight = weight
        self.ignore_index = ignore_index

    def __call__(self, logits: Tensor, targets: Tensor, *, count: int | None = None) -> Loss:
        """Logits [..., V], targets [...], which only tell what counts."""
        counted = targets != self.ignore_index
        squares = torch.logsumexp(exact(logits), -1).square()
        return Loss(squares.where(counted, 0.0).sum(), counted.sum() if count is None else count, self.weight)


@final
class CrossEntropyWithZ:
    """`CrossEntropy` and `ZLoss` together, as the terms `cross_entropy` and `z_loss`.

    `label_smoothing` and `z_loss`, the weight, may be set between steps.

    >>> terms = CrossEntropyWithZ(z_loss=0.5)(torch.zeros(3, 4), torch.tensor([1, 2, 3]))
    >>> {name: (round(float(term.value), 4), term.weight) for name, term in terms.items()}
    {'cross_entropy': (1.3863, 1.0), 'z_loss': (1.9218, 0.5)}
    """

    def __init__(self, label_smoothing: float = 0.0, z_loss: float = 1e-4, ignore_index: int = -100) -> None:
        self.label_smoothing = label_smoothing
        self.z_loss = z_loss
        self.ignore_index = ignore_index
        self._scheduled: list[ScheduledValue] = []

    @classmethod
    def of(cls, config: LossConfig, ignore_index: int = -100) -> "CrossEntropyWithZ":
        """The loss that a config describes, without its other terms."""
        loss = cls(initial(config.label_smoothing), initial(config.z_loss), ignore_index)
        loss._scheduled = _scheduled("loss.label_smoothing", config.label_smoothing, loss, "label_smoothing")
        loss._scheduled += _scheduled("loss.z_loss", config.z_loss, loss, "z_loss", loss_weight(Z_LOSS))
        return loss

    def scheduled_values(self) -> list[ScheduledValue]:
        """Label smoothing and weight, where the config gives them as schedules."""
        return self._scheduled

    def plain(self) -> "CrossEntropyWithZ":
        """What evaluation reports: no smoothing, and the z-loss beside the loss, not in it."""
        return CrossEntropyWithZ(z_loss=0.0, ignore_index=self.ignore_index)

    def __call__(self, logits: Tensor, targets: Tensor, *, count: int | None = None) -> dict[str, Loss]:
        """Logits [..., V], targets [...]; `count`, where known, saves counting on the device."""
        return {
            CROSS_ENTROPY: CrossEntropy(self.label_smoothing, self.ignore_index)(logits, targets, count=count),
            Z_LOSS: ZLoss(self.z_loss, self.ignore_index)(logits, targets, count=count),
        }

    def from_hidden(
        self, hidden: Tensor, weight: Tensor, targets: Tensor, *, count: int | None = None
    ) -> dict[str, Loss]:
        """The same of the logits `hidden @ weight.T`, which are never all held: hidden [..., M], weight [V, M]."""
        total, squares = linear_cross_entropy_and_z(
            hidden.flatten(0, -2),
            weight,
            targets.flatten(),
            label_smoothing=self.label_smoothing,
            ignore_index=self.ignore_index,
        )
        counted = (targets != self.ignore_index).sum() if count is None else count
        return {CROSS_ENTROPY: Loss(total, counted), Z_LOSS: Loss(squares, counted, self.z_loss)}
