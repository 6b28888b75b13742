"""Dropout, of elements and of whole layers, whose rate may change from step to step."""

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Protocol, final

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from etude.base.config.section import Section
from etude.base.schedules.values import ScheduledValue
from etude.model.rates import Rate, initial, is_constant

LEVELS = 1 << 16
"""Rates are rounded to multiples of 1 / 65,536 on the processor."""


class _Context(Protocol):
    """What autograd keeps between forward and backward."""

    scale: float
    saved_tensors: tuple[Tensor]

    def save_for_backward(self, *tensors: Tensor) -> None: ...


class _DropByBits(torch.autograd.Function):
    """Dropout from random 16-bit numbers: torch's own draws a double an element, which takes longer than the rest."""

    @staticmethod
    def forward(ctx: _Context, value: Tensor, rate: float) -> Tensor:
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
    def backward(ctx: _Context, gradient: Tensor) -> tuple[Tensor, None]:
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


def drop_by_level(value: Tensor, level: Tensor) -> Tensor:
    """The same with a rate that is a scalar tensor, which a compiled graph reads anew at each call."""
    kept = torch.rand(value.shape, device=value.device) >= level
    return value * kept / (1 - level)


@final
class Dropout(nn.Module):
    """Zero elements with probability `rate` in training; do nothing in evaluation.

    `rate` may be set between steps; a compiled model takes it up without being compiled anew, but for the change
    between none and some. `kind` is the config's name of the rate, by which `set_dropout` finds it.
    """

    def __init__(self, rate: float = 0.0, kind: str = "dropout") -> None:
        super().__init__()
        self._level = torch.zeros(())
        self.rate = rate
        self.kind = kind

    @property
    def rate(self) -> float:
        """The probability in force."""
        return self._rate

    @rate.setter
    def rate(self, rate: float) -> None:
        self._rate = rate
        self._drops = rate > 0
        self._level.fill_(rate)

    def forward(self, value: Tensor) -> Tensor:
        """Any shape; the shape stays."""
        if not (self.training and self._drops):
            return value
        if torch.compiler.is_compiling():  # a number would be a constant of the graph
            return drop_by_level(value, self._level)
        return drop(value, self._rate)

    def extra_repr(self) -> str:
        """Rate and kind, in what `print(model)` shows."""
        return f"rate={self.rate}, kind={self.kind!r}"


@final
class LayerDrop(nn.Module):
    """Decides, layer by layer and batch by batch, whether a layer is left out in training: stochastic depth.

    LayerDrop of Fan et al. 2020 ("Reducing Transformer Depth on Demand with Structured Dropout"): every layer has the
    same rate, and one that is kept is not scaled. Stochastic depth as Huang et al. 2016 describe it scales by the
    share of batches that keep a layer, which has no meaning for layers that end normalised (post-norm). `rate` may be
    set between steps.
    """

    kind = "layer_drop"
    uncompiled_methods = ("falls",)
    """What `train.compile` leaves to Python: else it would compile anew for each way that a decision falls."""

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        self.rate = rate

    @property
    def rate(self) -> float:
        """The probability that a layer is left out."""
        return self._rate

    @rate.setter
    def rate(self, rate: float) -> None:
        self._rate = rate
        # A flag of its own, for compiled code that looks at a number is compiled anew whenever that changes.
        self._acts = rate > 0

    def leaves_out(self) -> bool:
        """Whether the next layer is left out; never in evaluation, and at rate 0 without a draw."""
        return self.training and self._acts and self.falls()

    def falls(self) -> bool:
        """Draw, from torch's generator of the processor, so that no device has to be waited for."""
        return float(torch.rand(())) < self._rate

    def extra_repr(self) -> str:
        """The rate, in what `print(model)` shows."""
        return f"rate={self.rate}"


@final
class LockedDropout(nn.Module):
    """Dropout of the same elements at every time step of a row, or, not `locked`, of any.

    Legend: B batch, T time, M width.
    """

    def __init__(self, dropout: Dropout, *, locked: bool) -> None:
        super().__init__()
        self.locked = locked
        self.dropout = dropout

    def forward(self, value_BTM: Tensor) -> Tensor:
        """[B, T, M], as it came in evaluation."""
        if not self.locked or not self.training or self.dropout.rate == 0:
            return self.dropout(value_BTM)  # type: ignore[no-any-return]
        mask_B1M = self.dropout(torch.ones_like(value_BTM[:, :1]))
        return value_BTM * mask_B1M  # type: ignore[no-any-return]


def dropout_of(kind: str, own: Rate | None, general: Rate) -> Dropout:
    """The dropout that the config calls `kind`, or the general one where it has no rate of its own."""
    return Dropout(initial(general)) if own is None else Dropout(initial(own), kind)


def scheduled_rates(module: nn.Module, config: Section, kinds: Iterable[str]) -> list[ScheduledValue]:
    """The rates of `module` that its config gives as schedules, of these kinds."""
    given = dict(config)
    return [
        ScheduledValue(f"model.{kind}", given[kind], partial(set_dropout, module, kind))
        for kind in kinds
        if not is_constant(given[kind])
    ]


def set_dropout(module: nn.Module, kind: str, rate: float) -> int:
    """Give every `Dropout` or `LayerDrop` of that `kind` inside `module` the rate; returns how many there are."""
    found = list(_of_kind(module, kind))
    for part in found:
        part.rate = rate
    return len(found)


def _of_kind(module: nn.Module, kind: str) -> Iterator[Dropout | LayerDrop]:
    for part in module.modules():
        if isinstance(part, (Dropout, LayerDrop)) and part.kind == kind:
            yield part
