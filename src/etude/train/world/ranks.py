"""All ranks of a run, over torch.distributed: gloo for what lies on the CPU, NCCL for what lies on GPUs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import Protocol, TypeVar, final

import torch
import torch.distributed as dist
from torch import Tensor

from etude.train.world.packing import packed, unpacked
from etude.train.world.post import Post
from etude.train.world.watch import Watch

T = TypeVar("T")
BUCKET = 1 << 25
"""Elements that are sent at once: what does not fit into one message goes in several."""


class Gate(Protocol):
    """What the others wait at for the first rank, by name."""

    def open(self, name: str) -> None:
        """Let them go on."""

    def wait(self, name: str) -> None:
        """Wait for that, for as long as it takes."""


@final
class Ranks:
    """The world of a process that has joined a group.

    `watch` knows which rank has failed first, `post` takes letters, and a gate lets those who wait for the first go on.
    """

    def __init__(self, watch: Watch, post: Post, gate: Gate) -> None:
        self.rank = post.rank
        self.size = post.size
        self.post = post
        self._watch = watch
        self._gate = gate
        self._blocks = 0
        """How many blocks the first has done, or is doing, before the others."""
        self._names: list[str] = []
        """What numbers have been added up by, in the same order on all ranks."""

    @property
    def is_first(self) -> bool:
        """Whether this is the rank that has the run folder."""
        return self.rank == 0

    def total(self, numbers: Mapping[str, float], marks: Sequence[bool] = ()) -> tuple[dict[str, float], list[bool]]:
        """By name, the sum over the ranks that have a number of that name, in one message once names are known."""
        while True:
            unknown = len(numbers.keys() - set(self._names))
            there = [name in numbers for name in self._names]
            values = [numbers.get(name, 0.0) for name in self._names]
            sent = torch.tensor([unknown, *there, *values, *marks], dtype=torch.float64)
            with self._speaking():
                dist.all_reduce(sent)
            found = sent.tolist()
            if not found[0]:
                count = len(self._names)
                sums = zip(self._names, found[1 : 1 + count], found[1 + count : 1 + 2 * count], strict=True)
                return {name: value for name, ranks, value in sums if ranks}, [
                    mark > 0 for mark in found[1 + 2 * count :]
                ]
            news = {name for names in self.gather(sorted(numbers)) for name in names} - set(self._names)
            self._names += sorted(news)

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Put into each tensor the sum over all ranks."""
        with self._speaking():
            for tensor in filter(_is_sparse, tensors):
                dist.all_reduce(tensor)
            _in_buckets([tensor for tensor in tensors if not tensor.is_sparse], dist.all_reduce)

    def begin_to_add_up(self, tensor: Tensor) -> Callable[[], None]:
        """Put into a tensor the sum over all ranks, while this one goes on; what is given waits for it."""
        with self._speaking():
            work = dist.all_reduce(tensor, async_op=True)

        def wait() -> None:
            with self._speaking():
                work.wait()

        return wait

    def spread(self, tensors: Sequence[Tensor]) -> None:
        """Put into each tensor what it is on the first rank."""
        with self._speaking():
            _in_buckets(tensors, lambda flat: dist.broadcast(flat, src=0))

    def gather(self, value: T) -> list[T]:
        """The values of all ranks, by rank."""
        found: list[bytes] = [b""] * self.size
        with self._speaking():
            dist.all_gather_object(found, packed(value))
        return [*map(unpacked, found)]

    def exchange(
        self, sent: Tensor, lengths: Sequence[int], received: Tensor, sizes: Sequence[int]
    ) -> Sequence[Tensor]:
        """Send each rank its part of `sent`, of these lengths; the parts of `received`, of these sizes, by rank."""
        with self._speaking():
            dist.all_to_all_single(received, sent, list(sizes), list(lengths))
        return torch.split(received, list(sizes))

    def agree(self, value: T | None) -> T | None:
        """What the lowest rank that has something to say says."""
        return next((said for said in self.gather(value) if said is not None), None)

    @contextmanager
    def after_the_first(self) -> Iterator[None]:
        """Let the first do what is inside the block before the others begin to; its failure ends them."""
        self._blocks += 1
        name = f"block {self._blocks}"
        if not self.is_first:
            self._gate.wait(name)
        yield
        if self.is_first:
            self._gate.open(name)

    @contextmanager
    def _speaking(self) -> Iterator[None]:
        """Count a call that all ranks take part in. Raises DistributedError, of the rank that failed first."""
        self._watch.called()
        try:
            yield
        except RuntimeError as error:  # as gloo and NCCL tell of a peer that is gone, or late
            raise self._watch.explained(error) from error


def _is_sparse(tensor: Tensor) -> bool:
    return tensor.is_sparse


@torch.no_grad()
def _in_buckets(tensors: Sequence[Tensor], send: Callable[[Tensor], object]) -> None:
    """Send tensors in their order, those that follow each other and are of one kind together."""
    for _, same in groupby(tensors, key=lambda tensor: (tensor.dtype, tensor.device)):
        for bucket in _buckets(same):
            _send_bucket(bucket, send)


def _buckets(tensors: Iterator[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    held = 0
    for tensor in tensors:
        if bucket and held + tensor.numel() > BUCKET:
            yield bucket
            bucket, held = [], 0
        bucket.append(tensor)
        held += tensor.numel()
    if bucket:
        yield bucket


def _send_bucket(bucket: list[Tensor], send: Callable[[Tensor], object]) -> None:
    match bucket:
        case [alone] if alone.is_contiguous():
            send(alone)
        case _:
            flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
            send(flat)
            parts = torch.split(flat, [tensor.numel() for tensor in bucket])
            torch._foreach_copy_(bucket, [part.view(tensor.shape) for part, tensor in zip(parts, bucket, strict=True)])
