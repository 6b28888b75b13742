"""The mean of the weights of several checkpoints."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import filterfalse
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from etude.base.errors import RefusedError, StorageError
from etude.train.memory.checkpoint import read_weights
from etude.train.memory.fitting import differences


class Mean(NamedTuple):
    """Averaged weights."""

    weights: Mapping[str, Tensor]
    """By name; a weight of two names is one tensor."""
    taken: Sequence[str]
    """What has no mean, such as a count, and differs: it is as the last of the checkpoints has it."""


def mean_of(folders: Sequence[Path]) -> Mean:
    """The mean of the weights that each folder, of one or more, is evaluated with, summed in float64.

    Raises RefusedError where they are not of one model, StorageError where one cannot be read or is not finite.
    """
    total = _Sum(folders[0], _sound(folders[0]))
    for folder in folders[1:]:
        total.add(folder, _sound(folder))
    return total.mean(len(folders))


class _Sum:
    """Weights, added up."""

    def __init__(self, folder: Path, weights: Mapping[str, Tensor]) -> None:
        self._first, self._last = folder, weights
        self._sums = {name: value.to(_wide(value)) for name, value in _averaged(weights)}
        self._taken: set[str] = set()

    def add(self, folder: Path, weights: Mapping[str, Tensor]) -> None:
        """Add those of a folder."""
        if problems := differences(self._last, weights):
            raise RefusedError(f"The weights in {folder} do not fit those in {self._first}: {problems}.")
        self._taken.update(filterfalse(lambda name: self._is_same(name, weights), weights))
        for name, value in _averaged(weights):
            self._sums[name] += value
        self._last = weights

    def mean(self, count: int) -> Mean:
        """What was added, divided."""
        means = {name: (value / count).to(self._last[name].dtype) for name, value in self._sums.items()}
        return Mean(_shared(self._last, means), sorted(self._taken))

    def _is_same(self, name: str, weights: Mapping[str, Tensor]) -> bool:
        """Whether a value has a mean, or needs none."""
        return _has_mean(weights[name]) or weights[name].equal(self._last[name])


def _sound(folder: Path) -> dict[str, Tensor]:
    weights = read_weights(folder, averaged=True)
    for name, value in _averaged(weights):
        if not value.isfinite().all():
            raise StorageError(f"{name} in {folder} is not finite, so it has no mean: leave this checkpoint out.")
    return weights


def _has_mean(value: Tensor) -> bool:
    return value.is_floating_point() or value.is_complex()


def _wide(value: Tensor) -> torch.dtype:
    """What the values are summed in."""
    return torch.complex128 if value.is_complex() else torch.float64


def _averaged(weights: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """What has a mean."""
    return ((name, value) for name, value in _once(weights) if _has_mean(value))


def _once(weights: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Each tensor under the first of its names."""
    seen: set[int] = set()
    for name, value in weights.items():
        if id(value) not in seen:
            seen.add(id(value))
            yield name, value


def _shared(weights: Mapping[str, Tensor], means: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The means, and of what has none the weights, under all names."""
    first = {id(value): name for name, value in reversed(list(weights.items()))}
    return {name: means.get(first[id(value)], value) for name, value in weights.items()}
