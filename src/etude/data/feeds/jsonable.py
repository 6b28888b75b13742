"""A nest of plain values, tensors, arrays and bytes as JSON, and back: the state that a user's loader gives."""

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from etude.base.errors import DataError

_TAG = "__etude__"


def encoded(value: Any) -> Any:
    """Give `value` as JSON; a DataError where it holds what JSON and `decoded` cannot bring back."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        if all(isinstance(key, str) for key in value) and _TAG not in value:
            return {key: encoded(part) for key, part in value.items()}
        return {_TAG: "mapping", "items": [[encoded(key), encoded(part)] for key, part in value.items()]}
    if isinstance(value, list):
        return [encoded(part) for part in value]
    if isinstance(value, tuple):
        return {_TAG: "tuple", "parts": [encoded(part) for part in value]}
    if isinstance(value, bytes):
        return {_TAG: "bytes", "base64": base64.b64encode(value).decode("ascii")}
    return _encoded_array(value)


def decoded(value: Any) -> Any:
    """Give back what `encoded` was given."""
    if isinstance(value, list):
        return [decoded(part) for part in value]
    if not isinstance(value, dict):
        return value
    match value.get(_TAG):
        case None:
            return {key: decoded(part) for key, part in value.items()}
        case "mapping":
            return {decoded(key): decoded(part) for key, part in value["items"]}
        case "tuple":
            return tuple(decoded(part) for part in value["parts"])
        case "bytes":
            return base64.b64decode(value["base64"])
        case kind:
            return _decoded_array(value, kind)


def _encoded_array(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        kind, array = "tensor", value.detach().cpu().numpy()
    elif isinstance(value, np.ndarray | np.generic):
        kind, array = "array", np.asarray(value)
    else:
        raise DataError(
            f"The loader's state holds a {type(value).__name__}, which a checkpoint cannot store; its state_dict must "
            "be made of numbers, strings, lists, mappings, bytes and tensors."
        )
    data = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")
    return {_TAG: kind, "dtype": array.dtype.str, "shape": list(array.shape), "base64": data}


def _decoded_array(value: dict[str, Any], kind: str) -> Any:
    array = np.frombuffer(base64.b64decode(value["base64"]), dtype=np.dtype(value["dtype"])).reshape(value["shape"])
    return torch.from_numpy(array.copy()) if kind == "tensor" else array.copy()
