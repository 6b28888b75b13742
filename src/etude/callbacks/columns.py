"""What a step gave as outputs, as columns of one value a sample."""

from collections.abc import Mapping, Sequence
from functools import singledispatch
from types import NoneType

import numpy as np
import torch
from torch import Tensor

from etude.base.errors import ConfigError
from etude.data.nest import count_samples
from etude.train.task import Task

TARGETS = ("target", "targets", "label", "labels")
"""Under which a batch that is a mapping may hold its targets."""

FIRST = ("sample", "source", "target", "prediction", "scores", "loss")
"""The order of the usual columns; any others follow."""

ALWAYS = ("sample", "target", "prediction", "scores", "loss")
"""Columns that are there though nothing is known of them."""


def columns_of(task: Task, batch: object, outputs: object, first: int) -> dict[str, list[object]]:
    """The columns of a batch, whose first sample is the `first` of its pass.

    A task's own `output_columns(batch, outputs)` decides, if it has one. Else a mapping is taken as columns; a tensor
    or a list as `interpreted` has it. Raises ConfigError where a column has not one value a sample.
    """
    columns = {str(name): listed(values) for name, values in _given(task, batch, outputs).items()}
    count = _count(task, batch, columns)
    target = None if "target" in columns else target_of(batch)
    if target is not None and len(target) == count:
        columns["target"] = listed(_flat(target))
    columns.setdefault("sample", list(range(first, first + count)))
    _check_lengths(task, columns, count)
    for name in ALWAYS:
        columns.setdefault(name, [None] * count)
    return {name: columns[name] for name in [*FIRST, *columns] if name in columns}


def _check_lengths(task: Task, columns: Mapping[str, list[object]], count: int) -> None:
    for name, values in columns.items():
        if len(values) != count:
            raise ConfigError(
                f"The outputs of {type(task).__name__} must hold one value per sample in every column, but {name!r} "
                f"holds {len(values)} for {count} samples."
            )


def _given(task: Task, batch: object, outputs: object) -> Mapping[str, object]:
    found = task.output_columns(batch, outputs)
    match found:
        case Mapping():
            return found
        case _:
            return interpreted(found, target_of(batch))


def _count(task: Task, batch: object, columns: dict[str, list[object]]) -> int:
    """How many samples a batch holds."""
    if columns:
        return len(next(iter(columns.values())))
    count = task.batch_size(batch)
    if count is None:
        raise ConfigError(
            f"The outputs of {type(task).__name__} cannot be saved: the number of samples in a batch is unknown. "
            f"Return StepOutput(loss, outputs=...), or define batch_size(batch)."
        )
    return count


def interpreted(outputs: object, target: object = None) -> dict[str, object]:
    """A tensor or a list of outputs as columns `prediction` and, where there are classes, `scores`.

    Numbers [B, C] are scores of C classes, of which the highest is predicted, and so are [B, T, C] for targets [B, T]
    and torch's [B, C, T]; but numbers beside targets that are no classes are themselves what is predicted. Of a list
    each thing is the prediction of a sample.
    """
    match outputs:
        case None:
            return {}
        case Tensor():
            return _interpreted(outputs, _classes(outputs, target))
        case _:
            return {"prediction": outputs}


def _interpreted(outputs: Tensor, classes: int | None) -> dict[str, object]:
    if classes is None:
        return {"prediction": _flat(outputs)}
    found: dict[str, object] = {"prediction": outputs.argmax(classes)}
    return found | {"scores": outputs} if outputs.ndim == 2 else found  # noqa: PLR2004


def _flat(values: Tensor | list[object]) -> Tensor | list[object]:
    """Numbers [B, 1] as [B]; anything else as it is."""
    match values:
        case Tensor(ndim=2, shape=(_, 1)):
            return values.squeeze(1)
        case _:
            return values


def _classes(outputs: Tensor, target: object) -> int | None:
    """The dimension that holds classes; None where the numbers are what is predicted."""
    if not outputs.is_floating_point() or outputs.ndim < 2:  # noqa: PLR2004 - [B, C]
        return None
    match target:
        case Tensor():
            return None if target.is_floating_point() else _classes_beside(outputs, target)
        case _:
            return 1 if outputs.ndim == 2 and outputs.shape[1] > 1 else None  # noqa: PLR2004


def _classes_beside(outputs: Tensor, target: Tensor) -> int | None:
    if target.shape == outputs.shape[:-1]:
        return outputs.ndim - 1
    return 1 if target.shape == outputs.shape[:1] + outputs.shape[2:] else None


def target_of(batch: object) -> Tensor | list[object] | None:
    """The targets of a batch that is (inputs, targets) or a mapping; None where it cannot be told."""
    found = _held_as_target(batch)
    match found:
        case list():
            return found
        case Tensor() if found.ndim and len(found) == count_samples(batch):
            return found
        case _:
            return None


def _held_as_target(batch: object) -> object:
    match batch:
        case tuple() | list() if len(batch) == 2:  # noqa: PLR2004 - inputs and targets
            return batch[1]
        case Mapping():
            return next((batch[name] for name in TARGETS if name in batch), None)
        case _:
            return None


def listed(values: object) -> list[object]:
    """The values of a column as Python's own."""
    match values:
        case np.ndarray():
            return _numbers(torch.from_numpy(values))
        case Tensor():
            return _numbers(values.detach().cpu())
        case Sequence() if not isinstance(values, str):
            return [plain(value) for value in values]
        case _:
            raise ConfigError(
                f"Outputs that are to be saved must be a tensor, a list of one thing a sample, or a mapping of "
                f"columns, but are a {type(values).__name__}."
            )


def _numbers(values: Tensor) -> list[object]:
    return list(values.tolist()) if values.ndim else [values.item()]


@singledispatch
def plain(value: object) -> object:
    """A value as Python's own: numbers, texts, and lists and mappings of them; of anything else what it prints."""
    return str(value)


@plain.register(str)
@plain.register(int)
@plain.register(float)
@plain.register(NoneType)
def _(value: object) -> object:
    return value


@plain.register
def _(value: Tensor) -> object:
    return value.detach().cpu().tolist()


@plain.register(np.ndarray)
@plain.register(np.generic)
@plain.register(np.str_)
def _(value: np.ndarray | np.generic) -> object:
    return value.tolist()


@plain.register(list)
@plain.register(tuple)
def _(value: Sequence[object]) -> list[object]:
    return [plain(part) for part in value]


@plain.register(Mapping)
def _(value: Mapping[object, object]) -> dict[str, object]:
    return {str(key): plain(part) for key, part in value.items()}
