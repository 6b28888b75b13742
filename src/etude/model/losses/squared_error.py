"""The mean squared error."""

from typing import final

from torch import Tensor

from etude.base.errors import ConfigError
from etude.model.exact import exact
from etude.model.loss import Loss
from etude.model.losses.distances import compared


@final
class MeanSquaredError:
    """Squared error, (x - y)^2, summed over all elements.

    >>> import torch
    >>> float(MeanSquaredError()(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 1.0])).value)
    2.0

    With `missing`, a target that is NaN is one that is not there, and is not counted.
    """

    def __init__(self, *, missing: bool = False) -> None:
        self.missing = missing

    def __call__(self, logits: Tensor, targets: Tensor) -> Loss:
        """Two tensors of one shape. Raises ConfigError for two that would only be broadcast."""
        if logits.shape != targets.shape:
            raise ConfigError(
                f"The mean squared error needs outputs and targets of one shape, but got {tuple(logits.shape)} and "
                f"{tuple(targets.shape)}; reshape one of them."
            )
        if self.missing:
            outputs, filled, there = compared(logits, targets)
            return Loss((outputs - filled).square().sum(), there.sum())
        error = exact(logits) - exact(targets)
        return Loss(error.square().sum(), error.numel())
