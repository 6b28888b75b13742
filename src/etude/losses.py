"""The losses, by their public name: `etude.losses.CrossEntropy`."""

from etude.model.loss import Loss
from etude.model.losses import CrossEntropy, CrossEntropyWithZ, MeanSquaredError, ZLoss
from etude.model.losses.penalties import l1, l2

__all__ = ["CrossEntropy", "CrossEntropyWithZ", "Loss", "MeanSquaredError", "ZLoss", "l1", "l2"]
