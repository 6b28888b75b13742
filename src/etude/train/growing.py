"""A task that grows into one of another structure; what goes on then: weights, optimizers, averages, schedules."""

from collections.abc import Mapping
from typing import NamedTuple, Self, final

from torch import Tensor, nn

from etude.base.progress import Progress
from etude.base.says import Say
from etude.model.growth import Growth, Transfer, plan_transfer
from etude.train.assembly import Assembly, ready
from etude.train.averaging import Average, NoAverage
from etude.train.evaluate import train
from etude.train.optim.carry import carried
from etude.train.optim.slot import Slot, SlotState
from etude.train.structure import Change, InForce, Learns, Made, Structure
from etude.train.task import Task
from etude.train.values import Values
from etude.train.world.sharding import Sharding


@final
class Shape:
    """Which structure a task has, and what it takes to give it another."""

    def __init__(self, task: Task, structure: Structure, assembly: Assembly) -> None:
        self.in_force = InForce()
        """A part of State."""
        self._task = task
        self._structure = structure
        self._assembly = assembly

    @property
    def name(self) -> str:
        """What it is called; empty for the first."""
        return self.in_force.name

    @property
    def may_change(self) -> bool:
        """Whether the task comes to have other structures."""
        return bool(self._structure.names())

    def due(self, progress: Progress) -> Change | None:
        """The change where an epoch begins at `progress`; None where the structure stays."""
        return self._structure.at(progress, self.name)

    def grown(self, change: Change, progress: Progress, made: Made) -> tuple[Learns, Made]:
        """Let the task grow into another structure; what it then is made of goes on where `made` stands."""
        learns, say, sharding = change.make(), self._assembly.say, self._assembly.among.sharding
        sharding.unshard()
        transfer = plan_transfer(self._task, learns.task, change.growth, where=change.where)
        transfer.apply(_on_cpu(self._task), learns.task)
        former = Former.of(made)
        self.in_force.since = progress.step
        after = self._become(change, learns)
        former.go_on_in(after, transfer, change.growth, sharding, say)
        train(self._task, after.slots, say)
        return learns, after

    def named(self, name: str) -> tuple[Learns, Made]:
        """Give the task the structure of this name, for weights of which that is known."""
        change = self._structure.named(name)
        learns = change.make()
        return learns, self._become(change, learns)

    def _become(self, change: Change, learns: Learns) -> Made:
        """Let the task be another, which is made anew with all that trains it."""
        assembly, rewarm = self._assembly, change.growth.rewarm
        assembly.among.sharding.unshard()
        self._task.become(learns.task)
        ready(
            self._task,
            assembly.config,
            assembly.device,
            assembly.say,
            assembly.elsewhere,
            distributed=assembly.distributed,
        )
        assembly.among.sharding.shard(self._task)
        made = assembly(learns, self._task)
        self.in_force.name = change.name
        if rewarm is not None:
            self.in_force.rewarm = assembly.horizon.in_steps(rewarm, "growth.rewarm")
            for slot in made.slots:
                slot.rewarm(self.in_force.warmth)
        return made


def _on_cpu(module: nn.Module) -> dict[str, Tensor]:
    """The parameters and buffers of a module by name, on the CPU."""
    return {name: value.detach().cpu() for name, value in module.state_dict().items()}


class Former(NamedTuple):
    """What was there before, as it stood: the module that it was made for is another by the time it is asked."""

    slots: Mapping[str, tuple[Slot, SlotState]]
    values: Values
    average: NoAverage | Average

    @classmethod
    def of(cls, made: Made) -> Self:
        """What there is now."""
        return cls({slot.name: (slot, slot.state_dict()) for slot in made.slots}, made.values, made.average)

    def go_on_in(self, made: Made, transfer: Transfer, growth: Growth, sharding: Sharding, say: Say) -> None:
        """Let what was made anew go on where this stands: optimizers by their names, as the weights did by theirs.

        Of sharded weights each rank has what is known of an optimizer whole meanwhile, and so the average.
        """
        for slot in made.slots:
            if slot.name in self.slots:
                former, state = self.slots[slot.name]
                grown = _state(sharding.whole(state), transfer, growth, slot, say)
                slot.go_on(former, grown, sharding.parted)
        made.values.take_over(self.values)
        made.average.carry(self.average, transfer, sharding)


def _state(state: SlotState, transfer: Transfer, growth: Growth, slot: Slot, say: Say) -> SlotState:
    """What becomes of an optimizer's state: it follows its parameters, unless it is to begin anew after its steps."""
    if growth.optimizer_state == "reset":
        return {**slot.state_dict(), "steps": state["steps"]}
    return carried(state, transfer, slot, say)
