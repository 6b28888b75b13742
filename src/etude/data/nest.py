"""Batches of any shape: what is done to every tensor inside them.

A nest is a tensor, a `PackedSequence`, an object with the method in question (`.to`, `.pin_memory`, `.detach`), or a
tuple, namedtuple, list, mapping or dataclass of nests. Anything else (numbers, strings, None) passes untouched.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from typing import Any, TypeVar, cast

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

B = TypeVar("B")
Act = Callable[[Any], object]


def move(batch: B, device: torch.device | str, non_blocking: bool = False) -> B:  # noqa: FBT001, FBT002 - the flag of Tensor.to
    """Give the batch on `device`; what lies there already is not copied."""
    return cast("B", _walk(batch, "to", lambda part: part.to(device, non_blocking=non_blocking)))


def pin(batch: B) -> B:
    """Give the batch in page-locked memory, from which an accelerator copies without waiting."""
    return cast("B", _walk(batch, "pin_memory", lambda part: part.pin_memory()))


def detach(batch: B) -> B:
    """Give the batch cut from the graph that made it."""
    return cast("B", _walk(batch, "detach", _detached))


def count_samples(batch: object) -> int | None:
    """Count the samples of a batch: a first dimension, a length; None where nothing tells.

    Of a tuple, a mapping or a dataclass the first part that can be counted speaks; a list of tensors holds one
    sample each; a list of anything else speaks as a tuple does when its parts are tensors with a dimension.

    >>> count_samples({"text": torch.zeros(3, 5), "label": torch.zeros(3)})
    3
    """
    match batch:
        case Tensor():
            return batch.shape[0] if batch.ndim else None
        case PackedSequence():
            return int(batch.batch_sizes[0])
        case str() | bytes():
            return None
        case list():
            return _count_list(batch)
    parts = _parts(batch)
    if parts is not None:
        return _first_count(parts)
    return len(batch) if hasattr(batch, "__len__") else None


def tensors(batch: object) -> Iterator[Tensor]:
    """Every tensor of a batch, in order; of a `PackedSequence` its data.

    >>> [tuple(tensor.shape) for tensor in tensors({"text": torch.zeros(3, 5), "label": [torch.zeros(3), "none"]})]
    [(3, 5), (3,)]
    """
    match batch:
        case Tensor():
            yield batch
        case PackedSequence():
            yield batch.data
        case _:
            yield from chain.from_iterable(map(tensors, _parts(batch) or ()))


def _count_list(batch: list[object]) -> int | None:
    """Tell the list that torch's collation makes of a tuple from a list that holds one sample in each place.

    The former has tensors of one common first dimension (inputs, targets); the latter has as many places as samples.
    """
    if not batch:
        return 0
    common = _common_dimension(batch)
    if common is not None:
        return common
    if any(isinstance(part, (list, tuple, Mapping, PackedSequence)) for part in batch):
        return _first_count(batch)
    return len(batch)


def _common_dimension(batch: list[object]) -> int | None:
    """Give the first dimension that all parts share, where all are tensors that have one."""
    sizes = {len(part) if isinstance(part, Tensor) and part.ndim else None for part in batch}
    return sizes.pop() if len(sizes) == 1 else None


def _first_count(parts: Iterable[object]) -> int | None:
    counts = map(count_samples, parts)
    return next((count for count in counts if count is not None), None)


def _parts(batch: object) -> Iterable[object] | None:
    match batch:
        case Mapping():
            return batch.values()
        case tuple() | list():
            return batch
    if dataclasses.is_dataclass(batch) and not hasattr(batch, "__len__"):
        return (getattr(batch, field.name) for field in dataclasses.fields(batch))
    return None


def _detached(part: Tensor | PackedSequence) -> object:
    return part._replace(data=part.data.detach()) if isinstance(part, PackedSequence) else part.detach()


def _walk(batch: object, method: str, act: Act) -> object:
    match batch:
        case Tensor() | PackedSequence():
            return act(batch)
        case str() | bytes() | int() | float() | None:
            return batch
        case tuple():
            kind: Any = type(batch)
            parts = [_walk(part, method, act) for part in batch]
            return kind(*parts) if hasattr(batch, "_fields") else kind(parts)
        case list():
            return [_walk(part, method, act) for part in batch]
    return _walk_object(batch, method, act)


def _walk_object(batch: object, method: str, act: Act) -> object:
    match batch:
        case type():
            return batch
        case _ if callable(getattr(batch, method, None)):
            return act(batch)
        case Mapping():
            return _rebuilt(batch, {key: _walk(part, method, act) for key, part in batch.items()})
    return _replaced(batch, method, act) if dataclasses.is_dataclass(batch) else batch


def _rebuilt(batch: Mapping[object, object], parts: dict[object, object]) -> object:
    if type(batch) is dict or not hasattr(batch, "copy"):
        return parts
    copy = batch.copy()  # an OrderedDict, a defaultdict: its own class and settings
    copy.update(parts)
    return copy


def _replaced(batch: Any, method: str, act: Act) -> object:
    copy = object.__new__(type(batch))  # fields need not be arguments of __init__, and it may have effects
    for field in dataclasses.fields(batch):
        object.__setattr__(copy, field.name, _walk(getattr(batch, field.name), method, act))
    return copy
