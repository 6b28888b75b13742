"""What chooses the next combination by what came of those before, and what ends runs early."""

from collections.abc import Sequence
from typing import Protocol, final

from etude.app.sweep.state.state import State, Trial


class Search(Protocol):
    """A way to choose; the state is all that it remembers."""

    @property
    def wanted(self) -> int | None:
        """How many trials there will be; None where they are all there already."""

    def next(self, state: State) -> Trial | None:
        """A trial that was chosen, added and taken for this process; None where there is none for now."""

    def is_over(self, trials: Sequence[Trial]) -> bool:
        """Whether none will be chosen any more."""

    def prunes(self, state: State, name: str) -> bool:
        """Whether a trial, after the validation that was reported last, is to be ended."""


@final
class AllKnown:
    """All combinations are known beforehand, and every run goes to its end."""

    wanted = None

    def next(self, state: State) -> Trial | None:
        """None: there is nothing to choose."""
        del state
        return None

    def is_over(self, trials: Sequence[Trial]) -> bool:
        """Always."""
        del trials
        return True

    def prunes(self, state: State, name: str) -> bool:
        """Never."""
        del state, name
        return False
