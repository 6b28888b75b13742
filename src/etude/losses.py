"""The losses, by their public name: `etude.losses.CrossEntropy`."""

from etude.model.loss import Loss
from etude.model.losses import CrossEntropy, CrossEntropyWithZ, MeanSquaredError, ZLoss
from etude.model.losses.binary import BinaryCrossEntropy, BinaryFocal
from etude.model.losses.distances import Concordance, Huber, MeanAbsoluteError
from etude.model.losses.focal import Focal
from etude.model.losses.penalties import l1, l2

__all__ = [
    "BinaryCrossEntropy",
    "BinaryFocal",
    "Concordance",
    "CrossEntropy",
    "CrossEntropyWithZ",
    "Focal",
    "Huber",
    "Loss",
    "MeanAbsoluteError",
    "MeanSquaredError",
    "ZLoss",
    "l1",
    "l2",
]
