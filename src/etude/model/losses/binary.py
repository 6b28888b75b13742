"""Losses of labels that each are there or not: binary cross entropy, and the focal loss of it.

Legend: B batch, K labels.
"""

from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor

from etude.model.exact import exact
from etude.model.loss import Loss


@final
class BinaryCrossEntropy:
    """Binary cross entropy in nats, summed over samples and labels; a target that is NaN is not counted.

    `weights` [K], where given, multiply what a label costs where it is there, as torch's `pos_weight` does; the count
    stays the number of targets.

    >>> loss = BinaryCrossEntropy()(torch.zeros(1, 3), torch.tensor([[1.0, 0.0, torch.nan]]))
    >>> round(float(loss.value), 4), int(loss.count)
    (0.6931, 2)
    """

    def plain(self) -> "BinaryCrossEntropy":
        """What evaluation reports: the same, whose caller gives no weights."""
        return self

    def __call__(self, logits_BK: Tensor, targets_BK: Tensor, weights_K: Tensor | None = None) -> Loss:
        """Logits and targets of one shape; targets are 0, 1, a probability, or NaN."""
        costs_BK, there_BK = binary_costs(logits_BK, targets_BK, weights_K)
        return Loss(costs_BK.where(there_BK, 0.0).sum(), there_BK.sum())


@final
class BinaryFocal:
    """The focal loss of labels that each are there or not (Lin et al. 2017), summed over samples and labels.

    (1 - p)^gamma times the binary cross entropy, where p is the probability of what is true; with gamma 0 it is that.
    `alpha`, where given, weighs labels that are there, and 1 - alpha those that are not.
    """

    def __init__(self, gamma: float = 2.0, alpha: float | None = None) -> None:
        self.gamma, self.alpha = gamma, alpha

    def plain(self) -> BinaryCrossEntropy:
        """What evaluation reports: the binary cross entropy."""
        return BinaryCrossEntropy()

    def __call__(self, logits_BK: Tensor, targets_BK: Tensor, weights_K: Tensor | None = None) -> Loss:
        """As `BinaryCrossEntropy`; targets are 0, 1 or NaN."""
        costs_BK, there_BK = binary_costs(logits_BK, targets_BK, weights_K)
        signs_BK = 1 - 2 * targets_BK.where(there_BK, 0.0).to(costs_BK.dtype)
        # The probability of what is not true is sigmoid(-x) for a label that is there, sigmoid(x) for one that is not.
        others_BK = torch.sigmoid(exact(logits_BK) * signs_BK)
        # Never 0, whose power would have no gradient.
        costs_BK = costs_BK * others_BK.clamp(min=torch.finfo(others_BK.dtype).tiny).pow(self.gamma)
        if self.alpha is not None:
            costs_BK = costs_BK * torch.where(signs_BK < 0, self.alpha, 1 - self.alpha)
        return Loss(costs_BK.where(there_BK, 0.0).sum(), there_BK.sum())


def binary_costs(logits_BK: Tensor, targets_BK: Tensor, weights_K: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The binary cross entropy of each target [B, K], and which targets are there; of others the cost is any number."""
    there_BK = ~targets_BK.isnan()
    logits_BK = exact(logits_BK)
    filled_BK = targets_BK.where(there_BK, 0.0).to(logits_BK.dtype)
    weights_K = None if weights_K is None else weights_K.to(logits_BK.dtype)
    costs_BK = F.binary_cross_entropy_with_logits(logits_BK, filled_BK, pos_weight=weights_K, reduction="none")
    return costs_BK, there_BK
