"""What the loop drives: the moments of a run, and what it can be told to do at each."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from etude.base.durations import Duration
from etude.base.progress import Progress

Group = TypeVar("Group")
End = TypeVar("End")


@dataclass(frozen=True)
class Moments:
    """When a run logs, validates, saves and ends."""

    log: Duration
    validate: Duration
    save: Duration
    until: Sequence[Duration]
    """Whichever comes first ends the run."""
    not_before: Duration | None = None
    """Early stopping, and stops that were asked for, wait until here."""


class Driver(Protocol[Group, End]):
    """A run, as the loop sees it."""

    @property
    def moments(self) -> Moments:
        """When it does what."""

    def begin(self) -> End | None:
        """Prepare the first step; what ended the run, where none is left."""

    def groups(self) -> Iterable[Group]:
        """The batches of each step, to the end of the epoch."""

    def step(self, group: Group) -> tuple[Progress, Progress]:
        """Take one step; return the progress before and after it."""

    def log(self) -> None:
        """Write what the step was."""

    def validate(self) -> bool:
        """Validate; whether it was the best so far."""

    def ending(self) -> End | None:
        """What ends the run after this step, or None."""

    def round_off(self, end: End, *, logged: bool, validated: bool) -> bool:
        """Log and validate at the end where that was not due; whether it is the best so far."""

    def save(self, *, best: bool, end: End | None) -> None:
        """Save a checkpoint."""

    def end(self, end: End) -> End:
        """Finish what is under way, and tell everybody."""
