"""The gradient of a group of batches, as if they were one: forward and backward of each, scaled by what all count."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from etude.base.errors import ConfigError
from etude.base.progress import Progress
from etude.base.randomness import seed_of
from etude.model.exact import exact_dtype
from etude.train.optim.slot import Slot
from etude.train.step.accumulation import Accumulation, Counted, OneTerm, Told
from etude.train.step.hiddens import Hiddens, NoHiddens
from etude.train.step.outcome import Outcome
from etude.train.step.precision import Precision
from etude.train.step.ranks import Ranks
from etude.train.step.terms import Term, Weigher, inverse, read_terms, uncounted, weighted
from etude.train.task import Task, accepts
from etude.train.watch.events import Events
from etude.train.watch.heap import Tidy, of_this_process
from etude.train.watch.metrics import ScalarLog


class Batches(NamedTuple):
    """The batches of one step, on the device."""

    batches: Sequence[Any]
    firsts: Sequence[bool]
    """Which of them are not later pieces of one."""
    progress: Progress
    """How far the run is before the step."""
    borrowed: Sequence[bool] = ()
    """Which of them this rank has no part of: what it has in its hands is another's, and counts nothing."""


class Gradient:
    """Differentiates the loss of a group of batches; the gradient is left in the parameters, not yet clipped."""

    def __init__(  # noqa: PLR0913 - what a forward and backward depend on, one for one
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
        events: Events,
        scalars: ScalarLog,
        ranks: Ranks | None = None,
    ) -> None:
        self._task = task
        self._scalars = scalars
        self._ranks = ranks
        self._device = device
        self._on_cpu = device.type == "cpu"
        self._precision = precision
        self._seed = seed
        self._stage = stage
        self._keywords = [name for name in ("hiddens", "optimizer", "progress") if accepts(task.training_step, name)]
        self._own_counts = type(task).count_targets is not Task.count_targets
        self._term_weights = term_weights
        self._hiddens = hiddens
        self._events = events
        self._rank = () if ranks is None else (ranks.rank,)
        """Apart from the others', so that ranks drop out different things."""
        self._tidy = Tidy(of_this_process())
        self.weigh = Weigher(task, say)
        """Counts the samples of a batch, and says once where it cannot."""

    def backward(self, slot: Slot, group: Batches, outcome: Outcome) -> Tensor:
        """Leave the group's gradient in the slot's parameters; return the loss."""
        self._hiddens.begin(slot.name)
        if len(group.batches) == 1 and self._ranks is None:
            return self._one(slot, group, outcome)
        return self._several(slot, group, outcome)

    def differentiate(self, loss: Tensor) -> None:
        """Add the gradient of a loss, which is told before it is scaled up for a narrow format."""
        self._tidy()
        self._events.before_backward(loss)
        self._precision.scaled(loss).backward()  # type: ignore[no-untyped-call]

    def prepared(self, loss: Tensor) -> Tensor:
        """A loss that somebody else differentiates, scaled up for a narrow format, and told."""
        self._tidy()
        value = self._precision.scaled(loss)
        self._events.before_backward(value)
        return value

    def read(self, value: Tensor) -> float | Tensor:
        """A number where that costs nothing; on an accelerator the tensor, unread."""
        return value.item() if self._on_cpu else value.detach()

    def _forward(
        self, slot: Slot, group: Batches, index: int, samples: Callable[[object], int | None]
    ) -> tuple[Term, ...]:
        """The terms of the batch number `index`."""
        task, hiddens, batch = self._task, self._hiddens, group.batches[index]
        self._events.batch_start(batch)
        borrowed = bool(group.borrowed) and group.borrowed[index]
        hiddens.before(batch, first=group.firsts[index], borrowed=borrowed)
        logged = self._scalars.mark()
        seed = seed_of(self._seed, self._stage, "forward", group.progress.step, index, slot.name, *self._rank)
        torch.default_generator.manual_seed(seed)
        if not self._on_cpu:
            torch.get_device_module(self._device).manual_seed(seed)
        with self._precision.forward():
            if self._keywords:
                known = {"hiddens": hiddens.now, "optimizer": slot.name, "progress": group.progress}
                returned = task.training_step(batch, **{keyword: known[keyword] for keyword in self._keywords})
            else:
                returned = task.training_step(batch)
        if borrowed:
            self._scalars.go_back(logged)
        else:
            hiddens.after(returned)
        terms = read_terms(returned, lambda: samples(batch))
        if borrowed:
            terms = tuple(map(uncounted, terms))
        return weighted(terms, self._term_weights) if self._term_weights else terms

    def _one(self, slot: Slot, group: Batches, outcome: Outcome) -> Tensor:
        terms = self._forward(slot, group, 0, self._task.batch_size)
        losses = [_mean(term) for term in terms if term.weight]
        if not losses:
            _refuse_constant(slot, terms)
            losses = [torch.zeros(())]
        loss = losses[0] if len(losses) == 1 else torch.stack(losses).sum()
        if loss.requires_grad:
            self.differentiate(loss)
        else:
            self._events.before_backward(loss)
            _refuse_constant(slot, terms)
        self._count(terms, outcome)
        self._events.batch_end(group.batches[0])
        return loss.detach()

    def _several(self, slot: Slot, group: Batches, outcome: Outcome) -> Tensor:
        totals = self._known_totals(group.batches)
        sums = self._accumulation(slot, group, totals, outcome)
        learns = False
        for index, batch in enumerate(group.batches):
            terms = self._forward(slot, group, index, self.weigh)
            self._count(terms, outcome)
            active = [term for term in terms if term.learns]
            learns = learns or bool(active)
            with self._backward(slot, last=index == len(group.batches) - 1):
                sums = sums.add(terms, active)
            self._events.batch_end(batch)
        if not learns:
            _refuse_constant(slot, terms)
        if self._ranks is None:
            sums.finish(outcome.factors)
        else:
            self._ranks.finish(slot, sums, outcome)
        return torch.as_tensor(outcome.unread_loss, dtype=exact_dtype(terms[0].value))

    def _backward(self, slot: Slot, *, last: bool) -> AbstractContextManager[None]:
        """A block in which a batch is differentiated, the `last` of a step or not."""
        return nullcontext() if self._ranks is None else self._ranks.backward(slot, last=last)

    def _accumulation(
        self, slot: Slot, group: Batches, totals: Mapping[str, int] | None, outcome: Outcome
    ) -> Accumulation:
        """What adds up the gradients of a group."""
        ranks = self._ranks
        if totals is not None:
            return Counted(self, totals)
        if ranks is None:
            return OneTerm(self, slot, len(group.batches))
        if not ranks.sharding.is_sharded:
            return OneTerm(self, slot, None)
        if len(group.batches) == 1:
            return Told(self, lambda: ranks.told(outcome))
        return OneTerm(self, slot, None, alone=True)

    def _count(self, terms: Sequence[Term], outcome: Outcome) -> None:
        """Add a batch's terms to those of the step."""
        for term in terms:
            outcome.add(term, self.read(term.sum))
        outcome.note(terms)

    def _known_totals(self, batches: Sequence[object]) -> dict[str, int] | None:
        """The targets of each term in all batches, where the task can count them ahead."""
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
        return totals if self._ranks is None or self._ranks.locally else self._ranks.counted(totals)


def _mean(term: Term) -> Tensor:
    """The term over its count, weighted; a bare tensor of weight 1 keeps its bits."""
    value = term.value
    if not term.is_mean:
        # Division, not a product with the inverse: the bits of a mean taken by hand.
        divides = not isinstance(term.count, Tensor) and term.count > 0
        value = value / term.count if divides else value * inverse(term.count)
    return value if term.weight == 1.0 else value * term.weight


def _refuse_constant(slot: Slot, terms: Sequence[Term]) -> None:
    """Refuse a loss that no parameter has a part in, unless the batch has no targets, which says nothing."""
    if not any(float(term.count) for term in terms):
        return
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
