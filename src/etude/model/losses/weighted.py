"""Cross entropy with a weight for each class, and of samples that are of several.

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


def shared_cross_entropy(
    logits_BC: Tensor, shares_BC: Tensor, weights_C: Tensor | None = None, *, label_smoothing: float = 0.0
) -> Loss:
    """The cross entropy of samples that are of several classes, whose shares add up to 1: the mean of theirs.

    That is the loss of mixup (Zhang et al. 2018). With weights it is over the sum of the classes' weights by shares.

    >>> loss = shared_cross_entropy(torch.zeros(1, 4), torch.tensor([[0.75, 0.25, 0.0, 0.0]]))
    >>> round(float(loss.value), 4), int(loss.count)
    (1.3863, 1)
    """
    logits_BC = exact(logits_BC)
    shares_BC = shares_BC.to(logits_BC.dtype)
    weights_C = None if weights_C is None else weights_C.to(logits_BC.dtype)
    total = F.cross_entropy(logits_BC, shares_BC, weight=weights_C, label_smoothing=label_smoothing, reduction="sum")
    if weights_C is None:
        return Loss(total, len(shares_BC))
    return Loss(total, (shares_BC @ weights_C).sum(), targets=len(shares_BC))


def balanced_weights(counts_C: Tensor) -> Tensor:
    """Weights [C] by which classes of these sizes count alike: samples / (classes * size), as scikit-learn has it.

    A class without samples has the weight 0.
    """
    occurs_C = counts_C > 0
    weights_C = counts_C.sum().double() / (occurs_C.sum() * counts_C.clamp(min=1).double())
    return torch.where(occurs_C, weights_C, 0.0).float()
