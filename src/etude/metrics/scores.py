"""Metrics of classes and of several labels by the order of their scores, merged over batches and ranks.

Every score is kept until `compute`, so that the values are exact: 4 bytes a sample and class.

Legend: B batch, N samples, C classes, K labels.
"""

import math
from collections.abc import Callable, Sequence
from typing import Self, final

import torch
from torch import Tensor

from etude.metrics.ranking import auroc, average_precision

RANKING: dict[str, Callable[[Tensor, Tensor], float]] = {"auroc": auroc, "average_precision": average_precision}
BINARY = 2


class _Kept:
    """Scores and targets of all samples."""

    def __init__(self, labels: Sequence[str], wanted: Sequence[str]) -> None:
        self._labels, self._wanted = labels, [name for name in RANKING if name in wanted]
        self._parts: list[tuple[Tensor, Tensor]] = []

    def update(self, targets: Tensor, scores: Tensor) -> None:
        """Take in the targets of a batch, and its scores; the highest is the likeliest."""
        if self._wanted:
            self._parts.append((targets.detach(), scores.detach()))

    def merge(self, other: Self) -> None:
        """Take in what `other` has seen."""
        self._parts += other._parts

    def reset(self) -> None:
        """Forget all that was seen."""
        self._parts = []

    def _all(self) -> tuple[Tensor, Tensor]:
        targets, scores = zip(*self._parts, strict=True)
        return torch.cat([part.cpu() for part in targets]), torch.cat([part.cpu() for part in scores])

    def compute(self) -> dict[str, float]:
        """What is wanted, by name; NaN where it is not defined."""
        if not self._parts:
            return dict.fromkeys(self._wanted, math.nan)
        targets, scores = self._all()
        return {name: self._value(RANKING[name], targets, scores) for name in self._wanted}

    def _value(self, ranked: Callable[[Tensor, Tensor], float], targets: Tensor, scores: Tensor) -> float:
        raise NotImplementedError


@final
class ClassScores(_Kept):
    """AUROC and average precision of classes: of the second of two, or the mean of each against the rest.

    A class without a sample, or with all of them, is no part of the mean.
    """

    def _value(self, ranked: Callable[[Tensor, Tensor], float], targets: Tensor, scores: Tensor) -> float:
        classes = range(len(self._labels))
        chosen = classes[1:] if len(classes) == BINARY else classes
        return mean([ranked(scores[:, number], targets == number) for number in chosen])


@final
class LabelScores(_Kept):
    """AUROC and average precision of labels that each are there or not: the mean over them.

    A label without a sample, or with all of them, is no part of the mean; nor is a target that is NaN.
    """

    def _value(self, ranked: Callable[[Tensor, Tensor], float], targets: Tensor, scores: Tensor) -> float:
        values = []
        for target_N, score_N in zip(targets.unbind(1), scores.unbind(1), strict=True):
            there_N = ~target_N.isnan()
            values.append(ranked(score_N[there_N], target_N[there_N] > 0))
        return mean(values)


def mean(values: Sequence[float]) -> float:
    """The mean of those that are numbers; NaN where none is."""
    numbers = [value for value in values if not math.isnan(value)]
    return sum(numbers) / len(numbers) if numbers else math.nan
