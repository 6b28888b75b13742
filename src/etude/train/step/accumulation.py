"""How the gradient of several batches becomes that of one batch made of them: three ways, from cheap to dear."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from math import log2
from typing import Protocol, final

from torch import Tensor, nn

from etude.base.errors import ConfigError
from etude.train.optim.slot import Slot
from etude.train.step.gradient_lists import TermBuffers, gradients, scale
from etude.train.step.terms import Term, inverse


class Differentiates(Protocol):
    """What turns a loss into gradients."""

    def differentiate(self, loss: Tensor) -> None:
        """Add the gradient of `loss` to the parameters'."""

    def prepared(self, loss: Tensor) -> Tensor:
        """What is to be differentiated for `loss` by somebody else."""


class Accumulation(ABC):
    """Takes in the terms of one batch after the other."""

    @abstractmethod
    def add(self, terms: Sequence[Term], active: Sequence[Term]) -> "Accumulation":
        """Add the gradient of a batch, of whose terms the `active` ones have any; return who takes the next batch."""

    def differentiated(self, parameters: Sequence[nn.Parameter], *, sparse: bool) -> list[bool]:
        """Of each parameter, whether a batch so far has a gradient of this layout for it."""
        return [p.grad is not None and p.grad.is_sparse == sparse for p in parameters]

    def can_be_added_up(self, *, terms: int) -> bool:
        """Whether gradients may be added up over ranks before `finish`; `terms` are those of all ranks together."""
        return terms == 1

    @abstractmethod
    def finish(self, factors: Mapping[str, float | Tensor]) -> None:
        """Leave the gradient of the whole; `factors` are the weight of each term over what all batches count."""


@final
class Counted(Accumulation):
    """The targets of all batches are known beforehand, so that each batch is scaled as it is differentiated."""

    def __init__(self, gradient: Differentiates, totals: Mapping[str, int]) -> None:
        self._gradient = gradient
        self._totals = totals

    def add(self, terms: Sequence[Term], active: Sequence[Term]) -> Accumulation:
        """Add a batch's share of the loss."""
        del terms
        if active:
            shares = [term.sum * (term.weight * inverse(self._total(term))) for term in active]
            self._gradient.differentiate(sum(shares[1:], start=shares[0]))
        return self

    def can_be_added_up(self, *, terms: int) -> bool:
        """They may: each is scaled already."""
        del terms
        return True

    def finish(self, factors: Mapping[str, float | Tensor]) -> None:
        """Nothing is left to do."""

    def _total(self, term: Term) -> int:
        """The targets of a term in all batches of the step, as the task counted them."""
        if term.name not in self._totals:
            raise ConfigError(
                f"count_targets(batch) counts {', '.join(self._totals) or 'nothing'}, but the step returns the loss "
                f"{term.name!r}, which it must count too."
            )
        return self._totals[term.name]


@final
class Told(Accumulation):
    """The one batch of a step, of which ranks have told each other what they count before any is differentiated."""

    def __init__(self, gradient: Differentiates, ask: Callable[[], Mapping[str, float | Tensor]]) -> None:
        self._gradient = gradient
        self._ask = ask

    def add(self, terms: Sequence[Term], active: Sequence[Term]) -> Accumulation:
        """Add the loss."""
        del terms
        factors = self._ask()
        shares = [term.sum * factors[term.name] for term in active]
        if shares:
            self._gradient.differentiate(sum(shares[1:], start=shares[0]))
        return self

    def finish(self, factors: Mapping[str, float | Tensor]) -> None:
        """Nothing is left to do."""


@final
class OneTerm(Accumulation):
    """A loss of one term: sums are differentiated, and the gradient is scaled once, when the count is known."""

    def __init__(self, gradient: Differentiates, slot: Slot, batches: int | None, *, alone: bool = False) -> None:
        self._gradient = gradient
        self._slot = slot
        self._batches = batches
        """None where sums are added up over ranks, and have to be in the same unit on all of them."""
        self._alone = alone
        """Whether there may be no other term, since a gradient for each cannot be kept."""
        self._name: str | None = None
        self._unit: float | Tensor = 1.0

    def add(self, terms: Sequence[Term], active: Sequence[Term]) -> Accumulation:
        """Add a batch's sum; from the first one with another term on, each has a gradient of its own."""
        if len(terms) != 1 or self._name not in {None, terms[0].name}:
            if self._alone:
                raise ConfigError(
                    'distributed.strategy = "fsdp" accumulates several loss terms only where the task counts their '
                    "targets ahead: define count_targets(batch), or set train.accumulate to 1."
                )
            return TermByTerm(self._gradient, self._slot, self._name, self._unit).add(terms, active)
        (term,) = terms
        if self._name is None:
            self._name = term.name
            if self._batches is not None:
                self._unit = _power_of_two(term.count, self._batches)
        loss = term.sum / self._unit
        if loss.requires_grad:
            self._gradient.differentiate(loss)
        return self

    def finish(self, factors: Mapping[str, float | Tensor]) -> None:
        """Divide by the count."""
        if self._name is not None:
            scale(gradients(self._slot.parameters), factors[self._name] * self._unit)


@final
class TermByTerm(Accumulation):
    """Several terms whose counts are known at the end alone: a gradient is kept for each."""

    def __init__(self, gradient: Differentiates, slot: Slot, begun: str | None, unit: float | Tensor) -> None:
        slot.notice_buffers()
        self._gradient = gradient
        self._unit = unit
        self._buffers = TermBuffers(slot.parameters, begun)

    def add(self, terms: Sequence[Term], active: Sequence[Term]) -> Accumulation:
        """Add each term's sum to its own gradient."""
        del terms
        for position, term in enumerate(active, start=1):
            value = self._gradient.prepared(term.sum / self._unit)
            self._buffers.add(term.name, value, retain_graph=position < len(active))
        return self

    def differentiated(self, parameters: Sequence[nn.Parameter], *, sparse: bool) -> list[bool]:
        """Of each parameter, whether a batch so far has a gradient of this layout for it."""
        return self._buffers.differentiated(parameters, sparse=sparse)

    def finish(self, factors: Mapping[str, float | Tensor]) -> None:
        """Add the gradients, each over its term's count."""
        self._buffers.release({name: factor * self._unit for name, factor in factors.items()})


def _power_of_two(count: float | Tensor, batches: int) -> float | Tensor:
    """A power of two near the step's count: sums are divided by it, exactly, so that they stay small in any format.

    Of a count on an accelerator a tensor there, unread.
    """
    expected = count * batches
    if isinstance(expected, Tensor):
        expected = expected.float().clamp(min=1.0)
        return expected / expected.frexp().mantissa
    return 2.0 ** round(log2(expected)) if expected > 0 else 1.0
