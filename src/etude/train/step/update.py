"""One optimizer update from the batches of a group: the gradient of their union, and the step taken with it."""

from collections.abc import Callable, Mapping, Sequence
from math import isfinite

import torch
from torch import Tensor

from etude.base.progress import Progress
from etude.data.nest import move
from etude.train.optim.slot import Slot
from etude.train.step.gradient import Batches, Gradient
from etude.train.step.gradient_lists import global_norm, gradients, scale
from etude.train.step.hiddens import Hiddens, NoHiddens
from etude.train.step.noise import NoNoise, ParameterNoise
from etude.train.step.outcome import Outcome, Round
from etude.train.step.own_step import OwnStep
from etude.train.step.precision import Precision
from etude.train.step.ranks import Among, Ranks
from etude.train.step.statistics import Running
from etude.train.step.terms import ExtraTerm, NameCheck, Term, Weigher
from etude.train.task import Task
from etude.train.watch.events import Events
from etude.train.watch.metrics import ScalarLog

NO_HIDDENS, NO_NOISE = NoHiddens(), NoNoise()
_NORM_EPSILON = 1e-6  # as in torch.nn.utils.clip_grad_norm_


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
        hiddens: Hiddens | NoHiddens = NO_HIDDENS,
        noise: ParameterNoise | NoNoise = NO_NOISE,
        extra_terms: Sequence[ExtraTerm] = (),
        term_weights: Mapping[str, float] | None = None,
        events: Events | None = None,
        among: Among | None = None,
    ) -> None:
        self._task = task
        self._slots = slots
        self._device = device
        self._on_cpu = device.type == "cpu"
        self._precision = precision
        self._clip = clip_grad
        self._noise = noise
        self._extra_terms = extra_terms
        weights = term_weights or {}
        self._names = NameCheck(weights, [term.name for term in extra_terms], [slot.name for slot in slots])
        self._running = Running(task)
        self._hiddens = hiddens
        self._events = events or Events(())
        self._ranks = None if among is None or among.world.size == 1 else Ranks(among, self._running)
        self.scalars = ScalarLog()
        """What `task.log` was given in this step."""
        self._gradient = Gradient(
            task,
            device=device,
            precision=precision,
            seed=seed,
            stage=stage,
            say=say,
            hiddens=self._hiddens,
            term_weights=weights,
            events=self._events,
            scalars=self.scalars,
            ranks=self._ranks,
        )
        self._own_step = OwnStep(task, self._compute, precision=precision, events=self._events, scalars=self.scalars)

    @property
    def weigh(self) -> Weigher:
        """Counts the samples of a batch, and says once where it cannot."""
        return self._gradient.weigh

    def __call__(
        self,
        group: Sequence[object],
        progress: Progress,
        firsts: Sequence[bool] = (),
        *,
        ends: bool = True,
        borrowed: Sequence[bool] = (),
    ) -> Outcome:
        """Take the step of `group`, batches as the loader gave them, at `progress` (before the step).

        `firsts` tells which of them are not later pieces of a batch (all, unless given), `ends` whether the last is
        all, or the last piece, of its batch, `borrowed` which of them are nothing of this rank's.
        """
        self.scalars.clear()
        # Not by setattr, which in an nn.Module looks for parameters first, at ten times the cost.
        attributes = vars(self._task)
        attributes["_scalars"] = self.scalars
        attributes["progress"] = progress
        moved = group if self._on_cpu else [move(batch, self._device, non_blocking=True) for batch in group]
        batches = Batches(moved, firsts or [True] * len(moved), progress, borrowed)
        self._running.keep()
        self._noise.begin()
        turns: dict[str, Outcome] = {}
        for slot in self._slots:
            slot.set_rates(progress)
            turns[slot.name] = outcome = Outcome()
            with slot.alone():
                self._turn(slot, batches, outcome)
            if outcome.finite and outcome.terms:
                self._hiddens.keep(batch_ends=ends)
        outcome = outcome if len(turns) == 1 else Round(turns)
        if not outcome.moves:
            self._running.restore()
        elif self._ranks is not None:
            self._ranks.average_buffers()
        return outcome

    def _turn(self, slot: Slot, batches: Batches, outcome: Outcome) -> None:
        """Take the step of one optimizer."""
        if self._own_step.is_asked_for(slot):
            self._own_step(slot, batches, outcome)
            return
        self._compute(slot, batches, outcome)
        self._events.before_step(slot.optimizer)
        if not outcome.empty:
            self._precision.step(slot.optimizer, finite=outcome.finite)
        slot.steps += 1
        slot.drop_gradients()

    def _compute(
        self, slot: Slot, batches: Batches, outcome: Outcome, base: Sequence[Tensor | None] | None = None
    ) -> Tensor:
        """Leave the group's gradient in the slot's parameters, clipped; return the loss."""
        with self._noise.applied(batches.progress.step):
            loss = self._gradient.backward(slot, batches, outcome)
        self._names.see(slot.name, outcome.terms)
        outcome.judge()
        if not outcome.empty:
            if self._extra_terms:
                loss = loss + self._add_terms(outcome)
            self._precision.unscale(slot.optimizer)
        self._events.after_backward()
        if base is not None:
            slot.add_gradients(base)
        self._check_and_clip(slot, outcome)
        return loss

    def _add_terms(self, outcome: Outcome) -> Tensor:
        """Add what depends on the parameters alone, once a step, however many batches it has."""
        total = torch.zeros((), device=self._device)
        for extra in self._extra_terms:
            loss = extra(self._task)
            term = Term(extra.name, loss.sum, loss.count, loss.weight)
            if term.weight and term.value.requires_grad:
                value = loss.value * term.weight
                self._gradient.differentiate(value)
                total = total + value.detach()
            outcome.add(term, self._gradient.read(term.sum))
        return total

    def _check_and_clip(self, slot: Slot, outcome: Outcome) -> None:
        """Find out whether the gradient is finite, and scale it down to the norm that is allowed."""
        grads = gradients(slot.parameters)
        norm = global_norm(grads) if self._ranks is None else self._ranks.norm(global_norm(grads))
        clips = self._check_here(norm, outcome) if self._on_cpu else self._check_on_device(slot, norm, outcome)
        if clips and self._clip is not None:
            scale(grads, torch.clamp(self._clip / (norm + _NORM_EPSILON), max=1.0))

    def _check_here(self, norm: Tensor, outcome: Outcome) -> bool:
        """Read the norm; whether the gradient is to be clipped."""
        value = norm.item()
        outcome.grad_norm = value
        losses = all(isfinite(total) for total, _, _ in outcome.terms.values())
        finite = losses and isfinite(value)
        outcome.finite = finite if self._ranks is None else self._ranks.all_finite(own=finite)
        outcome.overflowed = losses and not outcome.finite and self._precision.is_scaled
        return outcome.finite and self._clip is not None and value > self._clip - 2 * _NORM_EPSILON

    def _check_on_device(self, slot: Slot, norm: Tensor, outcome: Outcome) -> bool:
        """Leave the norm unread where the optimizer looks at it itself; whatever it is, the gradient is clipped."""
        outcome.grad_norm = norm
        skips = slot.skip_on_device(outcome.leaving_out(norm))
        # Hiddens that are not finite must not be handed on, so that with them the host has to know.
        if not skips or self._hiddens.are_kept:
            outcome.judge(read=True)
            outcome.finite = bool(torch.isfinite(norm))
        return True
