"""Gradients as one list: norm, scaling, and a buffer for each loss term."""

from collections.abc import Iterator, Sequence
from operator import attrgetter

import torch
from torch import Tensor, nn

from etude.train.optim.sparse import added, summed
from etude.train.world.sharding import local


def gradients(parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    """The gradients that are there, of sharded ones this rank's part.

    Of a sparse one its values, each row once, which are changed with it.
    """
    found = local([p.grad for p in parameters if p.grad is not None])
    return list(_values(parameters)) if any(map(_IS_SPARSE, found)) else found


_IS_SPARSE = attrgetter("is_sparse")


def _values(parameters: Sequence[nn.Parameter]) -> Iterator[Tensor]:
    """What the gradients hold."""
    for parameter in parameters:
        match parameter.grad:
            case Tensor(is_sparse=True) as sparse:
                parameter.grad = summed(sparse)
                yield parameter.grad.values()
            case Tensor() as dense:
                yield dense


def global_norm(grads: Sequence[Tensor]) -> Tensor:
    """The 2-norm of all gradients together, a scalar tensor on their device."""
    if not grads:
        return torch.zeros(())
    # One fused call for all tensors; nn.utils' own sorts them by device and type first, at several times the cost.
    norms = torch._foreach_norm(list(grads))  # noqa: SLF001 - torch's own optimizers build on it
    total: Tensor = torch.linalg.vector_norm(torch.stack(norms))
    return total


def scale(grads: Sequence[Tensor], factor: float | Tensor) -> None:
    """Multiply every gradient in place."""
    if grads:
        torch._foreach_mul_(list(grads), factor)


class TermBuffers:
    """A gradient for each term of a loss, for terms whose counts are known only at the end of a step."""

    def __init__(self, parameters: Sequence[nn.Parameter], begun: str | None = None) -> None:
        self._parameters = [p for p in parameters if p.requires_grad]
        self._buffers: dict[str, list[Tensor | None]] = {}
        if begun is not None:  # the gradients so far are those of this one term
            self._buffers[begun] = [p.grad for p in self._parameters]
            for parameter in self._parameters:
                parameter.grad = None

    def add(self, name: str, value: Tensor, *, retain_graph: bool) -> None:
        """Differentiate `value` and add the result to the buffer of `name`."""
        new = torch.autograd.grad(value, self._parameters, retain_graph=retain_graph, allow_unused=True)
        old = self._buffers.setdefault(name, [None] * len(new))
        self._buffers[name] = [
            after if before is None else before if after is None else added(before, after)
            for before, after in zip(old, new, strict=True)
        ]

    def differentiated(self, parameters: Sequence[nn.Parameter], *, sparse: bool) -> list[bool]:
        """Of each parameter, whether a term has a gradient of this layout for it."""
        found = {
            id(parameter)
            for buffer in self._buffers.values()
            for parameter, grad in zip(self._parameters, buffer, strict=True)
            if grad is not None and grad.is_sparse == sparse
        }
        return [id(parameter) in found for parameter in parameters]

    def release(self, factors: dict[str, float | Tensor]) -> None:
        """Add each buffer, times its term's factor, to the parameters' gradients."""
        for name, buffer in self._buffers.items():
            for parameter, grad in zip(self._parameters, buffer, strict=True):
                if grad is not None:
                    part = grad * factors[name]
                    parameter.grad = part if parameter.grad is None else added(parameter.grad, part)
        self._buffers.clear()
