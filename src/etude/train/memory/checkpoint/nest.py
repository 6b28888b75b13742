"""State as plain JSON beside plain tensors: what a checkpoint holds, and all that it may hold."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from etude.base.errors import StorageError

TENSOR, TUPLE, PAIRS, FLOAT = "$tensor", "$tuple", "$pairs", "$float"


def split(value: Any, where: str, tensors: dict[str, Tensor]) -> Any:
    """`value` as JSON, its tensors moved into `tensors` under names that begin with `where`.

    Mappings (with any plain keys), lists, tuples, numbers, text, None and tensors are state; anything else raises
    StorageError naming where it was found, since no pickle is ever written or read.
    """
    if isinstance(value, Tensor):
        tensors[where] = value.detach()
        return {TENSOR: where}
    if isinstance(value, Mapping):
        return _split_mapping(value, where, tensors)
    if isinstance(value, (list, tuple)):
        parts = [split(part, f"{where}/{index}", tensors) for index, part in enumerate(value)]
        return parts if isinstance(value, list) else {TUPLE: parts}
    if isinstance(value, float) and not np.isfinite(value):
        return {FLOAT: repr(float(value))}
    if isinstance(value, (np.integer, np.floating, np.bool_)):
        return value.item()
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    raise StorageError(
        f"The state of {where} holds a {type(value).__name__}; a checkpoint keeps tensors, numbers, text, lists and "
        f"mappings of them alone. Give its owner a state_dict() of these."
    )


def _split_mapping(value: Mapping[Any, Any], where: str, tensors: dict[str, Tensor]) -> Any:
    parts = [(key, split(part, f"{where}/{key}", tensors)) for key, part in value.items()]
    if all(isinstance(key, str) and not key.startswith("$") for key, _ in parts):
        return dict(parts)
    for key, _ in parts:
        if not isinstance(key, (str, int, float, bool)):
            raise StorageError(f"The state of {where} has a key of type {type(key).__name__}; keys are plain.")
    return {PAIRS: [[key, part] for key, part in parts]}


def join(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The inverse of `split`."""
    if isinstance(value, list):
        return [join(part, tensors) for part in value]
    if not isinstance(value, dict):
        return value
    if TENSOR in value:
        return tensors[value[TENSOR]]
    if TUPLE in value:
        return tuple(join(part, tensors) for part in value[TUPLE])
    if PAIRS in value:
        return {key: join(part, tensors) for key, part in value[PAIRS]}
    if FLOAT in value:
        return float(value[FLOAT])
    return {key: join(part, tensors) for key, part in value.items()}


def snapshot(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Copies on the CPU that later steps cannot change, each storage once; and the other names of shared tensors.

    Tied weights are one tensor under two names: the first keeps it, `aliases` maps the others to it.
    """
    copies: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    seen: dict[tuple[Any, ...], str] = {}
    for name, tensor in tensors.items():
        key = (tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        if tensor.numel() and key in seen:
            aliases[name] = seen[key]
            continue
        seen[key] = name
        copies[name] = torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor)
    return copies, aliases
