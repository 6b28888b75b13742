"""One optimizer update from the batches of a group: the gradient of their union, and the step taken with it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import isfinite, log2
from typing import Any

import torch
from torch import Tensor

from etude.base.errors import ConfigError
from etude.base.progress import Progress
from etude.base.randomness import seed_of
from etude.data.nest import move
from etude.train.callback import Events
from etude.train.gradients import TermBuffers, global_norm, gradients, scale
from etude.train.metrics import ScalarLog
from etude.train.optim.slot import Slot
from etude.train.precision import Precision
from etude.train.running import Running
from etude.train.task import Task, accepts
from etude.train.terms import Term, Weigher, inverse, read_terms

_NORM_EPSILON = 1e-6  # as in torch.nn.utils.clip_grad_norm_


class _NotFiniteError(Exception):
    """Leaves a task's own optimizer_step before its optimizer takes a gradient that is not finite."""


@dataclass
class Outcome:
    """What one step gave; tensors stay on the device until somebody reads them."""

    terms: dict[str, tuple[float | Tensor, float | Tensor, float]] = field(default_factory=dict)
    """By name: sum, count, weight."""
    grad_norm: float | Tensor = 0.0
    """Global norm before clipping."""
    finite: bool = True
    overflowed: bool = False
    """Whether only the scale of a narrow number format, which is lowered now, made the gradient overflow."""

    def add(self, term: Term, total: float | Tensor) -> None:
        """Add one batch's term; `total` is its sum, detached."""
        known = self.terms.get(term.name)
        self.terms[term.name] = (
            (total, term.count, term.weight)
            if known is None
            else (known[0] + total, known[1] + term.count, term.weight)
        )

    @property
    def loss(self) -> float:
        """The step's own loss: every term over its count, weighted and added (syncs on an accelerator)."""
        return sum(float(total) * float(inverse(count)) * weight for total, count, weight in self.terms.values())

    @property
    def tokens(self) -> float | Tensor:
        """Targets counted by the first term."""
        return next(iter(self.terms.values()))[1] if self.terms else 0


