"""Cross entropy with a weight for each class.

Legend: B batch, C classes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from etude.model.exact import exact
from etude.model.loss import Loss


def weighted_cross_entropy(
    logits_BC: Tensor, labels_B: Tensor, weights_C: Tensor, *, label_smoothing: float = 0.0
) -> Loss:
    """The cross entropy in nats, over the sum of the labels' weights, as torch has it with `weight`."""
    logits_BC = exact(logits_BC)
    weights_C = weights_C.to(logits_BC.dtype)
    total = F.cross_entropy(logits_BC, labels_B, weight=weights_C, label_smoothing=label_smoothing, reduction="sum")
    return Loss(total, weights_C[labels_B].sum(), targets=len(labels_B))


def balanced_weights(counts_C: Tensor) -> Tensor:
    """Weights [C] by which classes of these sizes count alike: samples / (classes * size), as scikit-learn has it.

    A class without samples has the weight 0.
    """
    occurs_C = counts_C > 0
    weights_C = counts_C.sum().double() / (occurs_C.sum() * counts_C.clamp(min=1).double())
    return torch.where(occurs_C, weights_C, 0.0).float()
