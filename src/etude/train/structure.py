"""Where the structure of a task is replaced by another in the course of a run."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, NotRequired, Protocol, TypedDict, final

from etude.base.horizon import Horizon
from etude.base.progress import Progress
from etude.base.schedules.values import ScheduledValue
from etude.data.feeds.feed import Feed
from etude.model.growth import Growth
from etude.train.averaging import Average, NoAverage
from etude.train.optim.slot import Slot
from etude.train.step.hiddens import Hiddens, NoHiddens
from etude.train.step.terms import ExtraTerm
from etude.train.step.update import Update
from etude.train.task import Task
from etude.train.values import Values


class Learns(Protocol):
    """What of a run hangs on the structure of its task; a `Job` has it for the first."""

    @property
    def task(self) -> Task:
        """The task, its weights initialised."""

    @property
    def train(self) -> Feed:
        """What is trained on."""

    @property
    def val(self) -> Feed | None:
        """What is judged by."""

    @property
    def optimizers(self) -> Callable[[Task, Horizon], Sequence[Slot]]:
        """Makes the optimizers, once the task is on its device."""

    @property
    def values(self) -> Sequence[ScheduledValue]:
        """What follows a schedule beside the optimizers' rates."""

    @property
    def extra_terms(self) -> Sequence[ExtraTerm]:
        """Terms of the loss that depend on the parameters alone."""

    @property
    def term_weights(self) -> Mapping[str, float]:
        """Weights, by term, in the place of the task's own."""


@dataclass(frozen=True)
class Structured:
    """These, for a structure that is not the first."""

    task: Task
    train: Feed
    val: Feed | None
    optimizers: Callable[[Task, Horizon], Sequence[Slot]]
    values: Sequence[ScheduledValue] = ()
    extra_terms: Sequence[ExtraTerm] = ()
    term_weights: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Change:
    """A replacement of a task by another, into which its weights grow."""

    name: str
    """What the new structure is called in a checkpoint."""
    make: Callable[[], Learns]
    """Makes the new task and what trains it."""
    growth: Growth = field(default_factory=Growth)
    """How the old task's weights become those of the new one."""
    where: str = ""
    """When that is, for messages."""
    anew: bool = False
    """Whether validations before it are not to be compared with those after it: its loss is another."""


class Made(NamedTuple):
    """What is made anew when the structure of a task is replaced."""

    slots: Sequence[Slot]
    values: Values
    hiddens: Hiddens | NoHiddens
    update: Update
    average: Average | NoAverage


class Structure(Protocol):
    """Which structure the task has, epoch by epoch; the first is the one that the task was made with."""

    def at(self, progress: Progress, name: str) -> Change | None:
        """What is to be done where an epoch begins at `progress` with the structure `name`; None for nothing."""

    def names(self) -> Collection[str]:
        """The names of all parameters that the task comes to have; they may be unknown."""

    def named(self, name: str) -> Change:
        """The change to the structure called `name`. Raises LookupError where there is none."""


class Kept(TypedDict):
    """What a checkpoint keeps of the structure."""

    name: str
    since: NotRequired[int]


@final
class InForce:
    """Which structure the task has, and since when: a part of State."""

    def __init__(self) -> None:
        self.name = ""
        """Empty for the first."""
        self.since = 0
        """Steps that the run had taken when it was taken up."""
        self.rewarm = 0.0
        """Steps over which rates rise again after a change."""

    def warmth(self, step: int) -> float:
        """The share of its rate that the step after `step` others is taken with.

        >>> grown = InForce()
        >>> grown.name, grown.since, grown.rewarm = "deep", 100, 4
        >>> [grown.warmth(step) for step in (100, 101, 103, 104)]
        [0.25, 0.5, 1.0, 1.0]
        """
        if not self.rewarm or not self.name:
            return 1.0
        return min(1.0, (step - self.since + 1) / self.rewarm)

    def state_dict(self) -> Kept:
        """Its name, and the step."""
        return {"name": self.name, "since": self.since}

    def load_state_dict(self, state: Kept) -> None:
        """Take them up; the structure itself was taken up before its weights."""
        self.name, self.since = state["name"], state.get("since", 0)


@final
class Fixed:
    """The structure of a task that keeps the one it was made with."""

    def at(self, progress: Progress, name: str) -> Change | None:
        """Nothing is to be done."""
        del progress, name
        return None

    def names(self) -> Collection[str]:
        """None but those that it has."""
        return ()

    def named(self, name: str) -> Change:
        """There is none."""
        raise LookupError(f"there is no structure {name!r}")
