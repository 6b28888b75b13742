"""Dropout whose rate may change from step to step, with masks from random 16-bit numbers."""

from typing import Any, final

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

LEVELS = 1 << 16
"""Rates are rounded to multiples of 1 / 65,536 on the processor."""


class _DropByBits(torch.autograd.Function):
    """Dropout from random bits: torch's own draws a double for each element, which takes longer than the rest."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, rate: float) -> Tensor:
        dropped = round(rate * LEVELS)
        words = torch.empty((value.numel() + 3) // 4, dtype=torch.int64)
        words.random_(-(1 << 63), None)  # all 64 bits, from torch's global generator
        draws = words.view(torch.int16)[: value.numel()].view(value.shape)
        kept = (draws >= dropped - LEVELS // 2).to(value.dtype)
        ctx.save_for_backward(kept)
        ctx.scale = LEVELS / (LEVELS - dropped)
        return _scaled_product(value, kept, ctx.scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (kept,) = ctx.saved_tensors
        return _scaled_product(gradient, kept, ctx.scale), None


def _scaled_product(value: Tensor, kept: Tensor, scale: float) -> Tensor:
    """Value x kept x scale in one pass; the scale is never rounded to bfloat16."""
    return torch.addcmul(value.new_zeros(()), value, kept, value=scale)


def drop(value: Tensor, rate: float) -> Tensor:
    """`value` with each element zeroed with probability `rate` and the others scaled by 1 / (1 - rate).

    Draws from torch's global generator of the value's device.
    """
    if value.device.type == "cpu" and round(rate * LEVELS) < LEVELS:
        return _DropByBits.apply(value, rate)  # type: ignore[no-any-return,no-untyped-call]
    return nn.functional.dropout(value, rate)


@final
class Dropout(nn.Module):
    """Zero elements with probability `rate` in training; do nothing in evaluation.

    `rate` may be set between steps. `kind` is the config's name of the rate, by which `set_dropout` finds it.
    """

    def __init__(self, rate: float = 0.0, kind: str = "dropout") -> None:
        super().__init__()
        self.rate = rate
        self.kind = kind

    def forward(self, value: Tensor) -> Tensor:
        """Any shape; the shape stays."""
        return drop(value, self.rate) if self.training and self.rate > 0 else value

    def extra_repr(self) -> str:
        """Rate and kind, in what `print(model)` shows."""
        return f"rate={self.rate}, kind={self.kind!r}"


def set_dropout(module: nn.Module, kind: str, rate: float) -> int:
    """Give every `Dropout` of that `kind` inside `module` the rate; returns how many there are."""
    found = [part for part in module.modules() if isinstance(part, Dropout) and part.kind == kind]
    for part in found:
        part.rate = rate
    return len(found)
