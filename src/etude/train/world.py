"""The processes that train one run together. Only this file may ever import `torch.distributed`."""

import os
from collections.abc import Mapping
from typing import Protocol, TypeVar, final

from torch import Tensor

from etude.base.errors import DistributedError

T = TypeVar("T")
Number = TypeVar("Number", bound=float | Tensor)


class World(Protocol):
    """All ranks of a run, as one of them sees them."""

    @property
    def rank(self) -> int:
        """Which of them this one is, from 0."""

    @property
    def size(self) -> int:
        """How many there are."""

    @property
    def is_first(self) -> bool:
        """Whether this is the rank that writes."""

    def sum(self, value: Number) -> Number:
        """The sum of `value` over all ranks."""

    def all(self, holds: bool) -> bool:  # noqa: FBT001 - as Python's own
        """Whether something holds on every rank."""

    def gather(self, value: T) -> list[T]:
        """The values of all ranks, by rank."""

    def agree(self, value: T | None) -> T | None:
        """What the lowest rank that has something to say says; None where none has. The same on every rank."""


@final
class Alone:
    """A world of one rank.

    >>> Alone().sum(3), Alone().gather("a"), Alone().agree(None)
    (3, ['a'], None)
    """

    rank = 0
    size = 1
    is_first = True

    def sum(self, value: Number) -> Number:
        """`value` itself."""
        return value

    def all(self, holds: bool) -> bool:  # noqa: FBT001 - as Python's own
        """Whether it holds here."""
        return holds

    def gather(self, value: T) -> list[T]:
        """`value` alone."""
        return [value]

    def agree(self, value: T | None) -> T | None:
        """`value` itself."""
        return value


ALONE = Alone()


LAUNCHERS = {
    "SLURM_STEP_NUM_TASKS": "srun",
    "OMPI_COMM_WORLD_SIZE": "mpirun",
    "PMI_SIZE": "mpirun",
    "WORLD_SIZE": "torchrun",
}
"""Variables by which a launcher tells a process how many ranks it has started, and its name.

Within a batch script Slurm's SLURM_NTASKS is what was asked for, not what runs; a step has the variable above.
"""


def refuse_ranks(environment: Mapping[str, str] = os.environ) -> None:
    """Raise DistributedError where this process is one of several ranks: each would train a model of its own."""
    for variable, launcher in LAUNCHERS.items():
        started = environment.get(variable, "")
        if started.isdigit() and int(started) > 1:
            raise DistributedError(
                f"{launcher} has started {started} ranks ({variable} is {started}), but this version of Etude trains "
                f"in one process: each rank would train a model of its own. Start it without {launcher}, or with one "
                f"task."
            )
