"""Shallow fusion: language models and hot words that add to the score of what a search looks at, label by label.

A search ranks a prefix by its own log-probability and `weight` times the model's (Gulcehre et al. 2015, "On Using
Monolingual Corpora in Neural Machine Translation"), and a bonus for each label.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, TypeVar, final

State = TypeVar("State")
Prefix: TypeAlias = tuple[int, ...]


class LabelModel(Protocol[State]):
    """Scores sequences of labels from left to right; derive from it to get `prepare`.

    A state is a value that stands for all labels so far: it is never changed, and several labels may follow it.
    """

    def start(self) -> State:
        """Give the state before the first label."""
        ...

    def score(self, state: State, label: int, /) -> tuple[float, State]:
        """Give the log-probability of a label in nats, or what else it adds, and the state after it."""
        ...

    def end(self, state: State, /) -> float:
        """Give what it adds that no label follows."""
        ...

    def prepare(self, states: Sequence[State], /) -> None:
        """Make ready to score labels after each of these states: a network computes them at once."""
        del states


def weighted(weight: float, log: float) -> float:
    """Their product; 0 for a weight of 0, however impossible."""
    return weight * log if weight else 0.0


@final
@dataclass(frozen=True, slots=True)
class Fusion:
    """What a search is given: a model, its weight, and a bonus in nats for each label, against its taste for less.

    Raises ValueError for a weight that is negative, and where one of the numbers is not finite.
    """

    model: LabelModel[Any]
    weight: float = 1.0
    bonus: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.weight) and self.weight >= 0 and math.isfinite(self.bonus)):
            raise ValueError(
                f"The weight of fusion must be a number from 0 on and its bonus a number, but they are {self.weight} "
                f"and {self.bonus}."
            )


@final
@dataclass(frozen=True, slots=True)
class Together(LabelModel[tuple[Any, ...]]):
    """Several models as one: the sum of what they add, each times its weight."""

    models: tuple[tuple[LabelModel[Any], float], ...]

    def start(self) -> tuple[Any, ...]:
        """The states of all."""
        return tuple(model.start() for model, _ in self.models)

    def score(self, state: tuple[Any, ...], label: int, /) -> tuple[float, tuple[Any, ...]]:
        """The sum, and the states of all."""
        total, after = 0.0, []
        for (model, weight), one in zip(self.models, state, strict=True):
            log, following = model.score(one, label)
            total += weighted(weight, log)
            after.append(following)
        return total, tuple(after)

    def end(self, state: tuple[Any, ...], /) -> float:
        """The sum."""
        return sum(weighted(weight, model.end(one)) for (model, weight), one in zip(self.models, state, strict=True))

    def prepare(self, states: Sequence[tuple[Any, ...]], /) -> None:
        """Each its own."""
        for (model, _), own in zip(self.models, zip(*states, strict=True), strict=False):
            model.prepare(own)


# -- what a search keeps ---------------------------------------------------------------------------------------------


@final
@dataclass(slots=True)
class _Known:
    """What was computed of a prefix."""

    gain: float
    state: Any


class Gains(Protocol):
    """What fusion adds to each prefix of one search."""

    acts: bool
    """Whether it may add anything but 0."""

    def __call__(self, prefix: Prefix) -> float:
        """Give what it adds to a prefix that goes on."""
        ...

    def ended(self, prefix: Prefix) -> float:
        """Give what it adds to a whole text."""
        ...

    def prepare(self, prefixes: Sequence[Prefix]) -> None:
        """Make ready to add to these prefixes, each with one label more."""

    def forget(self) -> None:
        """Drop what was not asked for since the last call."""


@final
class NoGains:
    """Adds nothing."""

    acts = False

    def __call__(self, prefix: Prefix) -> float:
        """Nothing."""
        del prefix
        return 0.0

    def ended(self, prefix: Prefix) -> float:
        """Nothing."""
        del prefix
        return 0.0

    def prepare(self, prefixes: Sequence[Prefix]) -> None:
        """Nothing to do."""

    def forget(self) -> None:
        """Nothing to do."""


@final
@dataclass(slots=True)
class FusedGains:
    """Adds what a `Fusion` says, and remembers it for the prefixes that were asked for lately."""

    fusion: Fusion
    acts: bool = True
    _known: dict[Prefix, _Known] = field(default_factory=dict)
    _before: dict[Prefix, _Known] = field(default_factory=dict)

    def __call__(self, prefix: Prefix) -> float:
        """Of a prefix that goes on."""
        return self._of(prefix).gain

    def ended(self, prefix: Prefix) -> float:
        """Of a whole text."""
        known = self._of(prefix)
        return known.gain + weighted(self.fusion.weight, self.fusion.model.end(known.state))

    def prepare(self, prefixes: Sequence[Prefix]) -> None:
        """All at once."""
        self.fusion.model.prepare([self._of(prefix).state for prefix in prefixes])

    def forget(self) -> None:
        """What was not asked for since the last call."""
        self._before, self._known = self._known, {}

    def _of(self, prefix: Prefix) -> _Known:
        known = self._known.get(prefix) or self._before.get(prefix)
        if known is None:
            parent = self._known.get(prefix[:-1])
            known = self._walked(prefix) if parent is None else self._longer(parent, prefix[-1])
        self._known[prefix] = known
        return known

    def _walked(self, prefix: Prefix) -> _Known:
        """From the longest beginning that is known, or from the start."""
        known, first = _Known(0.0, self.fusion.model.start()), 0
        for length in range(len(prefix), 0, -1):
            if found := self._before.get(prefix[:length]):
                known, first = found, length
                break
        for label in prefix[first:]:
            known = self._longer(known, label)
        return known

    def _longer(self, known: _Known, label: int) -> _Known:
        log, state = self.fusion.model.score(known.state, label)
        return _Known(known.gain + weighted(self.fusion.weight, log) + self.fusion.bonus, state)


NO_GAINS = NoGains()


def gains_of(fusion: Fusion | None) -> Gains:
    """What fusion adds to the prefixes of one sequence."""
    return NO_GAINS if fusion is None else FusedGains(fusion)
