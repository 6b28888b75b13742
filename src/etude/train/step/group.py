"""The gradient of a group of batches, as if they were one: forward and backward of each, scaled by what all count."""

from collections.abc import Callable, Mapping, Sequence
from math import log2
from typing import Any

import torch
from torch import Tensor

from etude.base.errors import ConfigError
from etude.base.progress import Progress
from etude.base.randomness import seed_of
from etude.train.optim.slot import Slot
from etude.train.step.gradients import TermBuffers, gradients, scale
from etude.train.step.hiddens import Hiddens, NoHiddens
from etude.train.step.outcome import Outcome
from etude.train.step.precision import Precision
from etude.train.step.terms import Term, Weigher, inverse, read_terms, weighted
from etude.train.task import Task, accepts
from etude.train.watch.callback import Events

Refusal = Callable[[Slot, Sequence[Term]], None]


class Group:
    """Differentiates the loss of a group of batches; the gradient is left in the parameters, not yet clipped."""

    def __init__(
        self,
        task: Task,
        *,
        device: torch.device,
        precision: Precision,
        seed: int,
        stage: str,
        say: Callable[[str], None],
        hiddens: Hiddens | NoHiddens,
        term_weights: Mapping[str, float],
    ) -> None:
        self._task = task
        self._device = device
        self._on_cpu = device.type == "cpu"
        self._precision = precision
        self._seed = seed
        self._stage = stage
        self._keywords = [name for name in ("hiddens", "optimizer", "progress") if accepts(task.training_step, name)]
        self._own_counts = type(task).count_targets is not Task.count_targets
        self._term_weights = term_weights
        self.hiddens = hiddens
        self.weigh = Weigher(task, say)
        """Counts the samples of a batch, and says once where it cannot."""
        self.events = Events(())

    def backward(
        self, slot: Slot, batches: Sequence[Any], firsts: Sequence[bool], progress: Progress, outcome: Outcome
    ) -> Tensor:
        """Leave the group's gradient in the slot's parameters; return the loss.

        `firsts` tells which of the batches are not later pieces of one.
        """
        self.hiddens.begin(slot.name)
        if len(batches) == 1:
            return self._one(slot, batches[0], firsts[0], progress, outcome)
        return self._several(slot, batches, firsts, progress, outcome)

    def _forward(
        self, slot: Slot, batch: Any, index: int, progress: Progress, *, first: bool, several: bool = False
    ) -> tuple[Term, ...]:
        task, hiddens = self._task, self.hiddens
        self.events.batch_start(batch)
        hiddens.before(batch, first=first)
        seed = seed_of(self._seed, self._stage, "forward", progress.step, index, slot.name)
        torch.default_generator.manual_seed(seed)
        if not self._on_cpu:
            torch.get_device_module(self._device).manual_seed(seed)
        with self._precision.forward():
            if self._keywords:
                known = {"hiddens": hiddens.now, "optimizer": slot.name, "progress": progress}
                returned = task.training_step(batch, **{keyword: known[keyword] for keyword in self._keywords})
            else:
                returned = task.training_step(batch)
        hiddens.after(returned)
        terms = read_terms(returned, lambda: self.weigh(batch) if several else task.batch_size(batch))
        return weighted(terms, self._term_weights) if self._term_weights else terms

    def _one(self, slot: Slot, batch: Any, first: bool, progress: Progress, outcome: Outcome) -> Tensor:  # noqa: FBT001 - one of `firsts`
        terms = self._forward(slot, batch, 0, progress, first=first)
        losses = [_mean(term) for term in terms if term.weight]
        if not losses:
            self._refuse_constant(slot, terms)
            losses = [torch.zeros(())]
        loss = losses[0] if len(losses) == 1 else torch.stack(losses).sum()
        self.events.before_backward(loss)
        if loss.requires_grad:
            self._precision.scaled(loss).backward()  # type: ignore[no-untyped-call]
        else:
            self._refuse_constant(slot, terms)
        for term in terms:
            outcome.add(term, self.read(term.sum))
        self.events.batch_end(batch)
        return loss.detach()

    def _several(
        self, slot: Slot, batches: Sequence[Any], firsts: Sequence[bool], progress: Progress, outcome: Outcome
    ) -> Tensor:
        totals = self._known_totals(batches)
        buffers: TermBuffers | None = None
        first: Term | None = None
        learns = False
        unit: float | Tensor = 1.0
        counts: dict[str, float | Tensor] = {}
        weights: dict[str, float] = {}
        for index, batch in enumerate(batches):
            terms = self._forward(slot, batch, index, progress, first=firsts[index], several=True)
            self._count(terms, counts, weights, outcome)
            active = [term for term in terms if term.weight and term.value.requires_grad]
            learns = learns or bool(active)
            if totals is not None:
                self._backward(sum(t.sum * (t.weight * inverse(_total(t, totals))) for t in active))  # type: ignore[arg-type]
            elif buffers is None and len(terms) == 1 and (first is None or first.name == terms[0].name):
                if first is None:
                    first, unit = terms[0], _power_of_two(terms[0].count, len(batches))
                self._backward(terms[0].sum / unit)
            else:
                if buffers is None:
                    slot.notice_buffers()
                    buffers = TermBuffers(slot.parameters, first.name if first else None)
                for position, term in enumerate(active):
                    value = self._precision.scaled(term.sum / unit)
                    self.events.before_backward(value)
                    buffers.add(term.name, value, retain_graph=position + 1 < len(active))
            self.events.batch_end(batch)
        if not learns:
            self._refuse_constant(slot, terms)
        factors = {name: weights[name] * inverse(count) * unit for name, count in counts.items()}
        if buffers is not None:
            buffers.release(factors)
        elif totals is None and first is not None:
            scale(gradients(slot.parameters), factors[first.name])
        return torch.as_tensor(outcome.unread_loss)

    def _count(
        self,
        terms: Sequence[Term],
        counts: dict[str, float | Tensor],
        weights: dict[str, float],
        outcome: Outcome,
    ) -> None:
        """Add one batch's terms to the group's."""
        for term in terms:
            counts[term.name] = counts.get(term.name, 0) + term.count
            weights[term.name] = term.weight
            outcome.add(term, self.read(term.sum))

    def _backward(self, loss: Tensor) -> None:
        if isinstance(loss, Tensor) and loss.requires_grad:
            self.events.before_backward(loss)
            self._precision.scaled(loss).backward()  # type: ignore[no-untyped-call]

    def _known_totals(self, batches: Sequence[Any]) -> dict[str, int] | None:
        if not self._own_counts:
            return None
        totals: dict[str, int] = {}
        for batch in batches:
            counts = self._task.count_targets(batch)
            if counts is None:
                return None
            if not isinstance(counts, Mapping):
                raise ConfigError(
                    f"count_targets(batch) must return the number of targets by the name of each loss, or None, but "
                    f"returned a {type(counts).__name__}."
                )
            for name, count in counts.items():
                totals[name] = totals.get(name, 0) + count
        return totals

    def read(self, value: Tensor) -> float | Tensor:
        """A number where that costs nothing; on an accelerator the tensor, unread."""
        return value.item() if self._on_cpu else value.detach()

    def _refuse_constant(self, slot: Slot, terms: Sequence[Term]) -> None:
        if not any(float(term.count) for term in terms):
            return  # a batch without targets says nothing
        if not any(term.weight for term in terms):
            raise ConfigError("Every term of the training loss has weight 0, so there is nothing to minimise.")
        if slot.is_frozen:
            raise ConfigError(
                f"Every parameter of the optimizer {slot.name!r} is frozen at step {slot.steps + 1:,}, so there is "
                f"nothing to learn; leave one of them trainable."
            )
        raise ConfigError(
            f"The training loss does not depend on any parameter of the optimizer {slot.name!r}, so there is nothing "
            f"to learn; was it detached, or is everything frozen?"
        )


def _mean(term: Term) -> Tensor:
    """The term over its count, weighted; a bare tensor of weight 1 keeps its bits."""
    value = term.value
    if not term.is_mean:
        # Division, not a product with the inverse: the bits of a mean taken by hand.
        divides = not isinstance(term.count, Tensor) and term.count > 0
        value = value / term.count if divides else value * inverse(term.count)
    return value if term.weight == 1.0 else value * term.weight


def _total(term: Term, totals: Mapping[str, int]) -> int:
    """The targets of a term in all batches of the step, as the task counted them."""
    if term.name not in totals:
        raise ConfigError(
            f"count_targets(batch) counts {', '.join(totals) or 'nothing'}, but the step returns the loss "
            f"{term.name!r}, which it must count too."
        )
    return totals[term.name]


def _power_of_two(count: float | Tensor, batches: int) -> float | Tensor:
    """A power of two near the step's count: sums are divided by it, exactly, so that they stay small in any format.

    Of a count on an accelerator a tensor there, unread.
    """
    expected = count * batches
    if isinstance(expected, Tensor):
        expected = expected.float().clamp(min=1.0)
        return expected / expected.frexp().mantissa
    return 2.0 ** round(log2(expected)) if expected > 0 else 1.0
