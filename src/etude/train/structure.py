"""Where the structure of a task is replaced by another in the course of a run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypedDict, final

from etude.base.progress import Progress
from etude.train.averaging import Average, NoAverage
from etude.train.optim.slot import Slot
from etude.train.step.update import Update
from etude.train.task import Task


@dataclass(frozen=True)
class Change:
    """A replacement of the task's parts, and of the optimizers over them."""

    name: str
    """What the new structure is called in a checkpoint."""
    build: Callable[[Task, Sequence[Slot]], Sequence[Slot]]
    """Replaces parts of the task in place, weights handed over, and makes the optimizers of what it then is.

    It is given the present ones, of which the new ones go on with what both have (`Slot.take_over`)."""


class Made(NamedTuple):
    """What is made anew when the structure of a task is replaced."""

    update: Update
    average: Average | NoAverage


class Structure(Protocol):
    """Which structure the task has, epoch by epoch; the first is the one that the task was made with."""

    def at(self, progress: Progress) -> Change | None:
        """What is to be done where an epoch begins at `progress`; None for nothing. Asked once an epoch."""

    def named(self, name: str) -> Change:
        """The change from the first structure to the one called `name`, whose weights a checkpoint then brings."""


class Kept(TypedDict):
    """What a checkpoint keeps of the structure."""

    name: str


@final
class InForce:
    """Which structure the task has: a part of State."""

    def __init__(self) -> None:
        self.name = ""
        """Empty for the first."""

    def state_dict(self) -> Kept:
        """Its name."""
        return {"name": self.name}

    def load_state_dict(self, state: Kept) -> None:
        """Take up the name; the structure itself was taken up before its weights."""
        self.name = state["name"]


@final
class Fixed:
    """The structure of a task that keeps the one it was made with."""

    def at(self, progress: Progress) -> Change | None:
        """Nothing is to be done."""
        del progress
        return None

    def named(self, name: str) -> Change:
        """There is none."""
        raise LookupError(f"there is no structure {name!r}")
