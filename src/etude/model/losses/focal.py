"""The focal loss of classes.

Legend: B batch, C classes.
"""

from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor

from etude.model.exact import exact
from etude.model.loss import Loss
from etude.model.losses.cross_entropy import CrossEntropy


@final
class Focal:
    """(1 - p)^gamma times the cross entropy -log p of the true class (Lin et al. 2017), summed over the samples.

    With gamma 0 it is the cross entropy. Class weights [C], where given, multiply it, and the count is their sum.

    >>> round(float(Focal(gamma=2.0)(torch.zeros(1, 2), torch.tensor([0])).value), 4)  # a quarter of log 2
    0.1733
    """

    def __init__(self, gamma: float = 2.0, ignore_index: int = -100) -> None:
        self.gamma, self.ignore_index = gamma, ignore_index

    def plain(self) -> CrossEntropy:
        """What evaluation reports: the cross entropy."""
        return CrossEntropy(ignore_index=self.ignore_index)

    def __call__(self, logits_BC: Tensor, labels_B: Tensor, weights_C: Tensor | None = None) -> Loss:
        """Logits [B, C], labels [B]; one that is `ignore_index` counts for nothing."""
        counted_B = labels_B != self.ignore_index
        logs_BC = F.log_softmax(exact(logits_BC), -1)
        places_B = labels_B.where(counted_B, 0)
        log_B = logs_BC.gather(-1, places_B[:, None])[:, 0]
        weights_B = counted_B.to(log_B.dtype)
        if weights_C is not None:
            weights_B = weights_B * weights_C.to(log_B.dtype)[places_B]
        # 1 - p by expm1 keeps its digits where p is near 1; never below 0, whose power would have no gradient.
        others_B = (-torch.expm1(log_B)).clamp(min=torch.finfo(log_B.dtype).tiny)
        total = -(weights_B * others_B.pow(self.gamma) * log_B).sum()
        return Loss(total, weights_B.sum(), targets=counted_B.sum())
