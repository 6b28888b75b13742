"""What learns: a task, its optimizers, and all that decides what a step makes of a group of batches.

A `Run` knows when; what it asks for is done here. One step, followed through: `Learner.step` sets the scheduled values
and hands the batches to `Update`, which gives each optimizer its turn: `Gradient` differentiates the loss of all
batches as if they were one, the gradient is clipped, and the optimizer steps. What came of it is an `Outcome`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypedDict

import torch
from torch import Tensor

from etude.base.progress import Progress
from etude.base.schedules import Driven
from etude.data.feeds.feed import Delivery
from etude.train.evaluate import evaluate
from etude.train.memory.state import Part
from etude.train.optim.slot import Slot, SlotState
from etude.train.rows import step_row
from etude.train.step.failures import TRAINED, attempted
from etude.train.step.hiddens import Hiddens, NoHiddens
from etude.train.step.outcome import Outcome
from etude.train.step.pieces import evaluated
from etude.train.step.precision import Precision
from etude.train.structure import Change, InForce, Made, Structure
from etude.train.task import Task
from etude.train.values import Values
from etude.train.watch.callback import Events
from etude.train.watch.record import Row
from etude.train.world import World

Group = Sequence[Delivery]
"""The batches of one step."""


class InTime(NamedTuple):
    """How batches are taken along time: `train.tbptt_steps` and `train.carry_hiddens`."""

    steps: int | None = None
    carry: bool = False


class LearnerState(TypedDict):
    """Weights by name, and the optimizers' states by theirs."""

    model: Mapping[str, Tensor]
    averaged: Mapping[str, Tensor] | None
    optimizers: Mapping[str, SlotState]


class Learner:
    """A task and what trains it; `assemble` makes what depends on its structure, for given optimizers."""

    def __init__(  # noqa: PLR0913 - what a step is made of, one for one
        self,
        task: Task,
        slots: Sequence[Slot],
        assemble: Callable[[Sequence[Slot]], Made],
        *,
        values: Values,
        group_size: Callable[[Progress], int],
        precision: Precision,
        hiddens: Hiddens | NoHiddens,
        in_time: InTime,
        device: torch.device,
        seed: int,
        structure: Structure,
        world: World,
    ) -> None:
        self.task = task
        self.values = values
        self.group_size = group_size
        """How many batches the next step takes."""
        self.device = device
        self.precision = precision
        self._assemble = assemble
        self._hiddens = hiddens
        self._in_time = in_time
        self._seed = seed
        self._structure = structure
        self._in_force = InForce()
        self._world = world
        self.slots = slots
        self.update, self.average = assemble(slots)

    # -- a step --------------------------------------------------------------------------------------------------

    def begin_epoch(self, progress: Progress) -> None:
        """Take up what an epoch that begins at `progress` is made with; here alone the structure is replaced."""
        change = self._structure.at(progress)
        if change is not None:
            self._replace(change)
        self.values.begin_epoch(progress)
        self._hiddens.forget()

    def step(self, group: Group, progress: Progress) -> Outcome:
        """Take the step that comes at `progress`."""
        self.values.set(progress)
        batches = [delivery.batch for delivery in group]
        firsts = [delivery.piece == 0 for delivery in group]
        outcome = attempted(self.update, batches, progress, firsts, ends=group[-1].ends, lower=TRAINED)
        if outcome.moves:
            self.average.update()
        return outcome

    def count(self, outcome: Outcome) -> int:
        """The targets that a step counted, on all ranks together."""
        return int(self._world.sum(outcome.tokens))

    def follow(self, before: Progress, now: Progress) -> None:
        """Step the torch schedulers that a step from `before` to `now` makes due."""
        for slot in self.slots:
            slot.follow(before, now)

    def row(self, outcome: Outcome) -> Row:
        """What a step's log line tells of it."""
        return step_row(outcome, self.update.scalars.read(), self.slots, self.values)

    def _replace(self, change: Change) -> None:
        """Take up another structure; what the old one has in common with it goes on."""
        former = self.average
        self.slots = change.build(self.task, self.slots)
        self.update, self.average = self._assemble(self.slots)
        self.average.take_over(former)
        self._in_force.name = change.name

    # -- a validation --------------------------------------------------------------------------------------------

    def evaluate(
        self, deliveries: Iterator[Delivery], events: Events, progress: Progress, nothing: Callable[[], None]
    ) -> dict[str, float]:
        """The metrics of a validation with the averaged weights, if kept; calls `nothing` where no target counted."""
        task = self.task
        task.progress = progress
        step, taken = evaluated(task, task.validation_step, deliveries, **self._in_time._asdict())
        with self.average.applied():
            return evaluate(
                task,
                taken,
                step,
                prefix="val",
                device=self.device,
                seed=self._seed,
                forward=self.precision.for_evaluation().forward,
                weigh=self.update.weigh,
                before=events.validation_batch_start,
                after=events.validation_batch_end,
                nothing=nothing,
            )

    def driven(self) -> dict[str, Driven]:
        """The schedules that follow validations, by name."""
        driven = {name: schedule for slot in self.slots for name, schedule in slot.driven().items()}
        return driven | dict(self.values.driven)

    def check(self, metrics: Mapping[str, float]) -> None:
        """Raise ConfigError where a schedule follows a metric that a validation does not give."""
        for schedule in self.driven().values():
            schedule.check(metrics)

    def follow_validation(self, monitored: float | None, metrics: Mapping[str, float], progress: Progress) -> None:
        """Let the schedules take in what a validation measured; `monitored` is what the run is judged by, if there."""
        for slot in self.slots:
            slot.follow_validation(monitored)
        for schedule in self.driven().values():
            schedule.follow_validation(metrics, progress)

    # -- memory --------------------------------------------------------------------------------------------------

    def parts(self) -> dict[str, Part]:
        """What of State this remembers, besides weights and optimizers."""
        parts: dict[str, Part] = {"precision": self.precision, **self._hiddens.parts(), **self.values.parts()}
        parts |= {f"schedule {name}": schedule for name, schedule in self.driven().items()}
        return parts | {"average": self.average, "structure": self._in_force}

    def state_dict(self) -> LearnerState:
        """Weights, their average, and the optimizers' states by name."""
        return {
            "model": self.task.state_dict(),
            "averaged": self.average.weights(),
            "optimizers": {slot.name: slot.state_dict() for slot in self.slots},
        }

    def load_state_dict(self, state: LearnerState) -> None:
        """Go on from `state_dict()`, whose weights must fit."""
        self.task.load_state_dict(dict(state["model"]))
        for slot in self.slots:
            slot.load_state_dict(state["optimizers"][slot.name])
        self.average.load(state["averaged"])

    def restructure(self, name: str) -> None:
        """Take up the structure that a checkpoint is of, before its weights are loaded."""
        if name != self._in_force.name:
            self._replace(self._structure.named(name))
