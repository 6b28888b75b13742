"""Metrics of scores by their order, exact and as scikit-learn defines them: AUROC and average precision.

Legend: N samples.
"""

import math

import torch
from torch import Tensor


def auroc(scores_N: Tensor, positive_N: Tensor) -> float:
    """The area under the ROC curve: how often a positive sample scores above a negative one, ties counted half.

    NaN where there is no positive sample, or no negative one (Hanley and McNeil 1982).

    >>> auroc(torch.tensor([0.1, 0.4, 0.35, 0.8]), torch.tensor([False, False, True, True]))
    0.75
    """
    positives = int(positive_N.sum())
    negatives = len(positive_N) - positives
    if not positives or not negatives:
        return math.nan
    _, groups_N, sizes = torch.unique(scores_N, return_inverse=True, return_counts=True)
    last = sizes.cumsum(0)
    # Twice the mean rank of each group of equal scores, from 1 on: a whole number, so that the sum is exact.
    twice = 2 * last - sizes + 1
    ranks = int(twice[groups_N][positive_N].sum())
    return (ranks - positives * (positives + 1)) / (2 * positives * negatives)


def average_precision(scores_N: Tensor, positive_N: Tensor) -> float:
    """The mean of precision over recall, sum_n (R_n - R_{n-1}) P_n over the different scores from the highest down.

    NaN where there is no positive sample, which scikit-learn gives 0.

    >>> round(average_precision(torch.tensor([0.1, 0.4, 0.35, 0.8]), torch.tensor([False, False, True, True])), 4)
    0.8333
    """
    positives = int(positive_N.sum())
    if not positives:
        return math.nan
    _, groups_N, sizes = torch.unique(scores_N, return_inverse=True, return_counts=True)
    hits = torch.zeros_like(sizes).index_add_(0, groups_N, positive_N.to(sizes.dtype))
    # From the highest score down: how many samples, and how many positive ones, have at least it.
    taken, found = sizes.flip(0).cumsum(0), hits.flip(0).cumsum(0)
    return float((hits.flip(0).double() * found / taken).sum() / positives)
