"""What a step gave as outputs, as columns of one value a sample."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from etude.base.errors import ConfigError
from etude.data.nest import count_samples

TARGETS = ("target", "targets", "label", "labels")
"""Under which a batch that is a mapping may hold its targets."""

FIRST = ("sample", "source", "target", "prediction", "scores", "loss")
"""The order of the usual columns; any others follow."""

ALWAYS = ("sample", "target", "prediction", "scores", "loss")
"""Columns that are there though nothing is known of them."""


def columns_of(task: Any, batch: Any, outputs: Any, first: int) -> dict[str, list[Any]]:
    """The columns of a batch, whose first sample is the `first` of its pass.

    A task's own `output_columns(batch, outputs)` decides, if it has one. Else a mapping is taken as columns; a tensor
    or a list as `interpreted` has it. Raises ConfigError where a column has not one value a sample.
    """
    own = getattr(task, "output_columns", None)
    found = own(batch, outputs) if callable(own) else outputs
    if not isinstance(found, Mapping):
        found = interpreted(found, target_of(batch))
    columns = {str(name): listed(values) for name, values in found.items()}
    count = len(next(iter(columns.values()))) if columns else task.batch_size(batch)
    if count is None:
        raise ConfigError(
            f"The outputs of {type(task).__name__} cannot be saved: they do not tell how many samples a batch holds. "
            f"Return StepOutput(loss, outputs=...), or define batch_size(batch)."
        )
    if "target" not in columns and (target := target_of(batch)) is not None and len(target) == count:
        columns["target"] = listed(_flat(target))
    columns.setdefault("sample", list(range(first, first + count)))
    for name, values in columns.items():
        if len(values) != count:
            raise ConfigError(
                f"The outputs of {type(task).__name__} must hold one value a sample in every column, but {name!r} "
                f"holds {len(values)} for {count} samples."
            )
    for name in ALWAYS:
        columns.setdefault(name, [None] * count)
    return {name: columns[name] for name in [*FIRST, *columns] if name in columns}


def interpreted(outputs: Any, target: Any = None) -> dict[str, Any]:
    """A tensor or a list of outputs as columns `prediction` and, where there are classes, `scores`.

    Numbers [B, C] are scores of C classes, of which the highest is predicted, and so are [B, T, C] for targets [B, T]
    and torch's [B, C, T]; but numbers beside targets that are no classes are themselves what is predicted. Of a list
    each thing is the prediction of a sample.
    """
    if outputs is None:
        return {}
    if not isinstance(outputs, Tensor):
        return {"prediction": outputs}
    classes = _classes(outputs, target)
    if classes is None:
        return {"prediction": _flat(outputs)}
    found = {"prediction": outputs.argmax(classes)}
    return found | {"scores": outputs} if outputs.ndim == 2 else found  # noqa: PLR2004


def _flat(values: Any) -> Any:
    """Numbers [B, 1] as [B]; anything else as it is."""
    one = isinstance(values, Tensor) and values.ndim == 2 and values.shape[1] == 1  # noqa: PLR2004
    return values.squeeze(1) if one else values


def _classes(outputs: Tensor, target: Any) -> int | None:
    """The dimension that holds classes; None where the numbers are what is predicted."""
    if not outputs.is_floating_point() or outputs.ndim < 2:  # noqa: PLR2004 - [B, C]
        return None
    if not isinstance(target, Tensor):
        return 1 if outputs.ndim == 2 and outputs.shape[1] > 1 else None  # noqa: PLR2004
    if target.is_floating_point():
        return None
    if target.shape == outputs.shape[:-1]:
        return outputs.ndim - 1
    return 1 if target.shape == outputs.shape[:1] + outputs.shape[2:] else None


def target_of(batch: Any) -> Any:
    """The targets of a batch that is (inputs, targets) or a mapping; None where it cannot be told."""
    found = None
    if isinstance(batch, (tuple, list)) and len(batch) == 2:  # noqa: PLR2004 - inputs and targets
        found = batch[1]
    elif isinstance(batch, Mapping):
        found = next((batch[name] for name in TARGETS if name in batch), None)
    counted = isinstance(found, Tensor) and found.ndim and len(found) == count_samples(batch)
    return found if counted or isinstance(found, list) else None


def listed(values: Any) -> list[Any]:
    """The values of a column as Python's own."""
    if isinstance(values, np.ndarray):
        values = torch.from_numpy(values)
    if isinstance(values, Tensor):
        plain: Any = values.detach().cpu()
        return list(plain.tolist()) if plain.ndim else [plain.item()]
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise ConfigError(
            f"Outputs that are to be saved must be a tensor, a list of one thing a sample, or a mapping of columns, "
            f"but are a {type(values).__name__}."
        )
    return [_plain(value) for value in values]


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().cpu().tolist()
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    return value if isinstance(value, str | int | float | bool | None) else str(value)
