"""Operators of torch that need more than their shapes, where tensors have no numbers."""
# ruff: noqa: SLF001 - torch has these operators under such names alone

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor
from torch._subclasses import FakeTensor
from torch.utils._python_dispatch import _disable_current_modes

aten = torch.ops.aten
FEW = 4
"""Time steps of a layer that is measured itself."""


def _item(tensor: Tensor) -> bool | int | float:
    """The number that an imagined tensor of one element is taken to hold: a one."""
    if tensor.dtype is torch.bool:
        return True
    return 1.0 if tensor.is_floating_point() else 1


def _nowhere(tensor: Tensor) -> Tensor:
    """That no number is odd."""
    return torch.zeros((), dtype=torch.bool).expand(tensor.shape)


ANSWERS: Mapping[Any, Callable[..., Any]] = {
    aten._local_scalar_dense.default: _item,
    aten.isnan.default: _nowhere,
    aten.isinf.default: _nowhere,
}
"""What is asked of numbers that there are not."""
BY_PLACES = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default}


def places_of(indices: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Indices with the places of a real mask in its stead, so that how many there are is known."""
    found: list[Tensor | None] = []
    for index in indices:
        if index is not None and index.dtype is torch.bool and not isinstance(index, FakeTensor):
            found += index.nonzero().unbind(1)
        else:
            found.append(index)
    return found


def _with_workspace(out: Sequence[Tensor], args: Sequence[Any]) -> tuple[Tensor, ...]:
    """The result of oneDNN's recurrent layer, with the workspace that it keeps for the way back.

    How large that is only the library knows, so that it is asked: it grows by the same for every further time step.
    """
    inputs, hidden = args[0], args[5]
    steps, batch, width = inputs.shape
    options = tuple(tuple(option) if isinstance(option, list) else option for option in args[7:])
    size = _workspace(steps, batch, width, hidden.shape[-1], inputs.dtype, options)
    return (*out[:3], out[3].new_empty(size))


@cache
def _workspace(steps: int, batch: int, width: int, hidden: int, dtype: torch.dtype, more: tuple[Any, ...]) -> int:
    """Bytes of the workspace: measured, or of a long layer from layers of two and of four time steps."""
    if steps <= FEW:
        return _measured_workspace(steps, batch, width, hidden, dtype, more)
    few = _measured_workspace(2, batch, width, hidden, dtype, more)
    return few + (steps - 2) * (_measured_workspace(FEW, batch, width, hidden, dtype, more) - few) // (FEW - 2)


def _measured_workspace(
    steps: int, batch: int, width: int, hidden: int, dtype: torch.dtype, more: tuple[Any, ...]
) -> int:
    with _disable_current_modes():
        make = partial(torch.zeros, dtype=dtype)
        biases = make(4 * hidden), make(4 * hidden)
        weights = make(4 * hidden, width), make(4 * hidden, hidden), *biases
        states = make(batch, hidden), make(batch, hidden)
        return int(aten.mkldnn_rnn_layer(make(steps, batch, width), *weights, *states, *more)[3].nbytes)


def _ctc_loss(logits: Tensor, targets: Tensor, frames: Any, lengths: Any, *_: Any) -> tuple[Tensor, Tensor]:
    """The losses [B] of torch's CTC over logits [T, B, V], and the forward variables [B, T, 2 L + 1]."""
    del targets, frames
    longest = int(max(lengths)) if len(lengths) else 0
    steps, batch = logits.shape[:2]
    return logits.new_empty(batch), logits.new_empty(batch, steps, 2 * longest + 1)


def _ctc_loss_backward(gradient: Tensor, logits: Tensor, *_: Any) -> Tensor:
    del gradient
    return torch.empty_like(logits)


MADE: Mapping[Any, Callable[..., Any]] = {
    aten._ctc_loss.default: _ctc_loss,
    aten._ctc_loss.Tensor: _ctc_loss,
    aten._ctc_loss_backward.default: _ctc_loss_backward,
    aten._ctc_loss_backward.Tensor: _ctc_loss_backward,
}
"""Operators of whose results torch does not know the shapes beforehand."""
WORKSPACES: Mapping[Any, Callable[..., Any]] = {aten.mkldnn_rnn_layer.default: _with_workspace}
"""Operators that keep more than their imagined results tell."""
