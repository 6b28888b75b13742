"""Metrics of labels that each are there or not, as scikit-learn defines them for multi-label data.

Legend: B batch, K labels.
"""

import math
from collections.abc import Callable, Sequence
from typing import Self, final

import torch
from torch import Tensor

from etude.metrics.averages import AVERAGED, averaged


@final
class LabelMetrics:
    """Metrics of labels that were predicted or not, from counts: merged by adding.

    A target that is NaN is not counted; a sample with one is no part of the subset accuracy.

    >>> metrics = LabelMetrics(["red", "round"], ["subset_accuracy", "hamming_loss", "f1_micro"])
    >>> true = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    >>> metrics.update(true, torch.tensor([[True, False], [True, False]]))
    >>> {name: round(value, 4) for name, value in metrics.compute().items()}
    {'subset_accuracy': 0.5, 'hamming_loss': 0.25, 'f1_micro': 0.8}
    """

    def __init__(self, labels: Sequence[str], wanted: Sequence[str]) -> None:
        self._labels, self._wanted = labels, wanted
        self._counts_4K = torch.zeros(4, len(labels), dtype=torch.int64)
        self._whole_2 = torch.zeros(2, dtype=torch.int64)
        """Samples of which every target is known, and those of them that are right."""

    def update(self, true_BK: Tensor, predicted_BK: Tensor) -> None:
        """Take in the targets of a batch (0, 1 or NaN), and which labels were predicted."""
        there_BK, is_true_BK = ~true_BK.isnan(), true_BK > 0
        right_BK = predicted_BK == is_true_BK
        whole_B = there_BK.all(1)
        counts = [
            (is_true_BK & predicted_BK & there_BK).sum(0),
            (predicted_BK & there_BK).sum(0),
            (is_true_BK & there_BK).sum(0),
            there_BK.sum(0),
        ]
        self._counts_4K = self._counts_4K.to(true_BK.device) + torch.stack(counts)
        seen = torch.stack([whole_B.sum(), (whole_B & right_BK.all(1)).sum()])
        self._whole_2 = self._whole_2.to(true_BK.device) + seen

    def merge(self, other: Self) -> None:
        """Take in what `other` has seen."""
        self._counts_4K = self._counts_4K + other._counts_4K.to(self._counts_4K.device)
        self._whole_2 = self._whole_2 + other._whole_2.to(self._whole_2.device)

    def reset(self) -> None:
        """Forget all that was seen."""
        self._counts_4K = torch.zeros_like(self._counts_4K)
        self._whole_2 = torch.zeros_like(self._whole_2)

    def compute(self) -> dict[str, float]:
        """What is wanted, by name; NaN where nothing was seen."""
        counts_4K, whole_2 = self._counts_4K.cpu(), self._whole_2.cpu()
        found: dict[str, float] = {}
        for name in self._wanted:
            if name in WHOLE:
                found[name] = WHOLE[name](counts_4K, whole_2)
            elif name in AVERAGED:
                found |= averaged(name, self._labels, *counts_4K[:3])
        return found

    def table(self) -> str:
        """How often each label is there and is predicted, as a table with tabs."""
        rows = [["label", "true", "predicted", "both", "samples"]]
        hits, predicted, true, samples = self._counts_4K.tolist()
        rows += [[*map(str, row)] for row in zip(self._labels, true, predicted, hits, samples, strict=True)]
        return "".join("\t".join(row) + "\n" for row in rows)


def subset_accuracy(counts_4K: Tensor, whole_2: Tensor) -> float:
    """The share of samples of which every label is right; scikit-learn's `accuracy_score`."""
    del counts_4K
    seen, right = whole_2.tolist()
    return right / seen if seen else math.nan


def hamming_loss(counts_4K: Tensor, whole_2: Tensor) -> float:
    """The share of labels that are wrong."""
    del whole_2
    both, predicted, true, seen = counts_4K.sum(1).tolist()
    return (predicted + true - 2 * both) / seen if seen else math.nan


WHOLE: dict[str, Callable[[Tensor, Tensor], float]] = {
    "subset_accuracy": subset_accuracy,
    "hamming_loss": hamming_loss,
}
"""Those of all labels together, by their names in `task.metrics`."""
