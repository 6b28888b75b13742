"""Metrics of classes, from the confusion matrix, as scikit-learn defines them.

Legend: C classes, B samples.
"""

import math
from collections.abc import Sequence
from typing import Self, final

import torch
from torch import Tensor

from etude.metrics.averages import AVERAGED, PER_LABEL, averaged
from etude.metrics.text import one_line


@final
class ClassMetrics:
    """Metrics of predicted classes, kept as a confusion matrix: merged by adding.

    >>> metrics = ClassMetrics(["ham", "spam"], ["accuracy", "balanced_accuracy"])
    >>> metrics.update(torch.tensor([0, 0, 0, 1]), torch.tensor([0, 0, 1, 1]))
    >>> {name: round(value, 4) for name, value in metrics.compute().items()}
    {'accuracy': 0.75, 'balanced_accuracy': 0.8333}
    """

    def __init__(self, labels: Sequence[str], wanted: Sequence[str]) -> None:
        self._labels, self._wanted = labels, wanted
        self._counts: Tensor = torch.zeros(len(labels) ** 2, dtype=torch.int64)

    @property
    def matrix(self) -> Tensor:
        """How often a true class (row) was predicted as a class (column): [C, C] int64."""
        return self._counts.view(len(self._labels), -1).cpu()

    def update(self, true_B: Tensor, predicted_B: Tensor) -> None:
        """Take in the classes of a batch, and those predicted."""
        cells_B = true_B * len(self._labels) + predicted_B
        self._counts = self._counts.to(cells_B.device).index_add_(0, cells_B, torch.ones_like(cells_B))

    def merge(self, other: Self) -> None:
        """Take in what `other` has seen."""
        self._counts = self._counts + other._counts.to(self._counts.device)

    def compute(self) -> dict[str, float]:
        """What is wanted, by name; NaN where nothing was seen."""
        matrix = self.matrix
        found: dict[str, float] = {}
        for name in self._wanted:
            if name in METRICS:
                found[name] = METRICS[name](matrix)
            elif name in AVERAGED:
                found |= self._averaged(name, matrix)
        return found

    def _averaged(self, name: str, matrix_CC: Tensor) -> dict[str, float]:
        """Precision, recall or F1: of every label, or an average over those that occur or were predicted."""
        counts = matrix_CC.diagonal(), matrix_CC.sum(0), matrix_CC.sum(1)
        if AVERAGED[name].over == PER_LABEL:
            return averaged(name, self._labels, *counts)
        seen_C = counts[1] + counts[2] > 0
        if not seen_C.any():
            return {name: math.nan}
        return averaged(name, self._labels, *(part[seen_C] for part in counts))

    def table(self) -> str:
        """The confusion matrix as a table with tabs: a line of predicted labels, then one for each true label."""
        names = [one_line(label).replace("\t", " ") for label in self._labels]
        rows = [[name, *map(str, counts)] for name, counts in zip(names, self.matrix.tolist(), strict=True)]
        return "".join("\t".join(row) + "\n" for row in [["", *names], *rows])

    def reset(self) -> None:
        """Forget all that was seen."""
        self._counts = torch.zeros_like(self._counts)


def accuracy(matrix_CC: Tensor) -> float:
    """The share of samples whose class was predicted."""
    total = int(matrix_CC.sum())
    return int(matrix_CC.trace()) / total if total else math.nan


def balanced_accuracy(matrix_CC: Tensor) -> float:
    """The mean recall of the classes that occur: unweighted average recall (UAR)."""
    true_C = matrix_CC.sum(1)
    occurs_C = true_C > 0
    return _mean(matrix_CC.diagonal()[occurs_C].double() / true_C[occurs_C])


def _mean(values: Tensor) -> float:
    return float(values.mean()) if len(values) else math.nan


METRICS = {"accuracy": accuracy, "balanced_accuracy": balanced_accuracy}
"""Those that are one number, by their names in `task.metrics`; `AVERAGED` has the others."""
