"""The losses, by their public name: `etude.losses.CrossEntropy`."""

from etude.model.loss import Loss
from etude.model.losses import CrossEntropy, MeanSquaredError

__all__ = ["CrossEntropy", "Loss", "MeanSquaredError"]