class Update:
    """Takes steps: for a group of batches, one round over all optimizers."""

    def __init__(
        self,
        task: Task,
        slots: Sequence[Slot],
        *,
        device: torch.device,
        precision: Precision,
        clip_grad: float | None = None,
        seed: int = 1,
        stage: str = "",
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._task = task
        self._slots = slots
        self._device = device
        self._on_cpu = device.type == "cpu"
        self._precision = precision
        self._clip = clip_grad
        self._seed = seed
        self._stage = stage
        self._keywords = [name for name in ("hiddens", "optimizer", "progress") if accepts(task.training_step, name)]
        self._step_keywords = [name for name in ("name", "progress") if accepts(task.optimizer_step, name)]
        self._running = Running(task)
        self.weigh = Weigher(task, say)
        """Counts the samples of a batch, and says once where it cannot."""
        self._own_step = type(task).optimizer_step is not Task.optimizer_step
        self._own_counts = type(task).count_targets is not Task.count_targets
        self.events = Events(())
        self.scalars = ScalarLog()
        """What `task.log` was given in this step."""

    def __call__(self, group: Sequence[Any], progress: Progress) -> Outcome:
        """Take the step of `group`, batches as the loader gave them, at `progress` (before the step)."""
        self.scalars.clear()
        # Not by setattr, which in an nn.Module looks for parameters first, at ten times the cost.
        attributes = vars(self._task)
        attributes["_scalars"] = self.scalars
        attributes["progress"] = progress
        batches = group if self._on_cpu else [move(batch, self._device, non_blocking=True) for batch in group]
        outcome = Outcome()
        self._running.keep()
        for slot in self._slots:
            slot.set_rates(progress)
            with slot.alone():
                self._turn(slot, batches, progress, outcome)
        if not outcome.finite:
            self._running.restore()
        return outcome

    def _turn(self, slot: Slot, batches: Sequence[Any], progress: Progress, outcome: Outcome) -> None:
        if not self._own_step and not slot.needs_closure:
            self._compute(slot, batches, progress, outcome)
            self.events.before_step(slot.optimizer)
            self._precision.step(slot.optimizer, finite=outcome.finite)
            slot.steps += 1
            slot.drop_gradients()
            return
        base = slot.gradients_kept()
        computed = False

        def closure() -> Tensor:
            nonlocal computed
            slot.restore_gradients(None)
            if computed:
                outcome.terms.clear()
                self._precision.rescale()
            computed = True
            loss = self._compute(slot, batches, progress, outcome, base=base)
            if not outcome.finite:
                raise _NotFiniteError
            self.events.before_step(slot.optimizer)
            return loss

        before = slot.steps
        try:
            with slot.counted():
                known: dict[str, Any] = {"name": slot.name, "progress": progress}
                self._task.optimizer_step(
                    slot.optimizer, closure, **{keyword: known[keyword] for keyword in self._step_keywords}
                )
        except _NotFiniteError:
            slot.steps = before + 1
        if computed:
            self._precision.rescale()
        if slot.steps != before:
            slot.drop_gradients()

    def _compute(
        self, slot: Slot, batches: Sequence[Any], progress: Progress, outcome: Outcome, base: Any = None
    ) -> Tensor:
        """Leave the group's gradient in the slot's parameters, clipped; return the loss."""
        if len(batches) == 1:
            loss = self._one(slot, batches[0], progress, outcome)
        else:
            loss = self._several(slot, batches, progress, outcome)
        self._precision.unscale(slot.optimizer)
        self.events.after_backward()
        if base is not None:
            slot.add_gradients(base)
        self._clip_and_check(slot, outcome)
        return loss

    def _forward(
        self, slot: Slot, batch: Any, index: int, progress: Progress, *, several: bool = False
    ) -> tuple[Term, ...]:
        seed = seed_of(self._seed, self._stage, "forward", progress.step, index, slot.name)
        torch.default_generator.manual_seed(seed)
        if not self._on_cpu:
            torch.get_device_module(self._device).manual_seed(seed)
        task = self._task
        self.events.batch_start(batch)
        with self._precision.forward():
            if self._keywords:
                known = {"hiddens": None, "optimizer": slot.name, "progress": progress}
                returned = task.training_step(batch, **{keyword: known[keyword] for keyword in self._keywords})
            else:
                returned = task.training_step(batch)
        return read_terms(returned, lambda: self.weigh(batch) if several else task.batch_size(batch))

    def _one(self, slot: Slot, batch: Any, progress: Progress, outcome: Outcome) -> Tensor:
        terms = self._forward(slot, batch, 0, progress)
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
            outcome.add(term, self._read(term.sum))
        return loss.detach()

    def _several(self, slot: Slot, batches: Sequence[Any], progress: Progress, outcome: Outcome) -> Tensor:
        totals = self._known_totals(batches)
        buffers: TermBuffers | None = None
        first: Term | None = None
        unit, learns = 1.0, False
        counts: dict[str, float | Tensor] = {}
        weights: dict[str, float] = {}
        for index, batch in enumerate(batches):
            terms = self._forward(slot, batch, index, progress, several=True)
            self._count(terms, counts, weights, outcome)
            active = [term for term in terms if term.weight and term.value.requires_grad]
            learns = learns or bool(active)
            if totals is not None:
                self._backward(sum(t.sum * (t.weight * inverse(totals[t.name])) for t in active))  # type: ignore[arg-type]
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
                    buffers.add(term.name, value, retain_graph=position + 1 < len(active))
        if not learns:
            self._refuse_constant(slot, terms)
        factors = {name: weights[name] * inverse(count) * unit for name, count in counts.items()}
        if buffers is not None:
            buffers.release(factors)
        elif totals is None and first is not None:
            scale(gradients(slot.parameters), factors[first.name])
        return torch.as_tensor(outcome.loss)

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
            outcome.add(term, self._read(term.sum))

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
            for name, count in counts.items():
                totals[name] = totals.get(name, 0) + count
        return totals

    def _clip_and_check(self, slot: Slot, outcome: Outcome) -> None:
        grads = gradients(slot.parameters)
        norm = global_norm(grads)
        if self._on_cpu:
            value = norm.item()
            outcome.grad_norm = value
            losses = all(isfinite(total) for total, _, _ in outcome.terms.values())
            outcome.finite = losses and isfinite(value)
            outcome.overflowed = losses and not outcome.finite and self._precision.is_scaled
            if outcome.finite and self._clip is not None and value > self._clip - 2 * _NORM_EPSILON:
                scale(grads, torch.clamp(self._clip / (norm + _NORM_EPSILON), max=1.0))
            return
        outcome.grad_norm = norm
        if not slot.skip_on_device(norm):
            outcome.finite = bool(torch.isfinite(norm))
        if self._clip is not None:
            scale(grads, torch.clamp(self._clip / (norm + _NORM_EPSILON), max=1.0))

    def _read(self, value: Tensor) -> float | Tensor:
        return value.item() if self._on_cpu else value.detach()

    def _refuse_constant(self, slot: Slot, terms: Sequence[Term]) -> None:
        if not any(float(term.count) for term in terms):
            return  # a batch without targets says nothing
        if not any(term.weight for term in terms):
            raise ConfigError("Every term of the training loss has weight 0, so there is nothing to minimise.")
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


def _power_of_two(count: float | Tensor, batches: int) -> float:
    """A power of two near the step's count: sums are divided by it, exactly, so that they stay small in any format."""
    expected = float(count) * batches
    return 2.0 ** round(log2(expected)) if expected > 0 else 1.0
