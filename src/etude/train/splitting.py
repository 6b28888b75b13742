"""Batches split along time into pieces, for truncated back-propagation."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, NamedTuple, NoReturn, TypeGuard, final

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from etude.base.errors import ConfigError
from etude.data.nest import parts, with_parts

Lists = Literal["auto", "parts", "sequences"]
"""What a list of tensors inside a batch holds: parts [B, T, ...], or one sequence [T, ...] a sample."""


def split_in_time(batch: object, steps: int, *, lists: Lists = "auto") -> list[Any]:
    """The pieces of `steps` time steps that a batch is made of, the last of them shorter where it does not divide.

    What has a time dimension is split: tensors [B, T, ...] along T; a PackedSequence; a list of one tensor [T, ...] a
    sample, whose sequences may differ in length (those that ended are left out of later pieces). Tensors [B] and all
    that is no tensor are handed to every piece whole. A batch is a tensor, or a tuple, list, mapping or dataclass of
    parts, which may be such nests themselves. Whether a list of tensors inside it holds parts or one sequence a sample
    is told by `lists`, or, with "auto", by what agrees with the rest of the batch in time and in samples.

    >>> [piece.shape[1] for piece in split_in_time(torch.zeros(2, 5), 2)]
    [2, 2, 1]
    >>> x, y, z = torch.zeros(3, 5, 2), torch.zeros(3, 5), torch.zeros(3, 5)
    >>> [piece[1][1].shape for piece in split_in_time([x, [y, z]], 4)]
    [torch.Size([3, 4]), torch.Size([3, 1])]

    Raises ConfigError where no part has a time dimension, the parts differ in it, or both readings of a list agree
    with the rest.
    """
    reading = _told(batch) if lists == "auto" else _Reading(sequences=lists == "sequences")
    total = _length(reading.sizes(batch, "batch"))
    bounds = [*range(0, total, steps), total]
    return [reading.cut(batch, start, stop) for start, stop in pairwise(bounds)]


class _Size(NamedTuple):
    """How large a part is in the dimensions that all parts share."""

    name: str
    time: int | None
    """Its time steps; None of a part without time."""
    samples: int


def _length(sizes: Iterator[_Size]) -> int:
    """The number of time steps of a batch, which all parts that have time must share."""
    lengths = {size.name: size.time for size in sizes if size.time is not None}
    if len(set(lengths.values())) != 1:
        _refuse(lengths)
    return next(iter(lengths.values()))


def _refuse(lengths: Mapping[str, int]) -> NoReturn:
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


def _told(batch: object) -> "_Reading":
    """The reading of the lists in a batch that agrees with its other parts; raises ConfigError where both do."""
    as_parts, as_sequences = _Reading(sequences=False), _Reading(sequences=True)
    found, agreements = next(_lists(batch), None), [as_parts.agreement(batch), as_sequences.agreement(batch)]
    if found and any(agreements) and agreements[0] == agreements[1]:
        _refuse_both(found)
    return as_parts if agreements[0] > agreements[1] else as_sequences


def _refuse_both(found: list[Tensor]) -> NoReturn:
    raise ConfigError(
        f"train.tbptt_steps cannot tell whether the list of {len(found)} tensors in the batch holds parts [B, T, ...] "
        f"or one sequence [T, ...] a sample. Say it in the task: def split_for_tbptt(self, batch, steps): return "
        f'etude.split_in_time(batch, steps, lists="parts"), or lists="sequences".'
    )


def _lists(part: object, *, inside: bool = False) -> Iterator[list[Tensor]]:
    """The lists of tensors in a batch that are not the batch itself."""
    if inside and _holds_sequences(part):
        yield part
        return
    for _, one in () if isinstance(part, Tensor | PackedSequence) else parts(part):
        yield from _lists(one, inside=True)


@final
@dataclass(frozen=True)
class _Reading:
    """One of the two readings of the lists of tensors inside a batch."""

    sequences: bool

    def agreement(self, batch: object) -> int:
        """0 where parts differ in time; 1 where they agree in it; 2 where they agree in samples too."""
        sizes = list(self.sizes(batch, "batch"))
        times, samples = {size.time for size in sizes} - {None}, {size.samples for size in sizes}
        return (len(times) == 1) * (1 + (len(samples) == 1))

    def sizes(self, part: object, name: str, *, inside: bool = False) -> Iterator[_Size]:
        """How large every part is that has samples."""
        match part:
            case PackedSequence():
                yield _Size(name, len(part.batch_sizes), int(part.batch_sizes[0]))
            case Tensor(shape=[samples, *rest]):
                yield _Size(name, next(iter(rest), None), samples)
            case Tensor():
                pass
            case _ if self._is_ragged(part, inside=inside):
                yield _Size(name, max(map(len, part)), len(part))
            case _:
                for key, value in parts(part):
                    yield from self.sizes(value, key, inside=True)

    def _is_ragged(self, part: object, *, inside: bool) -> TypeGuard[list[Tensor]]:
        """Whether a list holds one sequence a sample: tensors that are alike but for their lengths.

        A batch that is itself a list is a list of parts, as torch's collation makes it, unless its tensors differ in
        their first dimension, which parts with one row a sample do not.
        """
        if not _holds_sequences(part) or len({one.shape[1:] for one in part}) > 1:
            return False
        return self.sequences if inside else len(set(map(len, part))) > 1

    def cut(self, part: object, start: int, stop: int, *, inside: bool = False) -> object:
        """The time steps start to stop of a part, or of the parts that it is made of."""
        match part:
            case PackedSequence():
                return _cut_packed(part, start, stop)
            case Tensor(shape=[_, _, *_]):
                return part[:, start:stop]
            case Tensor():
                return part
            case _ if self._is_ragged(part, inside=inside):
                return [sequence[start:stop] for sequence in part if len(sequence) > start]
        return with_parts(part, lambda one: self.cut(one, start, stop, inside=True))


def _holds_sequences(part: object) -> TypeGuard[list[Tensor]]:
    return isinstance(part, list) and bool(part) and all(map(_is_sequence, part))


def _is_sequence(part: object) -> bool:
    return isinstance(part, Tensor) and part.ndim > 0


def _cut_packed(packed: PackedSequence, start: int, stop: int) -> PackedSequence:
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
