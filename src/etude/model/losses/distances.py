"""Losses of numbers beside the squared error: absolute, Huber's, and the concordance correlation coefficient's.

A target that is NaN is not counted by any of them.

Legend: B batch, K targets.
"""

from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor

from etude.base.errors import ConfigError
from etude.model.exact import exact
from etude.model.loss import Loss

ROUNDING = 8
"""Units in the last place by which the mean of one constant may differ from it."""


@final
class MeanAbsoluteError:
    """Absolute error, |x - y|, summed over all elements.

    >>> float(MeanAbsoluteError()(torch.tensor([1.0, 3.0]), torch.tensor([1.0, torch.nan])).value)
    0.0
    """

    def __call__(self, outputs: Tensor, targets: Tensor) -> Loss:
        """Two tensors of one shape."""
        outputs, filled, there = compared(outputs, targets)
        return Loss((outputs - filled).abs().sum(), there.sum())


@final
class Huber:
    """Huber's loss (Huber 1964): squared within `delta` of the target, e^2 / 2; beyond delta (|e| - delta / 2)."""

    def __init__(self, delta: float = 1.0) -> None:
        self.delta = delta

    def __call__(self, outputs: Tensor, targets: Tensor) -> Loss:
        """Two tensors of one shape."""
        outputs, filled, there = compared(outputs, targets)
        return Loss(F.huber_loss(outputs, filled, delta=self.delta, reduction="sum"), there.sum())


@final
class Concordance:
    """1 - ccc, the mean over targets; ccc is the concordance correlation coefficient of a batch (Lin 1989).

    ccc = 2 cov(x, y) / (var x + var y + (mean x - mean y)^2), with moments over the samples of the batch. It is no sum
    over samples: that of a batch is not the mean of its parts', so a step must be one batch. It counts as the number
    of its samples. Where x and y are one constant, or a target has no sample, there is no ccc, and it costs nothing.

    >>> x = torch.tensor([[1.0], [2.0], [3.0]])
    >>> float(Concordance()(x, x).value), round(float(Concordance()(x, 2 * x).value), 4)
    (0.0, 0.6364)
    """

    def __call__(self, outputs_BK: Tensor, targets_BK: Tensor) -> Loss:
        """Two tensors [B, K], or [B]."""
        outputs_BK, filled_BK, there_BK = compared(outputs_BK, targets_BK)
        outputs_BK, filled_BK, there_BK = map(_columns, (outputs_BK, filled_BK, there_BK))
        n_K = there_BK.sum(0).clamp(min=1)
        x_K, y_K = (outputs_BK * there_BK).sum(0) / n_K, (filled_BK * there_BK).sum(0) / n_K
        dx_BK, dy_BK = outputs_BK - x_K, filled_BK - y_K
        covariance_K = (there_BK * dx_BK * dy_BK).sum(0) / n_K
        spread_K = (there_BK * (dx_BK.square() + dy_BK.square())).sum(0) / n_K + (x_K - y_K).square()
        # What rounding leaves of one constant is no spread.
        is_defined_K = spread_K > (ROUNDING * torch.finfo(spread_K.dtype).eps) ** 2 * (x_K.square() + y_K.square())
        ccc_K = 2 * covariance_K / spread_K.where(is_defined_K, 1.0)
        value = (1 - ccc_K).where(is_defined_K, 0.0).sum() / is_defined_K.sum().clamp(min=1)
        return Loss.mean(value, there_BK.any(1).sum())


def _columns(part_BK: Tensor) -> Tensor:
    """Numbers [B] as [B, 1]."""
    return part_BK[:, None] if part_BK.ndim == 1 else part_BK


def compared(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Both in float32, and which targets are there; in the place of others stands the output, without an error.

    Raises ConfigError for shapes that would only be broadcast.
    """
    if outputs.shape != targets.shape:
        raise ConfigError(
            f"A loss of numbers needs outputs and targets of one shape, but got {tuple(outputs.shape)} and "
            f"{tuple(targets.shape)}; reshape one of them."
        )
    there, outputs = ~targets.isnan(), exact(outputs)
    return outputs, torch.where(there, targets.to(outputs.dtype), outputs), there
