"""Metrics of groups of samples: `NAME/by/GROUP` of each group that occurs.

Legend: B batch.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Self, final

import torch
from torch import Tensor

from etude.metrics.text import one_line
from etude.train.watch.metrics import Metric, computed

Metrics = Mapping[str, Metric]
BY_GROUP: Final = "by"
"""The name among a task's metrics of those of groups."""
EMPTY = "(none)"
"""What a group is called whose samples have nothing where the others have its name."""


@final
class ByGroup:
    """The metrics that `make` gives, of each group apart; `measure` lets them take in columns of a batch."""

    def __init__(self, make: Callable[[], Metrics], measure: Callable[..., None]) -> None:
        self._make, self._measure = make, measure
        self._groups: dict[str, Metrics] = {}

    def update(self, groups: Sequence[str], *columns: Tensor | Sequence[Any]) -> None:
        """Take in a batch: [B] groups, and columns of it whose first dimension is B."""
        for group in sorted(set(groups)):
            places = [place for place, one in enumerate(groups) if one == group]
            self._measure(self._of(group), *(_rows(column, places) for column in columns))

    def merge(self, other: Self) -> None:
        """Take in what `other` has seen."""
        for group, metrics in other._groups.items():
            held = self._of(group)
            for name, metric in metrics.items():
                held[name].merge(metric)

    def compute(self) -> dict[str, float]:
        """Each group's values, by name."""
        found: dict[str, float] = {}
        for group, metrics in sorted(self._groups.items()):
            called = one_line(group) or EMPTY
            found |= {f"{name}/by/{called}": value for name, value in computed(metrics).items()}
        return found

    def reset(self) -> None:
        """Forget all that was seen."""
        self._groups = {}

    def _of(self, group: str) -> Metrics:
        if group not in self._groups:
            self._groups[group] = self._make()
        return self._groups[group]


def _rows(column: Tensor | Sequence[Any], places: list[int]) -> Tensor | list[Any]:
    if isinstance(column, Tensor):
        return column[torch.tensor(places, device=column.device)]
    return [column[place] for place in places]
