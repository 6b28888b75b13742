"""Gradients on their way to the other ranks: in buckets, which set off while the backward pass still goes on."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import final

import torch
from torch import Tensor, nn

from etude.train.world import World

BYTES, FIRST_BYTES = 25 << 20, 1 << 20
"""What a bucket holds, unless one tensor is larger; the first is small, so that it sets off early."""


@final
class Buckets:
    """The gradients of some parameters, added up over the ranks.

    Which gradients go together depends on the parameters alone, and so do the bits of a sum, whenever a bucket sets
    off. The last parameters go first, since a backward pass comes to them first; a gradient that is not there goes as
    zeros. A rank sends its buckets in one order: one that is not yet full holds up those behind it.
    """

    def __init__(self, world: World, parameters: Sequence[nn.Parameter]) -> None:
        self._world = world
        self._parameters = list(parameters)
        self._layout = list(_layout(parameters))
        self._place = {p: place for place, bucket in enumerate(self._layout) for p in bucket}
        self._early = False
        """Whether buckets may set off in the backward pass; the same on all ranks."""
        self._was_late = False
        self._missing: list[int] = []
        """By bucket: gradients that the backward pass has not made yet."""
        self._sent: list[tuple[Tensor, Callable[[], None]]] = []
        """By bucket, as far as they have set off: the sum to be, and what waits for it."""
        self.late = False
        """Whether a gradient has changed after its bucket had set off, as one that is made twice in a pass."""

    def are_of(self, parameters: Sequence[nn.Parameter]) -> bool:
        """Whether the buckets are those of these parameters."""
        return [*map(id, self._parameters)] == [*map(id, parameters)]

    def hold(self, parameter: nn.Parameter) -> bool:
        """Whether the gradient of a parameter goes in a bucket, if it is dense on all ranks."""
        return parameter in self._place

    @contextmanager
    def setting_off(self) -> Iterator[None]:
        """Let a bucket set off once the last backward pass of a step, inside the block, has made its gradients.

        In the first step none does: it shows whether gradients can be added up as they come.
        """
        self._sent, self.late = [], False
        if not self._early:
            yield
            return
        self._missing = [len(bucket) for bucket in self._layout]
        hooks = [p.register_post_accumulate_grad_hook(self._made) for p in self._parameters]  # type: ignore[no-untyped-call]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
        self._send_rest()

    def learn(self, *, sums: bool, late: bool) -> None:
        """Take in, before gradients are added up, whether they were `sums` as they came, and any changed too `late`.

        Where not all is well, what has set off comes to nothing.
        """
        self._was_late = self._was_late or late
        self._early = sums and not self._was_late
        if late or not sums:
            for _, wait in self._sent:
                wait()
            self._sent = []

    def add_up(self, there: Sequence[nn.Parameter]) -> None:
        """Leave the sum over the ranks in those parameters: all that have a gradient on any of them, sparse on none."""
        self._send_rest()
        sent, self._sent = self._sent, []
        wanted = set(there)
        for bucket, (flat, wait) in zip(self._layout, sent, strict=True):
            wait()
            totals = torch.split(flat, [p.numel() for p in bucket])
            for parameter, total in zip(bucket, totals, strict=True):
                if parameter in wanted:
                    _take(parameter, total.view(parameter.shape))

    def _made(self, parameter: nn.Parameter) -> None:
        place = self._place[parameter]
        self._missing[place] -= 1
        self.late = self.late or place < len(self._sent)
        while len(self._sent) < len(self._layout) and self._missing[len(self._sent)] <= 0:
            self._send()

    def _send_rest(self) -> None:
        while len(self._sent) < len(self._layout):
            self._send()

    @torch.no_grad()
    def _send(self) -> None:
        flat = torch.cat([_flat(parameter) for parameter in self._layout[len(self._sent)]])
        self._sent.append((flat, self._world.begin_to_add_up(flat)))


def _layout(parameters: Sequence[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """The parameters by bucket, the last ones first; those of a bucket are of one kind."""
    most = FIRST_BYTES
    for _, same in groupby(reversed(parameters), key=lambda p: (p.dtype, p.device)):
        bucket: list[nn.Parameter] = []
        held = 0
        for parameter in same:
            if bucket and held + parameter.nbytes > most:
                yield bucket
                bucket, held, most = [], 0, BYTES
            bucket.append(parameter)
            held += parameter.nbytes
        yield bucket


def _flat(parameter: nn.Parameter) -> Tensor:
    """A gradient as it is sent; zeros where there is none, or a sparse one, which goes by itself."""
    grad = parameter.grad
    if grad is None or grad.is_sparse:
        return parameter.new_zeros(parameter.numel())
    return grad.reshape(-1)


def _take(parameter: nn.Parameter, total: Tensor) -> None:
    """Let the gradient be the sum, laid out as the parameter is."""
    if parameter.is_contiguous():
        parameter.grad = total
    else:
        parameter.grad = torch.empty_like(parameter).copy_(total)
