"""What learns: a task, its optimizers, and all that decides what a step makes of a group of batches.

A `Run` knows when; what it asks for is done here. One step, followed through: `Learner.step` sets the scheduled values
and hands the batches to `Update`, which gives each optimizer its turn: `Gradient` differentiates the loss of all
batches as if they were one, the gradient is clipped, and the optimizer steps. What came of it is an `Outcome`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypedDict

from torch import Tensor

from etude.base.progress import Progress
from etude.base.schedules import Driven, begin_anew
from etude.data.feeds.feed import Delivery
from etude.train.assembly import Assembly
from etude.train.evaluate import evaluate
from etude.train.growing import Shape
from etude.train.memory.state import Part
from etude.train.optim.slot import SlotState
from etude.train.rows import step_row
from etude.train.step.failures import TRAINED, attempted
from etude.train.step.outcome import Outcome
from etude.train.step.pieces import InTime, evaluated, in_pieces, told_of
from etude.train.structure import Change, Learns, Made, Structure
from etude.train.together import read
from etude.train.watch.events import Events
from etude.train.watch.record import Row
from etude.train.world import ALONE

Group = Sequence[Delivery]
"""The batches of one step."""


class LearnerState(TypedDict):
    """Weights by name, and the optimizers' states by theirs."""

    model: Mapping[str, Tensor]
    averaged: Mapping[str, Tensor] | None
    optimizers: Mapping[str, SlotState]


class Learner:
    """A task and what trains it; `assembly` makes what depends on the structure of the task."""

    def __init__(
        self,
        learns: Learns,
        assembly: Assembly,
        *,
        group_size: Callable[[Progress], int],
        in_time: InTime,
        structure: Structure,
    ) -> None:
        self.task = learns.task
        """The same object for the whole run, of whatever structure it is."""
        self.group_size = group_size
        """How many batches the next step takes."""
        self.device = assembly.device
        self.precision = assembly.precision
        self._assembly = assembly
        self.among = assembly.among
        self.judging = ALONE if in_time.carry else assembly.among.world
        """The ranks that share a validation: where hidden states go from batch to batch, each does all of it."""
        self._in_time = in_time
        self.shape = Shape(self.task, structure, assembly)
        """Which structure the task has, and may come to have."""
        self._take_up(learns, assembly(learns, self.task))

    def _take_up(self, learns: Learns, made: Made) -> None:
        self._made = made
        self.slots, self.values, self._hiddens, self.update, self.average = made
        self.feed = in_pieces(learns.train, self.task, self._in_time.steps, self.among.world)
        self.judged_by = learns.val
        self.memory = learns.train.memory

    # -- a step --------------------------------------------------------------------------------------------------

    def begin_epoch(self, progress: Progress) -> Change | None:
        """Take up what an epoch that begins at `progress` is made with; here alone the structure is replaced.

        Gives the change, where there was one.
        """
        change = self.shape.due(progress)
        if change is not None:
            self._take_up(*self.shape.grown(change, progress, self._made))
        self.values.begin_epoch(progress)
        self._hiddens.forget()
        return change

    def step(self, group: Group, progress: Progress) -> Outcome:
        """Take the step that comes at `progress`."""
        self.values.set(progress)
        batches = [delivery.batch for delivery in group]
        outcome = attempted(self.update, batches, progress, **told_of(group), lower=TRAINED)
        if outcome.moves:
            self.average.update()
        return outcome

    def follow(self, before: Progress, now: Progress) -> None:
        """Step the torch schedulers that a step from `before` to `now` makes due."""
        for slot in self.slots:
            slot.follow(before, now)

    def row(self, outcome: Outcome) -> Row:
        """What a step's log line tells of it."""
        return step_row(outcome, read(self.update.scalars, self.among.world), self.slots, self.values)

    # -- a validation --------------------------------------------------------------------------------------------

    def evaluate(
        self, deliveries: Iterator[Delivery], events: Events, progress: Progress, nothing: Callable[[], None]
    ) -> dict[str, float]:
        """The metrics of a validation with the averaged weights, if kept; calls `nothing` where no target counted."""
        task = self.task
        task.progress = progress
        step, taken = evaluated(task, task.validation_step, deliveries, **self._in_time._asdict())
        with self.average.applied(), self.among.sharding.gathered():
            return evaluate(
                task,
                taken,
                step,
                prefix="val",
                device=self.device,
                seed=self._assembly.seed,
                forward=self.precision.for_evaluation().forward,
                weigh=self.update.weigh,
                before=events.validation_batch_start,
                after=events.validation_batch_end,
                nothing=nothing,
                world=self.judging,
                whole=events.takes_batches,
            )

    def driven(self) -> dict[str, Driven]:
        """The schedules that follow validations, by name."""
        driven = {name: schedule for slot in self.slots for name, schedule in slot.driven().items()}
        return driven | dict(self.values.driven)

    def check(self, metrics: Mapping[str, float]) -> None:
        """Raise ConfigError where a schedule follows a metric that a validation does not give."""
        for schedule in self.driven().values():
            schedule.check(metrics)

    def begin_anew(self) -> None:
        """Let the schedules compare with no validation before."""
        begin_anew(self.driven().values())
        for slot in self.slots:
            slot.begin_anew()

    def follow_validation(self, monitored: float | None, metrics: Mapping[str, float], progress: Progress) -> None:
        """Let the schedules take in what a validation measured; `monitored` is what the run is judged by, if there."""
        for slot in self.slots:
            slot.follow_validation(monitored)
        for schedule in self.driven().values():
            schedule.follow_validation(metrics, progress)

    def end(self) -> None:
        """Leave the task with the weights that were evaluated, whole on every rank."""
        for slot in self.slots:
            slot.evaluate()
        self.among.sharding.end()

    # -- memory --------------------------------------------------------------------------------------------------

    def parts(self) -> dict[str, Part]:
        """What of State this remembers, besides weights and optimizers."""
        parts: dict[str, Part] = {"precision": self.precision, **self._hiddens.parts(), **self.values.parts()}
        parts |= {f"schedule {name}": schedule for name, schedule in self.driven().items()}
        return parts | {"average": self.average, "structure": self.shape.in_force}

    def state_dict(self) -> LearnerState:
        """Weights, their average, and the optimizers' states by name; of sharded ones this rank's part."""
        return {
            "model": self.task.state_dict(keep_vars=True),  # so that a weight of two names is seen to be one
            "averaged": self.average.weights(),
            "optimizers": {slot.name: slot.state_dict() for slot in self.slots},
        }

    def load_state_dict(self, state: LearnerState) -> None:
        """Go on from a checkpoint's state, whose weights are whole and must fit."""
        parted = self.among.sharding.parted
        own = self.task.state_dict()
        self.task.load_state_dict({name: parted(value, own[name]) for name, value in state["model"].items()})
        for slot in self.slots:
            slot.load_state_dict(state["optimizers"][slot.name], parted)
        averaged = state["averaged"]
        self.average.load(averaged and {name: parted(value, own[name]) for name, value in averaged.items()})

    def restructure(self, name: str) -> bool:
        """Take up the structure that a checkpoint is of, before its weights are loaded; whether it is another."""
        if name == self.shape.name:
            return False
        self._take_up(*self.shape.named(name))
        return True
