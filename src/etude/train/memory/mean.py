"""The mean of the weights of several checkpoints."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import filterfalse
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from etude.base.errors import RefusedError, StorageError
from etude.train.memory.checkpoint import read_weights

SHOWN = 3
"""Differences that are named."""


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
    sums: dict[str, Tensor] = {}
    last: dict[str, Tensor] = {}
    taken: set[str] = set()
    for folder in folders:
        weights = _sound(folder)
        if last:
            _check_alike(last, weights, folders[0], folder)
        taken.update(name for name, value in last.items() if not _has_mean(value) and not value.equal(weights[name]))
        for name, value in _once(weights):
            if _has_mean(value):
                sums[name] = sums.get(name, 0) + value.to(_wide(value))
        last = weights
    return Mean(_shared(last, {name: (sums[name] / len(folders)).to(last[name].dtype) for name in sums}), sorted(taken))


def _sound(folder: Path) -> dict[str, Tensor]:
    weights = read_weights(folder, averaged=True)
    for name, value in _once(weights):
        if _has_mean(value) and not value.isfinite().all():
            raise StorageError(f"{name} in {folder} is not finite, so it has no mean: leave this checkpoint out.")
    return weights


def _has_mean(value: Tensor) -> bool:
    return value.is_floating_point() or value.is_complex()


def _wide(value: Tensor) -> torch.dtype:
    """What the values are summed in."""
    return torch.complex128 if value.is_complex() else torch.float64


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


def _check_alike(one: Mapping[str, Tensor], other: Mapping[str, Tensor], first: Path, second: Path) -> None:
    """Raise RefusedError for the weights of another model."""
    differences = list(_differences(one, other))
    if differences:
        more = f", and {len(differences) - SHOWN} more" if len(differences) > SHOWN else ""
        raise RefusedError(f"{first} and {second} are not of one model: {'; '.join(differences[:SHOWN])}{more}.")


def _differences(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> Iterator[str]:
    yield from map("only the first has {}".format, filterfalse(other.__contains__, one))
    yield from map("only the second has {}".format, filterfalse(one.__contains__, other))
    for name in filter(other.__contains__, one):
        shapes = [tuple(held[name].shape) for held in (one, other)]
        if shapes[0] != shapes[1]:
            yield f"{name} has shape {shapes[0]} and {shapes[1]}"
