"""Rows of outputs, processed by a function of the user's and measured."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

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


def measured(columns: Mapping[str, Sequence[Any]]) -> dict[str, float]:
    """What predictions are worth beside their targets: losses, and accuracies or errors as their kind has it."""
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    pairs = [(row.get("target"), row.get("prediction")) for row in rows if row.get("prediction") is not None]
    if pairs and all(isinstance(part, list) for pair in pairs for part in pair):
        return _mean("loss", rows) | _of_lists(pairs)
    if pairs and all(isinstance(part, str | int) and not isinstance(part, bool) for pair in pairs for part in pair):
        return _mean("loss", rows) | _mean("accuracy", rows) | _of_classes(pairs)
    return _mean("loss", rows) | _mean("mse", rows) | _mean("mae", rows)


def _mean(name: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """A metric that is one sum over another; nothing where no sample can be measured."""
    sums = list(filter(None, map(MEASURES[name], rows)))
    below = math.fsum(pair[1] for pair in sums)
    return {name: math.fsum(pair[0] for pair in sums) / below} if below else {}


def _of_classes(pairs: Sequence[tuple[Any, Any]]) -> dict[str, float]:
    labels = sorted({str(part) for pair in pairs for part in pair})
    numbers = {label: number for number, label in enumerate(labels)}
    metrics = ClassMetrics(labels, OF_CLASSES)
    true_N, predicted_N = torch.tensor([[numbers[str(part)] for part in pair] for pair in pairs]).T
    metrics.update(true_N, predicted_N)
    return metrics.compute()


def _of_lists(pairs: Sequence[tuple[Any, Any]]) -> dict[str, float]:
    """Of several labels a sample, or of several numbers the mean squared and absolute error."""
    if all(isinstance(part, float | int) for pair in pairs for side in pair for part in side) and any(map(any, pairs)):
        off = np.asarray([two for _, two in pairs], np.float64) - np.asarray([one for one, _ in pairs], np.float64)
        return {"mse": float(np.nanmean(off**2)), "mae": float(np.nanmean(np.abs(off)))}
    labels = sorted({str(part) for pair in pairs for side in pair for part in side})
    metrics = LabelMetrics(labels, OF_SEVERAL)
    true_NK, predicted_NK = (
        torch.tensor([[label in map(str, pair[side]) for label in labels] for pair in pairs]) for side in (0, 1)
    )
    metrics.update(true_NK.float(), predicted_NK)
    return metrics.compute()


def processed(columns: Columns, spec: str) -> Columns:
    """The columns that a function by import path makes of these, one value a row in each.

    Raises ConfigError where there is no such function, it fails, or gives something else.
    """
    function = resolve_import(str(located(spec, Path.cwd())), FLAG)
    if not callable(function):
        raise ConfigError(f"{FLAG} {spec} must be a function of columns, but is a {type(function).__name__}.")
    try:
        made = function({name: list(values) for name, values in columns.items()})
    except Exception as error:
        said = " ".join(str(error).split()) or "no message"
        raise ConfigError(f"{FLAG} {spec} failed: {type(error).__name__}: {said}.") from error
    if not isinstance(made, Mapping):
        raise ConfigError(f"{FLAG} {spec} must return a mapping of columns, but returned a {type(made).__name__}.")
    try:
        listed = {str(name): list(values) for name, values in made.items()}
    except TypeError:
        raise ConfigError(f"{FLAG} {spec} must return columns of one value a row.") from None
    lengths = {name: len(values) for name, values in listed.items()}
    if len(set(lengths.values())) != 1:
        told = ", ".join(f"{name} {count}" for name, count in lengths.items()) or "none"
        raise ConfigError(f"{FLAG} {spec} must return columns that are equally long, but returned {told}.")
    return listed
