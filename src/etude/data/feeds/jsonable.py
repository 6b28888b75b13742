"""A nest of plain values, tensors, arrays and bytes as JSON, and back: the state that a user's loader gives."""

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from etude.base.errors import DataError

_TAG = "__etude__"
Tagged = dict[str, Any]


def encoded(value: object) -> object:
    """Give `value` as JSON; a DataError where it holds what JSON and `decoded` cannot bring back."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case Mapping():
            return _encoded_mapping(value)
        case list():
            return _encoded_all(value)
        case tuple():
            return {_TAG: "tuple", "parts": _encoded_all(value)}
        case bytes():
            return {_TAG: "bytes", "base64": base64.b64encode(value).decode("ascii")}
        case torch.Tensor():
            return _encoded_array("tensor", value.detach().cpu().numpy())
        case np.ndarray() | np.generic():
            return _encoded_array("array", np.asarray(value))
    raise DataError(
        f"The loader's state holds a {type(value).__name__}, which a checkpoint cannot store; its state_dict must "
        "be made of numbers, strings, lists, mappings, bytes and tensors."
    )


def decoded(value: object) -> Any:
    """Give back what `encoded` was given."""
    match value:
        case list():
            return [decoded(part) for part in value]
        case dict():
            return _decoded_tagged(value)
    return value


def _encoded_mapping(value: Mapping[object, object]) -> Tagged:
    if _TAG not in value and all(isinstance(key, str) for key in value):
        return {str(key): encoded(part) for key, part in value.items()}
    return {_TAG: "mapping", "items": [_encoded_all(item) for item in value.items()]}


def _encoded_all(values: list[object] | tuple[object, ...]) -> list[object]:
    return [encoded(part) for part in values]


def _encoded_array(kind: str, array: np.ndarray[Any, Any]) -> Tagged:
    data = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")
    return {_TAG: kind, "dtype": array.dtype.str, "shape": list(array.shape), "base64": data}


def _decoded_tagged(value: Tagged) -> object:
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
            array = _decoded_array(value)
            return torch.from_numpy(array) if kind == "tensor" else array


def _decoded_array(value: Tagged) -> np.ndarray[Any, Any]:
    array = np.frombuffer(base64.b64decode(value["base64"]), dtype=np.dtype(value["dtype"]))
    return array.reshape(value["shape"]).copy()
