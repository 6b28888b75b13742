"""Batches of any shape: what is done to every tensor inside them.

A nest is a tensor, a `PackedSequence`, an object with the method in question (`.to`, `.pin_memory`, `.detach`), or a
tuple, namedtuple, list, mapping or dataclass of nests. Anything else (numbers, strings, None) passes untouched.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, count
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


def rows_of(batch: B, rows: Sequence[int]) -> B:
    """Give some rows, by number, of a batch whose tensors have them in the first dimension; lists as long as that too.

    >>> rows_of({"x": torch.tensor([5, 6, 7]), "name": ["a", "b", "c"], "what": "d"}, [0, 2])
    {'x': tensor([5, 7]), 'name': ['a', 'c'], 'what': 'd'}
    """
    count, chosen = count_samples(batch), torch.tensor(rows, dtype=torch.long)

    def take(part: Any) -> object:
        match part:
            case Tensor():
                return part[chosen]
            case list() if len(part) == count and not any(map(_has_tensors, part)):
                return [part[row] for row in rows]
            case str() | bytes() | int() | float() | type() | None:
                return part
        return with_parts(part, take)

    return cast("B", take(batch))


def _has_tensors(part: object) -> bool:
    return any(True for _ in tensors(part))


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
    return _count_nest(batch)


def _count_nest(batch: object) -> int | None:
    """A length, where it is not that of a tuple or a mapping; else what a part says."""
    if hasattr(batch, "__len__") and not isinstance(batch, tuple | Mapping):
        return len(batch)
    return _first_count([part for _, part in parts(batch)])


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
            yield from chain.from_iterable([tensors(part) for _, part in parts(batch)])


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


def _detached(part: Tensor | PackedSequence) -> object:
    return part._replace(data=part.data.detach()) if isinstance(part, PackedSequence) else part.detach()


def _walk(batch: object, method: str, act: Act) -> object:
    match batch:
        case Tensor() | PackedSequence():
            return act(batch)
        case str() | bytes() | int() | float() | type() | None:
            return batch
    if callable(getattr(batch, method, None)) and not isinstance(batch, tuple | list):
        return act(batch)
    return with_parts(batch, lambda part: _walk(part, method, act))


def _rebuilt(batch: Mapping[object, object], parts: dict[object, object]) -> object:
    if type(batch) is dict or not hasattr(batch, "copy"):
        return parts
    copy = batch.copy()  # an OrderedDict, a defaultdict: its own class and settings
    copy.update(parts)
    return copy


def _copied(batch: Any, act: Act) -> object:
    """A dataclass of the same kind with something else in each field."""
    copy = object.__new__(type(batch))  # fields need not be arguments of __init__, and it may have effects
    for field in dataclasses.fields(batch):
        object.__setattr__(copy, field.name, act(getattr(batch, field.name)))
    return copy


def with_parts(batch: object, act: Act) -> object:
    """A nest of the same kind with something else in the place of each of its parts; what is no nest as it is.

    >>> with_parts({"text": [1, 2], "size": 2}, str)
    {'text': '[1, 2]', 'size': '2'}
    """
    match batch:
        case Mapping():
            return _rebuilt(batch, {key: act(part) for key, part in batch.items()})
        case list():
            return list(map(act, batch))
        case tuple():
            kind: Any = type(batch)
            return kind(*map(act, batch)) if hasattr(batch, "_fields") else kind(map(act, batch))
    return _copied(batch, act) if _is_record(batch) else batch


def parts(batch: object) -> Iterable[tuple[str, Any]]:
    """The parts of a nest with the names that messages give them; of what is no nest none."""
    match batch:
        case Mapping():
            return zip(map(str, batch), batch.values(), strict=True)
        case list() | tuple():
            return zip(map("part {}".format, count()), batch, strict=False)
    fields = dataclasses.fields(batch) if _is_record(batch) else ()  # type: ignore[arg-type]
    return [(field.name, getattr(batch, field.name)) for field in fields]


def _is_record(batch: object) -> bool:
    return dataclasses.is_dataclass(batch) and not isinstance(batch, type)
