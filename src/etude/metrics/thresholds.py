"""Decision thresholds that make F1 largest.

Legend: N samples, K labels, S different scores.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Self, final

import torch
from torch import Tensor

HALF = 0.5
Part = tuple[Tensor, Tensor, Sequence[str]]
"""Targets of some samples, what a model gives of them, and their groups; without groups nothing."""


@final
class ThresholdSearch:
    """Hands samples on to other metrics when all of them have been seen, once `choose` has taken their thresholds.

    It is computed before the others, and gives `threshold/LABEL`. `choose` gives the threshold of each label.
    """

    def __init__(
        self,
        choose: Callable[[Tensor, Tensor], Mapping[str, float]],
        measure: Callable[[Tensor, Tensor, Sequence[str]], None],
    ) -> None:
        self._choose, self._measure = choose, measure
        self._parts: list[Part] = []

    def update(self, targets: Tensor, outputs: Tensor, groups: Sequence[str] = ()) -> None:
        """Take in a batch."""
        self._parts.append((targets.detach(), outputs.detach(), groups))

    def merge(self, other: Self) -> None:
        """Take in what `other` has seen."""
        self._parts += other._parts

    def reset(self) -> None:
        """Forget all that was seen."""
        self._parts = []

    def compute(self) -> dict[str, float]:
        """Choose, let the others measure, and tell what was chosen."""
        if not self._parts:
            return {}
        targets, outputs, _ = zip(*self._parts, strict=True)
        found = self._choose(torch.cat(targets), torch.cat(outputs))
        for part in self._parts:
            self._measure(*part)
        return {f"threshold/{label}": value for label, value in found.items()}


def f1_thresholds(true_NK: Tensor, scores_NK: Tensor) -> Tensor:
    """For each label the probability from which on predicting it gives the largest F1, [K] float32.

    A target is above 0 where the label is there, and is not counted where it is NaN. A threshold lies midway between
    two scores; of several that are as good it is the one nearest to 0.5. Without a sample that has the label it is 0.5.

    >>> f1_thresholds(torch.tensor([[0], [1], [0], [1]]), torch.tensor([[0.1], [0.2], [0.6], [0.9]]))
    tensor([0.1500])
    """
    labels = zip(true_NK.double().cpu().unbind(1), scores_NK.float().cpu().unbind(1), strict=True)
    return torch.stack([_threshold(true_N, score_N) for true_N, score_N in labels])


def _threshold(true_N: Tensor, score_N: Tensor) -> Tensor:
    known_N = ~(true_N.isnan() | score_N.isnan())
    true_N = true_N[known_N] > 0
    if not true_N.any():
        return torch.tensor(HALF)
    scores_S, places_N, sizes_S = torch.unique(score_N[known_N], return_inverse=True, return_counts=True)
    hits_S = torch.zeros_like(sizes_S).index_add_(0, places_N, true_N.long())
    # Of each score, how many samples have at least it, and how many of them the label.
    predicted_S, found_S = (part.flip(0).cumsum(0).flip(0) for part in (sizes_S, hits_S))
    f1_S = 2 * found_S.double() / (predicted_S + true_N.sum())
    best = _between(scores_S)[f1_S == f1_S.max()]
    return best[(best - HALF).abs().argmin()]


def _between(scores_S: Tensor) -> Tensor:
    """Midway between each score, in rising order, and the one below it, or 0; never as low as that one."""
    below_S = torch.cat([scores_S.new_zeros(1), scores_S[:-1]])
    middle_S = ((below_S.double() + scores_S.double()) / 2).float()
    # Between two neighbours in float32 there is no number, and the midpoint may round down.
    return middle_S.where(middle_S > below_S, scores_S)
