"""Sharded tensors made whole again, each on one rank alone, by parts of bounded size."""

from collections.abc import Iterator, Mapping, Sequence
from heapq import heapify, heapreplace
from itertools import chain, zip_longest
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Shard

from etude.train.world.protocol import World
from etude.train.world.sharding import Handed, Key

BUCKET_BYTES = 1 << 26
"""What a rank sends and receives at once, beside the tensors that become its own."""

_SENT, _RECEIVED = range(2)


def owners(sizes: Mapping[Key, int], count: int) -> dict[Key, int]:
    """Which of `count` ranks is to have each tensor, of so many bytes: the largest first, each to whom has least.

    >>> owners({("", "a"): 5, ("", "b"): 3, ("", "c"): 1}, 2)
    {('', 'a'): 0, ('', 'b'): 1, ('', 'c'): 1}
    """
    loads = [(0, rank) for rank in range(count)]
    heapify(loads)
    found: dict[Key, int] = {}
    for key in sorted(sizes, key=lambda key: (-sizes[key], key)):
        load, rank = loads[0]
        found[key] = rank
        heapreplace(loads, (load + sizes[key], rank))
    return found


def handed_out(world: World, tensors: Mapping[Key, Tensor], count: int) -> Handed:
    """Those of some tensors that lie on all ranks, each whole on one of the first `count`. All ranks call it.

    Those that are split along their first dimension are balanced by bytes; others, as an optimizer may have that keeps
    sums over rows, go to the first rank.
    """
    found = {key: tensor for key, tensor in tensors.items() if isinstance(tensor, DTensor)}
    split = {key: tensor for key, tensor in found.items() if tensor.ndim and tensor.placements == (Shard(0),)}
    owner = owners({key: tensor.numel() * tensor.element_size() for key, tensor in split.items()}, count)
    own = _Gathering(world, split, owner)()
    for key, tensor in found.items():
        if key not in split:
            owner[key] = 0
            whole = tensor.full_tensor()
            own |= {key: whole.cpu()} if world.is_first else {}
    return Handed(owner, own)


class _Piece(NamedTuple):
    """Of every rank's part of a tensor the bytes from `start` on, as many as go at once."""

    key: Key
    start: int


class _Gathering:
    """One gathering of tensors that are split along their first dimension, as `torch.chunk` does."""

    def __init__(self, world: World, tensors: Mapping[Key, DTensor], owner: Mapping[Key, int]) -> None:
        self._world = world
        self._tensors = tensors
        self._parts = {key: _parts(tensor, world.size) for key, tensor in tensors.items()}
        self._rooms: dict[int, Tensor] = {}
        self._step = max(1, BUCKET_BYTES // world.size)
        self._found = {
            key: torch.empty(tensor.shape, dtype=tensor.dtype)
            for key, tensor in tensors.items()
            if owner[key] == world.rank
        }
        buckets = [list(self._buckets([key for key in tensors if owner[key] == rank])) for rank in range(world.size)]
        self._rounds: list[tuple[list[_Piece], ...]] = list(zip_longest(*buckets, fillvalue=[]))

    def __call__(self) -> dict[Key, Tensor]:
        """Gather piece after piece; the tensors that this rank owns."""
        for pieces in self._rounds:
            self._take_in(pieces[self._world.rank], self._exchanged(pieces))
        return self._found

    def _buckets(self, keys: Sequence[Key]) -> Iterator[list[_Piece]]:
        """The pieces of these tensors, put together until they are as much as goes at once."""
        bucket: list[_Piece] = []
        held = 0
        for piece in chain.from_iterable(map(self._pieces, keys)):
            bucket.append(piece)
            held += sum(self._lengths([piece]))
            if held >= BUCKET_BYTES:
                yield bucket
                bucket, held = [], 0
        if bucket:
            yield bucket

    def _pieces(self, key: Key) -> Iterator[_Piece]:
        return (_Piece(key, start) for start in range(0, max(self._parts[key]), self._step))

    def _lengths(self, pieces: Sequence[_Piece]) -> list[int]:
        """By rank: how many bytes it has of some pieces."""
        return [sum(self._length(piece, rank) for piece in pieces) for rank in range(self._world.size)]

    def _length(self, piece: _Piece, rank: int) -> int:
        return max(0, min(self._step, self._parts[piece.key][rank] - piece.start))

    def _exchanged(self, pieces: Sequence[Sequence[_Piece]]) -> Sequence[Tensor]:
        """What each rank has of the pieces that this one is to have; each sends what the others are to have."""
        rank = self._world.rank
        own = [self._own(piece) for bucket in pieces for piece in bucket]
        lengths, sizes = [self._lengths(bucket)[rank] for bucket in pieces], self._lengths(pieces[rank])
        sent = torch.cat(own, out=self._room(_SENT, sum(lengths), own[0].device))
        return self._world.exchange(sent, lengths, self._room(_RECEIVED, sum(sizes), sent.device), sizes)

    def _room(self, which: int, size: int, device: torch.device) -> Tensor:
        """Memory for so many bytes, that of the rounds before: what is given back between them may lie in pieces."""
        room = self._rooms.get(which)
        if room is None or len(room) < size:
            room = self._rooms[which] = torch.empty(max(size, BUCKET_BYTES), dtype=torch.uint8, device=device)
        return room[:size]

    def _own(self, piece: _Piece) -> Tensor:
        """The bytes that this rank has of a piece."""
        part = _bytes_of(self._tensors[piece.key].to_local().detach())
        return part[piece.start : piece.start + self._step]

    def _take_in(self, own: Sequence[_Piece], received: Sequence[Tensor]) -> None:
        """Put what the ranks have sent where it belongs."""
        for rank, sent in enumerate(received):
            lengths = [self._length(piece, rank) for piece in own]
            for piece, part in zip(own, torch.split(sent, lengths), strict=True):
                begins = sum(self._parts[piece.key][:rank]) + piece.start
                _bytes_of(self._found[piece.key])[begins : begins + len(part)].copy_(part)


def _bytes_of(tensor: Tensor) -> Tensor:
    return tensor.contiguous().view(-1).view(torch.uint8)


def _parts(tensor: Tensor, size: int) -> list[int]:
    """How many bytes of a tensor each rank has."""
    rows, *row = tensor.shape
    each, width = -(-rows // size), prod(row) * tensor.element_size()
    return [max(0, min(each, rows - rank * each)) * width for rank in range(size)]
