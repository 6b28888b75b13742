"""Rows of outputs, processed by a function of the user's and measured."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain, count
from math import fsum
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from etude.app.ensemble.averaged import Columns
from etude.app.results.answers import MEASURES
from etude.base.config.fields import located
from etude.base.config.imports import resolve_import
from etude.base.errors import ConfigError
from etude.metrics.classes import ClassMetrics
from etude.metrics.several_labels import LabelMetrics

OF_CLASSES = ("balanced_accuracy", "f1_macro")
OF_SEVERAL = ("subset_accuracy", "f1_micro", "f1_macro")
FLAG = "--process"
LABELS, NUMBERS = ({str}, {int}, {str, int}), ({int}, {float}, {int, float})
"""The types of targets and predictions that are labels, and numbers where several stand in a row."""

Pairs = Sequence[tuple[Any, Any]]
"""Targets and predictions."""


def measured(columns: Mapping[str, Sequence[Any]]) -> dict[str, float]:
    """What predictions are worth beside their targets: losses, and accuracies or errors as their kind has it."""
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    pairs = list(filter(itemgetter(1), map(_told, rows)))
    kinds = set(map(type, chain.from_iterable(map(itemgetter(0), pairs))))
    loss, found = _mean("loss", rows), list(map(itemgetter(0), pairs))
    if kinds == {list}:
        return loss | _of_lists(found)
    if kinds in LABELS:
        return loss | _mean("accuracy", rows) | _of_classes(found)
    return loss | _mean("mse", rows) | _mean("mae", rows)


def _told(row: Mapping[str, Any]) -> tuple[tuple[Any, Any], bool]:
    """The target and the prediction of a row, and whether there is the latter."""
    return (row.get("target"), row.get("prediction")), row.get("prediction") is not None


def _mean(name: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """A metric that is one sum over another; nothing where no sample can be measured."""
    sums = list(filter(None, map(MEASURES[name], rows)))
    below = fsum(map(itemgetter(1), sums))
    return {name: fsum(map(itemgetter(0), sums)) / below} if below else {}


def _of_classes(pairs: Pairs) -> dict[str, float]:
    """Of one label a sample."""
    every = list(map(str, chain.from_iterable(pairs)))
    numbers = dict(zip(sorted(set(every)), count(), strict=False))
    metrics = ClassMetrics(list(numbers), OF_CLASSES)
    metrics.update(*torch.tensor(list(map(numbers.__getitem__, every))).view(-1, 2).T)
    return metrics.compute()


def _of_lists(pairs: Pairs) -> dict[str, float]:
    """Of several labels a sample, or of several numbers the mean squared and absolute error."""
    true, predicted = zip(*pairs, strict=True)
    if set(map(type, chain(*true, *predicted))) in NUMBERS:
        off = np.asarray(predicted, np.float64) - np.asarray(true, np.float64)
        return {"mse": float(np.nanmean(off**2)), "mae": float(np.nanmean(np.abs(off)))}
    labels = sorted(set(map(str, chain(*true, *predicted))))
    metrics = LabelMetrics(labels, OF_SEVERAL)
    metrics.update(_there(true, labels).float(), _there(predicted, labels))
    return metrics.compute()


def _there(rows: Sequence[Sequence[Any]], labels: Sequence[str]) -> Tensor:
    """Which labels each row has, [N, K] bool."""
    return torch.tensor(list(map(partial(_flags, labels), rows)))


def _flags(labels: Sequence[str], row: Sequence[Any]) -> list[bool]:
    return list(map(set(map(str, row)).__contains__, labels))


def processed(columns: Columns, spec: str) -> Columns:
    """The columns that a function by import path makes of these, one value a row in each.

    Raises ConfigError where there is no such function, it fails, or gives something else.
    """
    function = resolve_import(str(located(spec, Path.cwd())), FLAG)
    if not callable(function):
        raise ConfigError(f"{FLAG} {spec} must be a function of columns, but is a {type(function).__name__}.")
    made = _listed(_called(function, columns, spec), spec)
    lengths = dict(zip(made, map(len, made.values()), strict=True))
    if len(set(lengths.values())) != 1:
        told = ", ".join(map("{} {}".format, lengths, lengths.values()))
        raise ConfigError(f"{FLAG} {spec} must return columns that are equally long, but returned {told or 'none'}.")
    return made


def _called(function: Callable[[Columns], object], columns: Columns, spec: str) -> object:
    """What a function makes of columns of its own. Raises ConfigError where it fails."""
    try:
        return function(dict(zip(columns, map(list, columns.values()), strict=True)))
    except Exception as error:
        said = " ".join(str(error).split()) or "no message"
        raise ConfigError(f"{FLAG} {spec} failed: {type(error).__name__}: {said}.") from error


def _listed(made: object, spec: str) -> Columns:
    """What a function has made, as columns. Raises ConfigError where it is something else."""
    if not isinstance(made, Mapping):
        raise ConfigError(f"{FLAG} {spec} must return a mapping of columns, but returned a {type(made).__name__}.")
    try:
        return dict(zip(map(str, made), map(list, made.values()), strict=True))
    except TypeError:
        raise ConfigError(f"{FLAG} {spec} must return columns of one value a row.") from None
