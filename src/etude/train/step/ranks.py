"""What ranks tell each other in a step: what their parts of the batches count, and the gradients of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor, nn

from etude.train.optim.slot import Slot
from etude.train.step.outcome import Outcome
from etude.train.step.statistics import Running
from etude.train.world import World
from etude.train.world.sharding import Sharding, Whole


@dataclass
class Along:
    """Numbers that go along with what ranks tell each other in every step, so that they cost no message."""

    tell: Callable[[], Mapping[str, float]] = dict
    """Gives those of this rank; names are told apart from a step's own by `run `."""
    heard: Mapping[str, float] = field(default_factory=dict)
    """Their sums over the ranks, as of the last step."""


@dataclass(frozen=True)
class Among:
    """The ranks that a step is taken among."""

    world: World
    along: Along = field(default_factory=Along)
    """What the run tells the other ranks in each step."""
    sharding: Sharding = field(default_factory=Whole)
    """How the weights lie on the ranks."""
    locally: bool = False
    """Whether each rank steps by the gradient of its own part."""


@final
class Ranks:
    """Makes of what each rank has what they have together: each takes a part of every batch.

    A step sends one small message of numbers, and one of gradients. A parameter without a gradient on any rank has
    none, as in one process.
    """

    def __init__(self, among: Among, running: Running) -> None:
        self.rank = among.world.rank
        self.sharding = among.sharding
        self._world = among.world
        self._running = running
        self._along = among.along
        self.locally = among.locally
        self._there: list[bool] = []
        """Which parameters have a gradient on any rank."""
        self._changed: list[bool] = []
        """Which buffers a forward has changed on any rank."""

    def counted(self, totals: Mapping[str, int]) -> dict[str, int]:
        """What all ranks count together."""
        found, _ = self._world.total({f"targets of {name}": count for name, count in totals.items()})
        return {name: int(found[f"targets of {name}"]) for name in totals}

    def tell(self, there: Sequence[bool], outcome: Outcome) -> None:
        """Let the outcome be that of all ranks, and find out what there is to be added up.

        `there` says of each parameter whether it has a gradient on this rank.
        """
        numbers = {f"run {name}": number for name, number in self._along.tell().items()}
        numbers |= _numbers(outcome)
        changed = self._running.changed()
        found, marks = self._world.total(numbers, [*there, *changed])
        self._there, self._changed = marks[: len(there)], marks[len(there) :]
        self._along.heard = {name[4:]: number for name, number in found.items() if name.startswith("run ")}
        _take_in(found, outcome)

    def told(self, outcome: Outcome) -> Mapping[str, float | Tensor]:
        """Let the outcome be that of all ranks; by term, its weight over what they count."""
        self.tell((), outcome)
        return outcome.factors

    def norm(self, own: Tensor) -> Tensor:
        """The norm of what lies on all ranks together, of which this rank's part has the norm `own`."""
        if not self.sharding.is_sharded:
            return own
        found, _ = self._world.total({"squares": float(own) ** 2})
        return own.new_tensor(found["squares"] ** 0.5)

    def add_up(self, slot: Slot) -> None:
        """Leave in the parameters the sum of the gradients of all ranks, unless the backward pass has done so."""
        if self.sharding.is_sharded or self.locally:
            return
        self._world.add_up([_gradient(p) for p, there in zip(slot.parameters, self._there, strict=True) if there])

    def all_finite(self, *, own: bool) -> bool:
        """Whether the gradient is finite on every rank; it is the same on all, unless each has one of its own."""
        if not self.locally:
            return own
        found, _ = self._world.total({"not finite": not own})
        return found["not finite"] == 0

    def average_buffers(self) -> None:
        """Let what a forward has changed without an optimizer be the mean over the ranks."""
        buffers = self._running.floating(self._changed)
        self._world.add_up(buffers)
        if buffers:
            torch._foreach_div_(buffers, self._world.size)


def _gradient(parameter: nn.Parameter) -> Tensor:
    """The gradient of a parameter; where another rank has one and this has none, zeros."""
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad


def _numbers(outcome: Outcome) -> dict[str, float]:
    numbers: dict[str, float] = {}
    for name, (total, count, weight) in outcome.terms.items():
        numbers[f"sum {name}"], numbers[f"count {name}"] = float(total), float(count)
        numbers[f"weight {name}"], numbers[f"ranks {name}"] = weight, 1
        numbers[f"targets {name}"] = float(outcome.targets[name])
    return numbers | {f"batch {index}": counts for index, counts in enumerate(outcome.counted)}


def _take_in(found: Mapping[str, float], outcome: Outcome) -> None:
    own = dict(outcome.terms)
    for name in sorted(key[4:] for key in found if key.startswith("sum ")):
        # A weight is the same on every rank; the mean of equal numbers need not be.
        weight = own[name][2] if name in own else found[f"weight {name}"] / found[f"ranks {name}"]
        outcome.terms[name] = found[f"sum {name}"], found[f"count {name}"], weight
        outcome.targets[name] = found[f"targets {name}"]
    outcome.counted = [found[f"batch {index}"] > 0 for index in range(len(outcome.counted))]
    outcome.without_targets = outcome.counted.count(False)
