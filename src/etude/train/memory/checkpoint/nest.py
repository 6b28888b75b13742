"""State as plain JSON beside plain tensors: what a checkpoint holds, and all that it may hold."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import NoneType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from etude.base.errors import StorageError

TENSOR, SPARSE, TUPLE, PAIRS, FLOAT = "$tensor", "$sparse", "$tuple", "$pairs", "$float"
_PLAIN = {str, int, bool, NoneType}


def split(value: object, where: str, tensors: dict[str, Tensor]) -> Any:
    """`value` as JSON, its tensors moved into `tensors` under names that begin with `where`.

    Mappings (with any plain keys), lists, tuples, numbers, text, None and tensors are state; anything else raises
    StorageError naming where it was found, since no pickle is ever written or read.
    """
    match value:
        case Tensor(is_sparse=True):
            return {SPARSE: _split_sequence(_parts_of_sparse(value), where, tensors)}
        case Tensor():
            tensors[where] = value.detach()
            return {TENSOR: where}
        case Mapping():
            return _split_mapping(value, where, tensors)
        case list():
            return _split_sequence(value, where, tensors)
        case tuple():
            return {TUPLE: _split_sequence(value, where, tensors)}
        case float() if not np.isfinite(value):
            return {FLOAT: repr(float(value))}
        case np.generic():
            return split(value.item(), where, tensors)
        case None | str() | int() | float():
            return value
    raise StorageError(
        f"The state of {where} holds a {type(value).__name__}; a checkpoint holds tensors, numbers, text, lists and "
        f"mappings of them only. Give its owner a state_dict() of these."
    )


def _is_plain(value: object) -> bool:
    """Whether it is JSON as it stands. Nearly all of a state is, so it is asked first: training waits."""
    return type(value) in _PLAIN or (type(value) is float and math.isfinite(value))


def _split_sequence(value: Sequence[object], where: str, tensors: dict[str, Tensor]) -> list[Any]:
    return [part if _is_plain(part) else split(part, f"{where}/{at}", tensors) for at, part in enumerate(value)]


def _parts_of_sparse(tensor: Tensor) -> list[object]:
    """What a sparse tensor consists of, as it is: rows that it holds twice are not added up."""
    indices, values = tensor._indices(), tensor._values()  # noqa: SLF001 - the public names want each row once
    return [indices, values, list(tensor.shape), tensor.is_coalesced()]


def _split_mapping(value: Mapping[object, object], where: str, tensors: dict[str, Tensor]) -> Any:
    parts = {key: part if _is_plain(part) else split(part, f"{where}/{key}", tensors) for key, part in value.items()}
    if all(map(_is_name, parts)):
        return parts
    for key in parts:
        _check_key(key, where)
    return {PAIRS: list(map(list, parts.items()))}


def _is_name(key: object) -> bool:
    """Whether it may be a key of a JSON object, where what begins with $ has a meaning of its own."""
    match key:
        case str():
            return not key.startswith("$")
    return False


def _check_key(key: object, where: str) -> None:
    if not isinstance(key, (str, int, float)):
        raise StorageError(f"The state of {where} has a key of type {type(key).__name__}; keys are plain.")


def join(value: object, tensors: Mapping[str, Tensor]) -> Any:
    """The inverse of `split`."""
    match value:
        case list():
            return list(_joined(value, tensors))
        case {"$tensor": name}:
            return tensors[name]
        case {"$sparse": list(parts)}:
            indices, values, shape, once = _joined(parts, tensors)
            return torch.sparse_coo_tensor(indices, values, shape, is_coalesced=once, check_invariants=True)
        case {"$tuple": parts}:
            return tuple(_joined(parts, tensors))
        case {"$pairs": pairs}:
            return _joined_values(pairs, tensors)
        case {"$float": text}:
            return float(text)
        case dict():
            return _joined_values(value.items(), tensors)
    return value


def _joined(parts: Iterable[object], tensors: Mapping[str, Tensor]) -> Iterator[Any]:
    return (join(part, tensors) for part in parts)


def _joined_values(pairs: Iterable[tuple[object, object]], tensors: Mapping[str, Tensor]) -> dict[object, Any]:
    return {key: join(part, tensors) for key, part in pairs}


def snapshot(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Copies on the CPU that later steps cannot change, each storage once; and the other names of shared tensors."""
    firsts, aliases = first_names(tensors)
    return {name: copied(tensor) for name, tensor in firsts.items()}, aliases


def copied(tensor: Tensor) -> Tensor:
    """A copy on the CPU."""
    return torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor.detach())


def first_names(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Each tensor under its first name, and the first by its other names.

    Tied weights are one tensor under two names: the first keeps it, and the others are mapped to it.
    """
    firsts: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    seen: dict[object, str] = {}
    for name, tensor in tensors.items():
        first = seen.setdefault(_identity(tensor), name)
        if first == name:
            firsts[name] = tensor
        else:
            aliases[name] = first
    return firsts, aliases


def _identity(tensor: Tensor) -> object:
    """What tensors have in common that are one: their memory or, of empty ones and those on several ranks, all."""
    if not tensor.numel() or hasattr(tensor, "to_local"):
        return id(tensor)
    return tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype
