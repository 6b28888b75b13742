"""Batches split along time into pieces, for truncated back-propagation."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import count, pairwise
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from etude.base.errors import ConfigError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def split_in_time(batch: object, steps: int) -> list[Any]:
    """The pieces of `steps` time steps that a batch is made of, the last of them shorter where it does not divide.

    What has a time dimension is split: tensors [B, T, ...] along T; a list of one tensor [T, ...] a sample, whose
    sequences may differ in length (those that ended are left out of later pieces); a PackedSequence (likewise).
    Tensors [B] and all that is no tensor are handed to every piece whole. A batch is a tensor, or a tuple, list,
    mapping or dataclass of parts.

    >>> [piece.shape[1] for piece in split_in_time(torch.zeros(2, 5), 2)]
    [2, 2, 1]

    Raises ConfigError where no part has a time dimension, or the parts differ in it.
    """
    total = _length(batch)
    bounds = [*range(0, total, steps), total]
    return [_slice(batch, start, stop) for start, stop in pairwise(bounds)]


def _length(batch: object) -> int:
    """The number of time steps of a batch, which all parts that have time must share."""
    lengths = dict(_lengths(batch, "batch"))
    if len(set(lengths.values())) == 1:
        return next(iter(lengths.values()))
    if not lengths:
        raise ConfigError(
            "train.tbptt_steps finds nothing to split: no tensor of the batch has a time dimension ([B, T, ...]); "
            "override split_for_tbptt(batch, steps) in the task."
        )
    told = ", ".join(f"{name} {length}" for name, length in lengths.items())
    raise ConfigError(
        f"train.tbptt_steps cannot split a batch whose parts have different numbers of time steps ({told}); "
        f"override split_for_tbptt(batch, steps) in the task."
    )


def _lengths(part: object, name: str, *, inside: bool = False) -> Iterator[tuple[str, int]]:
    """The number of time steps of every part that has them."""
    match part:
        case PackedSequence():
            yield name, len(part.batch_sizes)
        case Tensor(shape=[_, length, *_]):
            yield name, length
        case _ if _is_ragged(part, inside=inside):
            yield name, max(map(len, part))
        case _:
            for key, value in _parts_of(part):
                yield from _lengths(value, key, inside=True)


def _parts_of(part: object) -> Iterable[tuple[str, Any]]:
    """The parts of a nest, by the names that messages give them."""
    match part:
        case Mapping():
            return zip(map(str, part), part.values(), strict=True)
        case list() | tuple():
            return zip(map("part {}".format, count()), part, strict=False)
    return _fields_of(part) if _is_dataclass(part) else ()


def _is_dataclass(part: object) -> "TypeGuard[DataclassInstance]":
    return dataclasses.is_dataclass(part) and not isinstance(part, type)


def _fields_of(part: "DataclassInstance") -> Iterator[tuple[str, Any]]:
    """The fields of a dataclass with their values, those in slots included."""
    return ((field.name, getattr(part, field.name)) for field in dataclasses.fields(part))


def _is_ragged(part: object, *, inside: bool) -> TypeGuard[list[Tensor]]:
    """Whether a list holds one sequence a sample.

    A batch that is itself a list is a list of parts, as torch's collation makes it, unless its tensors differ in their
    first dimension, which parts with one row a sample do not.
    """
    return _holds_sequences(part) and (inside or len(set(map(len, part))) > 1)


def _holds_sequences(part: object) -> TypeGuard[list[Tensor]]:
    return isinstance(part, list) and bool(part) and all(map(_is_sequence, part))


def _is_sequence(part: object) -> bool:
    return isinstance(part, Tensor) and part.ndim > 0


def _slice(part: object, start: int, stop: int, *, inside: bool = False) -> object:
    """The time steps start to stop of a part, or of the parts that it is made of."""
    match part:
        case PackedSequence():
            return _slice_packed(part, start, stop)
        case Tensor(shape=[_, _, *_]):
            return part[:, start:stop]
        case _ if _is_ragged(part, inside=inside):
            return _slice_ragged(part, start, stop)
    return _rebuilt(part, lambda one: _slice(one, start, stop, inside=True))


def _slice_ragged(part: list[Tensor], start: int, stop: int) -> list[Tensor]:
    """The time steps start to stop of the sequences that last so long."""
    return [sequence[start:stop] for sequence in part if len(sequence) > start]


def _rebuilt(nest: object, of: Callable[[object], object]) -> object:
    """A nest of the same kind with something else in the place of each part; what is no nest stays as it is."""
    match nest:
        case Mapping():
            return {key: of(value) for key, value in nest.items()}
        case list():
            return list(map(of, nest))
        case tuple():
            return _rebuilt_tuple(nest, of)
    if _is_dataclass(nest):
        return dataclasses.replace(nest, **{name: of(value) for name, value in _fields_of(nest)})
    return nest


def _rebuilt_tuple(nest: tuple[object, ...], of: Callable[[object], object]) -> tuple[object, ...]:
    """A tuple of the same kind, named ones included."""
    parts: Iterable[Any] = map(of, nest)
    return type(nest)(*parts) if hasattr(nest, "_fields") else tuple(parts)


def _slice_packed(packed: PackedSequence, start: int, stop: int) -> PackedSequence:
    """The time steps start to stop: a contiguous stretch of a PackedSequence's data."""
    sizes = packed.batch_sizes
    begin, end = int(sizes[:start].sum()), int(sizes[:stop].sum())
    order = packed.sorted_indices
    if order is None:
        return PackedSequence(packed.data[begin:end], sizes[start:stop])
    # The longest so many are left; among them each keeps its rank.
    kept = order[: int(sizes[start])]
    ranks = torch.argsort(torch.argsort(kept))
    return PackedSequence(packed.data[begin:end], sizes[start:stop], ranks, torch.argsort(ranks))
