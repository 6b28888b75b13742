"""One optimizer update from the batches of a group: the gradient of their union, and the step taken with it."""

from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from typing import Any

import torch
from torch import Tensor

from etude.base.progress import Progress
from etude.data.nest import move
from etude.train.optim.slot import Slot
from etude.train.step.gradients import global_norm, gradients, scale
from etude.train.step.group import Group
from etude.train.step.hiddens import Hiddens, NoHiddens
from etude.train.step.noise import NoNoise, ParameterNoise
from etude.train.step.outcome import Outcome, Round
from etude.train.step.precision import Precision
from etude.train.step.statistics import Running
from etude.train.step.terms import ExtraTerm, NameCheck, Term, Weigher
from etude.train.task import Task, accepts
from etude.train.watch.callback import Events
from etude.train.watch.metrics import ScalarLog

_NORM_EPSILON = 1e-6  # as in torch.nn.utils.clip_grad_norm_


class _NotFiniteError(Exception):
    """Leaves a task's own optimizer_step before its optimizer takes a gradient that is not finite."""


class Update:
    """Takes steps: for a group of batches, one round over all optimizers."""

    def __init__(  # noqa: PLR0913 - what a step depends on, one for one
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
        hiddens: Hiddens | NoHiddens | None = None,
        noise: ParameterNoise | NoNoise | None = None,
        extra_terms: Sequence[ExtraTerm] = (),
        term_weights: Mapping[str, float] | None = None,
    ) -> None:
        self._task = task
        self._slots = slots
        self._device = device
        self._on_cpu = device.type == "cpu"
        self._precision = precision
        self._clip = clip_grad
        self._noise = noise or NoNoise()
        self._extra_terms = extra_terms
        self._names = NameCheck(term_weights or (), [term.name for term in extra_terms], [slot.name for slot in slots])
        self._step_keywords = [name for name in ("name", "progress") if accepts(task.optimizer_step, name)]
        self._running = Running(task)
        self._own_step = type(task).optimizer_step is not Task.optimizer_step
        self.hiddens: Hiddens | NoHiddens = hiddens or NoHiddens()
        self._group = Group(
            task,
            device=device,
            precision=precision,
            seed=seed,
            stage=stage,
            say=say,
            hiddens=self.hiddens,
            term_weights={} if term_weights is None else term_weights,
        )
        self.scalars = ScalarLog()
        """What `task.log` was given in this step."""

    @property
    def dtype(self) -> torch.dtype:
        """What the forward pass computes products in."""
        return self._precision.dtype

    @property
    def weigh(self) -> Weigher:
        """Counts the samples of a batch, and says once where it cannot."""
        return self._group.weigh

    @property
    def events(self) -> Events:
        """Who is told of what happens inside a step."""
        return self._group.events

    @events.setter
    def events(self, events: Events) -> None:
        self._group.events = events

    def __call__(
        self, group: Sequence[Any], progress: Progress, firsts: Sequence[bool] = (), *, ends: bool = True
    ) -> Outcome:
        """Take the step of `group`, batches as the loader gave them, at `progress` (before the step).

        `firsts` tells which of them are not later pieces of a batch (all, unless given), `ends` whether the last is
        all, or the last piece, of its batch.
        """
        self.scalars.clear()
        # Not by setattr, which in an nn.Module looks for parameters first, at ten times the cost.
        attributes = vars(self._task)
        attributes["_scalars"] = self.scalars
        attributes["progress"] = progress
        batches = group if self._on_cpu else [move(batch, self._device, non_blocking=True) for batch in group]
        firsts = firsts or [True] * len(batches)
        self._running.keep()
        self._noise.begin()
        turns: dict[str, Outcome] = {}
        for slot in self._slots:
            slot.set_rates(progress)
            turns[slot.name] = outcome = Outcome()
            with slot.alone():
                self._turn(slot, batches, firsts, progress, outcome)
            if outcome.finite and outcome.terms:
                self.hiddens.keep(batch_ends=ends)
        outcome = outcome if len(turns) == 1 else Round(turns)
        if not outcome.finite:
            self._running.restore()
        return outcome

    def _turn(
        self, slot: Slot, batches: Sequence[Any], firsts: Sequence[bool], progress: Progress, outcome: Outcome
    ) -> None:
        if not self._own_step and not slot.needs_closure:
            self._compute(slot, batches, firsts, progress, outcome)
            self.events.before_step(slot.optimizer)
            self._precision.step(slot.optimizer, finite=outcome.finite)
            slot.steps += 1
            slot.drop_gradients()
            return
        base = slot.gradients_kept()
        logged = self.scalars.mark()
        computed = False

        def closure() -> Tensor:
            nonlocal computed
            slot.restore_gradients(None)
            if computed:
                outcome.terms.clear()
                self.scalars.go_back(logged)
                self._precision.rescale()
            computed = True
            loss = self._compute(slot, batches, firsts, progress, outcome, base=base)
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
        self,
        slot: Slot,
        batches: Sequence[Any],
        firsts: Sequence[bool],
        progress: Progress,
        outcome: Outcome,
        base: Any = None,
    ) -> Tensor:
        """Leave the group's gradient in the slot's parameters, clipped; return the loss."""
        with self._noise.applied(progress.step):
            loss = self._group.backward(slot, batches, firsts, progress, outcome)
        self._names.see(slot.name, outcome.terms)
        if self._extra_terms:
            loss = loss + self._add_terms(outcome)
        self._precision.unscale(slot.optimizer)
        self.events.after_backward()
        if base is not None:
            slot.add_gradients(base)
        self._clip_and_check(slot, outcome)
        return loss

    def _add_terms(self, outcome: Outcome) -> Tensor:
        """Add what depends on the parameters alone, once a step, however many batches it has."""
        total = torch.zeros((), device=self._device)
        for extra in self._extra_terms:
            loss = extra(self._task)
            term = Term(extra.name, loss.sum, loss.count, loss.weight)
            if term.weight and term.value.requires_grad:
                value = loss.value * term.weight
                self.events.before_backward(value)
                self._precision.scaled(value).backward()  # type: ignore[no-untyped-call]
                total = total + value.detach()
            outcome.add(term, self._group.read(term.sum))
        return total

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
        # Hiddens that are not finite must not be handed on, so that with them the host has to know.
        if not slot.skip_on_device(norm) or isinstance(self.hiddens, Hiddens):
            outcome.finite = bool(torch.isfinite(norm))
        if self._clip is not None:
            scale(grads, torch.clamp(self._clip / (norm + _NORM_EPSILON), max=1.0))
