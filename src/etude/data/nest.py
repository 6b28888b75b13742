"""Batches of any shape: what is done to every tensor inside them.

A nest is a tensor, a `PackedSequence`, an object with the method in question (`.to`, `.pin_memory`, `.detach`), or a
tuple, namedtuple, list, mapping or dataclass of nests. Anything else (numbers, strings, None) passes untouched.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence


def move(batch: Any, device: torch.device | str, non_blocking: bool = False) -> Any:  # noqa: FBT001, FBT002 - the flag of Tensor.to
    """Give the batch on `device`; what lies there already is not copied."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=non_blocking)
    return _walk(batch, "to", lambda part: part.to(device, non_blocking=non_blocking))


def pin(batch: Any) -> Any:
    """Give the batch in page-locked memory, from which an accelerator copies without waiting."""
    return _walk(batch, "pin_memory", lambda part: part.pin_memory())


def detach(batch: Any) -> Any:
    """Give the batch cut from the graph that made it."""
    return _walk(batch, "detach", _detached)


def count_samples(batch: Any) -> int | None:
    """Count the samples of a batch: a first dimension, a length; None where nothing tells.

    Of a tuple, a mapping or a dataclass the first part that can be counted speaks; a list of tensors holds one
    sample each; a list of anything else speaks as a tuple does when its parts are tensors with a dimension.

    >>> count_samples({"text": torch.zeros(3, 5), "label": torch.zeros(3)})
    3
    """
    if isinstance(batch, Tensor):
        return batch.shape[0] if batch.ndim else None
    if isinstance(batch, PackedSequence):
        return int(batch.batch_sizes[0])
    if isinstance(batch, (str, bytes)):
        return None
    if isinstance(batch, list):
        return _count_list(batch)
    parts = _parts(batch)
    if parts is not None:
        counts = (count_samples(part) for part in parts)
        return next((count for count in counts if count is not None), None)
    return len(batch) if hasattr(batch, "__len__") else None


def _count_list(batch: list[Any]) -> int | None:
    """Tell the list that torch's collation makes of a tuple from a list that holds one sample in each place.

    The former has tensors of one common first dimension (inputs, targets); the latter has as many places as samples.
    """
    if not batch:
        return 0
    if all(isinstance(part, Tensor) and part.ndim for part in batch) and len({len(part) for part in batch}) == 1:
        return len(batch[0])
    if any(isinstance(part, (list, tuple, Mapping, PackedSequence)) for part in batch):
        counts = (count_samples(part) for part in batch)
        return next((count for count in counts if count is not None), None)
    return len(batch)


def _parts(batch: Any) -> Iterator[Any] | None:
    if isinstance(batch, Mapping):
        return iter(batch.values())
    if isinstance(batch, (list, tuple)):
        return iter(batch)
    if dataclasses.is_dataclass(batch) and not hasattr(batch, "__len__"):
        return (getattr(batch, field.name) for field in dataclasses.fields(batch))
    return None


def _detached(part: Any) -> Any:
    if isinstance(part, PackedSequence):
        return part._replace(data=part.data.detach())
    return part.detach()


def _walk(batch: Any, method: str, act: Callable[[Any], Any]) -> Any:
    if isinstance(batch, (Tensor, PackedSequence)):
        return act(batch)
    if isinstance(batch, (str, bytes, int, float, type(None))):
        return batch
    if isinstance(batch, tuple):
        parts = [_walk(part, method, act) for part in batch]
        return type(batch)(*parts) if hasattr(batch, "_fields") else type(batch)(parts)
    if isinstance(batch, list):
        return [_walk(part, method, act) for part in batch]
    if callable(getattr(batch, method, None)) and not isinstance(batch, type):
        return act(batch)
    if isinstance(batch, Mapping):
        return _rebuilt(batch, {key: _walk(part, method, act) for key, part in batch.items()})
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        return _replaced(batch, method, act)
    return batch


def _rebuilt(batch: Mapping[Any, Any], parts: dict[Any, Any]) -> Any:
    if type(batch) is dict:
        return parts
    if hasattr(batch, "copy"):  # an OrderedDict, a defaultdict: its own class and settings
        copy = batch.copy()
        copy.update(parts)
        return copy
    return parts


def _replaced(batch: Any, method: str, act: Callable[[Any], Any]) -> Any:
    copy = object.__new__(type(batch))  # fields need not be arguments of __init__, and it may have effects
    for field in dataclasses.fields(batch):
        object.__setattr__(copy, field.name, _walk(getattr(batch, field.name), method, act))
    return copy
