"""Losses: what a step minimises, as sums and counts; `etude.losses` has the public ones."""

from etude.model.losses.config import CROSS_ENTROPY, Z_LOSS, ImportedLoss, LossConfig, MeanSquaredErrorConfig
from etude.model.losses.cross_entropy import CrossEntropy, CrossEntropyWithZ, ZLoss
from etude.model.losses.squared_error import MeanSquaredError

__all__ = [
    "CROSS_ENTROPY",
    "Z_LOSS",
    "CrossEntropy",
    "CrossEntropyWithZ",
    "ImportedLoss",
    "LossConfig",
    "MeanSquaredError",
    "MeanSquaredErrorConfig",
    "ZLoss",
]
