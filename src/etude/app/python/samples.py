"""What `etude.fit` is given as data that is no loader yet: lists of samples, arrays, numbers."""

from collections.abc import Sequence
from typing import Any, TypeGuard, final

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from etude.base.errors import ConfigError
from etude.base.says import Say

PAIR = 2
LOOKED_AT = 2
"""Elements of a list by which it is told what it holds."""


def as_data(data: Any, name: str, say: Say) -> Any:
    """Data as a trainer takes it: a list of pairs that can be no batches becomes a dataset of samples, which is said.

    Raises ConfigError for arrays, which say nothing of pairs.
    """
    if _is_array(data) or (isinstance(data, tuple) and data and all(map(_is_array, data))):
        raise ConfigError(
            f"{name} must hold pairs of inputs and targets, but is {_named(data)}; give "
            f"torch.utils.data.TensorDataset(inputs, targets)."
        )
    if not _holds_samples(data):
        return data
    say(f"{name} is a list of samples: Etude makes batches of them, of batch_size samples each.")
    return Samples(data)


@final
class Samples(Dataset[Any]):
    """Pairs of a list, each part as a tensor."""

    def __init__(self, pairs: Sequence[Sequence[object]]) -> None:
        self._pairs = pairs

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> tuple[object, ...]:
        return tuple(as_tensor(part) for part in self._pairs[index])


def as_tensor(part: Any) -> Any:
    """Numbers of Python and numpy as a tensor, those with a point in torch's default type; anything else untouched.

    >>> as_tensor([1.0, 2.0]).dtype, as_tensor(np.zeros(2)).dtype, as_tensor(3).dtype, as_tensor("a")
    (torch.float32, torch.float32, torch.int64, 'a')
    """
    if isinstance(part, Tensor) or not _are_numbers(part):
        return part
    made = torch.as_tensor(part)
    return made.to(torch.get_default_dtype()) if made.is_floating_point() else made


def _holds_samples(data: Any) -> TypeGuard[Sequence[Sequence[object]]]:
    """Whether a list holds pairs which, without a first dimension in common, can be no batches."""
    return isinstance(data, list) and bool(data) and all(map(_is_sample, data[:LOOKED_AT]))


def _is_sample(pair: Any) -> bool:
    return _is_pair(pair) and _are_apart(*(np.shape(part)[:1] for part in pair))


def _is_pair(pair: Any) -> bool:
    return isinstance(pair, tuple | list) and len(pair) == PAIR and all(map(_are_numbers, pair))


def _are_apart(first: tuple[int, ...], second: tuple[int, ...]) -> bool:
    """Whether two parts of these first dimensions have none in common."""
    return not first or first != second


def _are_numbers(part: object) -> bool:
    if isinstance(part, list):
        return bool(part) and all(map(_are_numbers, part))
    return _is_array(part) or isinstance(part, int | float | np.number)


def _is_array(part: object) -> bool:
    return isinstance(part, Tensor | np.ndarray)


def _named(data: object) -> str:
    kind = type(data).__name__
    return f"a {kind} of arrays" if isinstance(data, tuple) else f"one {kind}"
