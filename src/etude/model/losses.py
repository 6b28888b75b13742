"""Losses over targets: each returns a sum and a count, computed in float32.

Legend: N targets, M width of the model, V vocabulary.
"""

import re
from functools import partial
from typing import Annotated, Any, Literal, Self, final

import torch
import torch.nn.functional as F
from pydantic import AfterValidator, Field, model_validator
from torch import Tensor

from etude.base.config.components import Imported
from etude.base.config.section import Section
from etude.base.errors import ConfigError
from etude.base.schedules.values import ScheduledValue
from etude.model.fused_loss import linear_cross_entropy, linear_cross_entropy_and_z
from etude.model.loss import Loss
from etude.model.penalties import TermConfig
from etude.model.rates import Rate, Weight, initial, is_constant, loss_weight

CROSS_ENTROPY, Z_LOSS = "cross_entropy", "z_loss"
"""The names of the terms of a cross entropy with a z-loss."""
TAKEN = ("loss", "epoch_loss", CROSS_ENTROPY, Z_LOSS, "learning_rate", "grad_norm", "batch_size", "padding")
"""Names under which something else is logged."""


def _is_a_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII):
        raise ValueError("must be a name of letters, digits and underscores")
    if name in TAKEN:
        raise ValueError(f"must be another name: {name} is logged already")
    return name


class LossSection(Section):
    """What every `[loss]` may have beside its own keys."""

    terms: dict[Annotated[str, AfterValidator(_is_a_name)], TermConfig] = Field(default_factory=dict)
    """Further terms by name, `[loss.terms.NAME]`: l2, l1, or a function of the task by import path."""
    weights: dict[str, Weight] = Field(default_factory=dict)
    """Weights by name for the terms that the task's step returns, in the place of their own."""

    @model_validator(mode="after")
    def _weights_are_of_the_step(self) -> Self:
        for name in self.weights:
            if name in self.terms:
                raise ValueError(f"weights.{name} must be given as terms.{name}.weight, where that term stands")
        return self


class LossConfig(LossSection):
    """`type = "cross_entropy"`: of the true token, in nats."""

    type: Literal["cross_entropy"] = "cross_entropy"
    label_smoothing: Rate = 0.0
    """Share of each target's mass spread over the whole vocabulary, in training only."""
    z_loss: Weight = 0.0
    """Weight of the squared log-partition, averaged over targets, which keeps logits small; PaLM took 1e-4."""


class MeanSquaredErrorConfig(LossSection):
    """`type = "mse"`: squared error, averaged over all elements."""

    type: Literal["mse"] = "mse"


class ImportedLoss(LossSection, Imported):
    """A loss of the user's, by import path, and its own arguments."""


def _wide(value: Tensor) -> Tensor:
    return value if value.dtype == torch.float64 else value.float()


def _scheduled(key: str, spec: Any, loss: object, attribute: str, called: str = "") -> list[ScheduledValue]:
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
        squares = torch.logsumexp(_wide(logits), -1).square()
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


@final
class MeanSquaredError:
    """Squared error, (x - y)^2, summed over all elements.

    >>> float(MeanSquaredError()(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 1.0])).value)
    2.0
    """

    def __call__(self, logits: Tensor, targets: Tensor) -> Loss:
        """Two tensors of one shape. Raises ConfigError for two that would only be broadcast."""
        if logits.shape != targets.shape:
            raise ConfigError(
                f"The mean squared error needs outputs and targets of one shape, but got {tuple(logits.shape)} and "
                f"{tuple(targets.shape)}; reshape one of them."
            )
        error = _wide(logits) - _wide(targets)
        return Loss(error.square().sum(), error.numel())
