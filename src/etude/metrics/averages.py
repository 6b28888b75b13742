"""Precision, recall and F1 of labels from counts, and their averages, as scikit-learn defines them.

A value without a denominator is 0, as with `zero_division=0`.

Legend: K labels.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor

PER_LABEL = "per_class"
"""Asks for `f1/LABEL` of every label."""


def precision(both: Tensor, predicted: Tensor, true: Tensor) -> Tensor:
    """The share of what was predicted that is true."""
    del true
    return both.double() / predicted.clamp(min=1)


def recall(both: Tensor, predicted: Tensor, true: Tensor) -> Tensor:
    """The share of what is true that was predicted."""
    del predicted
    return both.double() / true.clamp(min=1)


def f1(both: Tensor, predicted: Tensor, true: Tensor) -> Tensor:
    """The harmonic mean of precision and recall."""
    return 2 * both.double() / (predicted + true).clamp(min=1)


Score = Callable[[Tensor, Tensor, Tensor], Tensor]
SCORES: dict[str, Score] = {"precision": precision, "recall": recall, "f1": f1}


class Average(NamedTuple):
    """A score and how it is averaged over labels."""

    name: str
    over: str


AVERAGED = {
    f"{name}_{over}": Average(name, over) for name in SCORES for over in ("macro", "micro", "weighted", PER_LABEL)
}
"""By their names in `task.metrics`, such as `f1_macro`."""


def averaged(name: str, labels: Sequence[str], both_K: Tensor, predicted_K: Tensor, true_K: Tensor) -> dict[str, float]:
    """A metric of `AVERAGED` from how often each label is right, is predicted, and is true; one or several values."""
    score, over = AVERAGED[name]
    counts = both_K, predicted_K, true_K
    values_K = SCORES[score](*counts)
    if over == PER_LABEL:
        return {f"{score}/{label}": value for label, value in zip(labels, values_K.tolist(), strict=True)}
    return {name: _AVERAGES[over](SCORES[score], values_K, counts)}


def _macro(score: Score, values_K: Tensor, counts: tuple[Tensor, Tensor, Tensor]) -> float:
    del score, counts
    return float(values_K.mean()) if len(values_K) else math.nan


def _micro(score: Score, values_K: Tensor, counts: tuple[Tensor, Tensor, Tensor]) -> float:
    del values_K
    both, predicted, true = (part.sum() for part in counts)
    return float(score(both, predicted, true))


def _weighted(score: Score, values_K: Tensor, counts: tuple[Tensor, Tensor, Tensor]) -> float:
    del score
    true_K = counts[2].double()
    total = float(true_K.sum())
    return float((values_K * true_K).sum()) / total if total else math.nan


_AVERAGES = {"macro": _macro, "micro": _micro, "weighted": _weighted}
