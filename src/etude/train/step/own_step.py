"""A step that the task or the optimizer takes itself, with a closure that computes the loss."""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from etude.train.optim.slot import Slot
from etude.train.step.gradient import Batches
from etude.train.step.outcome import Outcome
from etude.train.step.precision import Precision
from etude.train.task import Task, accepts
from etude.train.watch.events import Events
from etude.train.watch.metrics import ScalarLog


class _NoStepError(Exception):
    """Leaves a task's own optimizer_step before its optimizer takes a gradient that is not finite, or none."""


class Compute(Protocol):
    """Leaves a group's gradient in the slot's parameters, added to `base`, and returns the loss."""

    def __call__(
        self, slot: Slot, batches: Batches, outcome: Outcome, base: Sequence[Tensor | None] | None = None
    ) -> Tensor:
        """Compute the gradient."""


class OwnStep:
    """Calls `Task.optimizer_step`: where a task has its own, or the optimizer (L-BFGS) evaluates the loss itself."""

    def __init__(
        self, task: Task, compute: Compute, *, precision: Precision, events: Events, scalars: ScalarLog
    ) -> None:
        self._task = task
        self._compute = compute
        self._precision = precision
        self._events = events
        self._scalars = scalars
        self._always = type(task).optimizer_step is not Task.optimizer_step
        self._keywords = [name for name in ("name", "progress") if accepts(task.optimizer_step, name)]

    def is_asked_for(self, slot: Slot) -> bool:
        """Whether the steps of this optimizer are taken so."""
        return self._always or slot.needs_closure

    def __call__(self, slot: Slot, batches: Batches, outcome: Outcome) -> None:
        """Take the step; the closure may be called never, once or often."""
        base = slot.gradients_kept()
        logged = self._scalars.mark()
        computed = False

        def closure() -> Tensor:
            nonlocal computed
            slot.restore_gradients(None)
            if computed:
                outcome.clear()
                self._scalars.go_back(logged)
                self._precision.rescale()
            computed = True
            loss = self._compute(slot, batches, outcome, base)
            if not outcome.finite or (outcome.empty and base is None):
                raise _NoStepError
            self._events.before_step(slot.optimizer)
            return loss

        before = slot.steps
        try:
            with slot.counted():
                known = {"name": slot.name, "progress": batches.progress}
                given = {keyword: known[keyword] for keyword in self._keywords}
                self._task.optimizer_step(slot.optimizer, closure, **given)  # type: ignore[arg-type]
        except _NoStepError:
            slot.steps = before + 1
        if computed and not outcome.empty:
            self._precision.rescale()
        if slot.steps != before:
            slot.drop_gradients()
