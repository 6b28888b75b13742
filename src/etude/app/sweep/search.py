"""What chooses the next combination, where not all are known beforehand, and what ends runs early."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, final

from etude.app.sweep.names import name_of
from etude.app.sweep.plan import Plan
from etude.app.sweep.space import Point
from etude.app.sweep.state.state import Stand, State, Trial
from etude.base.errors import ConfigError

ATTEMPTS = 1000
"""Choices in a row that `sweep.where` may refuse."""


class Choice(NamedTuple):
    """A combination, and what has to be remembered of how it was chosen."""

    point: Point
    remarks: Mapping[str, Any]


class Chooser(Protocol):
    """A way to choose by what came of the trials before; a function of them, of the seed and of two numbers."""

    def choose(self, trials: Sequence[Trial], number: int, attempt: int) -> Choice:
        """The combination of trial `number`; another one for each attempt."""


class Search(Protocol):
    """Where further trials come from."""

    @property
    def wanted(self) -> int | None:
        """How many trials there will be; None where they are all there already."""

    def next(self, state: State) -> Trial | None:
        """A trial that was chosen, added and taken for this process; None where there is none."""


class Pruning(Protocol):
    """What ends runs early."""

    def prunes(self, state: State, name: str) -> bool:
        """Whether a trial, after the validation that was reported last, is to be ended."""


@final
class AllKnown:
    """All trials are there already."""

    wanted = None

    def next(self, state: State) -> Trial | None:
        """None: there is nothing to choose."""
        del state
        return None


@final
class NoPruning:
    """Every run goes to its end."""

    def prunes(self, state: State, name: str) -> bool:
        """Never."""
        del state, name
        return False


@final
class Chosen:
    """Trials are chosen one after the other, whichever process asks for the next."""

    def __init__(self, plan: Plan, chooser: Chooser) -> None:
        self._plan, self._chooser = plan, chooser
        self.wanted = plan.config.trials or 0

    def next(self, state: State) -> Trial | None:
        """The next trial, unless there are enough; should another process be faster, its number is taken."""
        while True:
            trials = state.trials()
            number = len(trials)
            if number >= self.wanted:
                return None
            choice = self._allowed(trials, number)
            name = name_of(choice.point, self._plan.space.keys, number)
            if state.add(name, number, choice.point.values, choice.remarks):
                return Trial(name, number, choice.point.values, Stand.RUNNING, remarks=choice.remarks)

    def _allowed(self, trials: Sequence[Trial], number: int) -> Choice:
        for attempt in range(ATTEMPTS):
            choice = self._chooser.choose(trials, number, attempt)
            if self._plan.allows(choice.point):
                return choice
        raise ConfigError(f"sweep.where has refused {ATTEMPTS:,} choices in a row: let it allow more of the space.")
