"""What ranks tell each other in a step: what their parts of the batches count, and the gradients of them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor, nn

from etude.train.optim.slot import Slot
from etude.train.optim.sparse import no_rows
from etude.train.step.accumulation import Accumulation, Told
from etude.train.step.buckets import Buckets
from etude.train.step.outcome import Outcome
from etude.train.step.statistics import Running
from etude.train.world import World
from etude.train.world.sharding import Sharding, Whole

LATE = "late gradients"


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

    A step sends one small message of numbers, and the gradients, in buckets that set off in the backward pass. A
    parameter without a gradient on any rank has none, as in one process.
    """

    def __init__(self, among: Among, running: Running) -> None:
        self.rank = among.world.rank
        self.sharding = among.sharding
        self._world = among.world
        self._running = running
        self._along = among.along
        self.locally = among.locally
        self._buckets: dict[str, Buckets] = {}
        """By optimizer, of the parameters that it trains at present."""
        self._dense: list[bool] = []
        self._sparse: list[bool] = []
        """Which parameters have a gradient of this layout on any rank."""
        self._late = False
        """Whether a gradient of any rank has changed on its way."""
        self._changed: list[bool] = []
        """Which buffers a forward has changed on any rank."""

    def counted(self, totals: Mapping[str, int]) -> dict[str, int]:
        """What all ranks count together."""
        found, _ = self._world.total({f"targets of {name}": count for name, count in totals.items()})
        return {name: int(found[f"targets of {name}"]) for name in totals}

    def tell(
        self, outcome: Outcome, dense: Sequence[bool] = (), sparse: Sequence[bool] = (), *, late: bool = False
    ) -> None:
        """Let the outcome be that of all ranks, and find out what there is to be added up.

        `dense` and `sparse` say of each parameter whether it has such a gradient on this rank, `late` whether one has
        changed on its way.
        """
        numbers = {LATE: 1.0} if late else {}
        numbers |= {f"run {name}": number for name, number in self._along.tell().items()}
        numbers |= _numbers(outcome)
        changed = self._running.changed()
        found, marks = self._world.total(numbers, [*dense, *sparse, *changed])
        self._dense, self._sparse = marks[: len(dense)], marks[len(dense) : len(dense) + len(sparse)]
        self._changed = marks[len(dense) + len(sparse) :]
        self._late = LATE in found
        self._along.heard = {name[4:]: number for name, number in found.items() if name.startswith("run ")}
        _take_in(found, outcome)

    def told(self, outcome: Outcome) -> Mapping[str, float | Tensor]:
        """Let the outcome be that of all ranks; by term, its weight over what they count."""
        self.tell(outcome)
        return outcome.factors

    def norm(self, own: Tensor) -> Tensor:
        """The norm of what lies on all ranks together, of which this rank's part has the norm `own`."""
        if not self.sharding.is_sharded:
            return own
        found, _ = self._world.total({"squares": float(own) ** 2})
        return own.new_tensor(found["squares"] ** 0.5)

    @contextmanager
    def backward(self, slot: Slot, *, last: bool) -> Iterator[None]:
        """Let gradients set off in the last backward pass of a step, inside the block, where that has proved right."""
        self.sharding.reduces(now=last)
        if not last or self._has_its_own:
            yield
            return
        with self._buckets_of(slot).setting_off():
            yield

    def finish(self, slot: Slot, sums: Accumulation, outcome: Outcome) -> None:
        """Leave in the parameters the gradient of what all ranks have, of which this one has the `sums`."""
        own = outcome.factors
        if not isinstance(sums, Told):
            buckets = self._buckets.get(slot.name)
            dense, sparse = (sums.differentiated(slot.parameters, sparse=sparse) for sparse in (False, True))
            self.tell(outcome, dense, sparse, late=buckets is not None and buckets.late)
        if self._has_its_own:
            sums.finish(own if self.locally else outcome.factors)
        elif sums.can_be_added_up(terms=len(outcome.terms)):
            self._add_up(slot, sums=True)
            sums.finish(outcome.factors)
        else:
            sums.finish(outcome.factors)
            self._add_up(slot, sums=False)

    @property
    def _has_its_own(self) -> bool:
        """Whether gradients are not added up here: each rank steps by its own, or its shard's comes added up."""
        return self.sharding.is_sharded or self.locally

    def _add_up(self, slot: Slot, *, sums: bool) -> None:
        """Leave in the parameters the sum of the gradients of all ranks."""
        buckets = self._buckets[slot.name]
        buckets.learn(sums=sums, late=self._late)
        together: list[nn.Parameter] = []
        apart: list[Tensor] = []
        for parameter, dense, sparse in zip(slot.parameters, self._dense, self._sparse, strict=True):
            if sparse or (dense and not buckets.hold(parameter)):
                apart.append(_gradient(parameter, sparse=not dense))
            elif dense:
                together.append(parameter)
        buckets.add_up(together)
        self._world.add_up(apart)

    def _buckets_of(self, slot: Slot) -> Buckets:
        """The buckets of the parameters that an optimizer trains at present."""
        trained = [p for p in slot.parameters if p.requires_grad]
        known = self._buckets.get(slot.name)
        if known is None or not known.are_of(trained):
            known = self._buckets[slot.name] = Buckets(self._world, trained)
        return known

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


def _gradient(parameter: nn.Parameter, *, sparse: bool) -> Tensor:
    """The gradient of a parameter, in the layout that all ranks send it in; where this one has none, zeros."""
    match parameter.grad:
        case None if sparse:
            parameter.grad = no_rows(parameter)
        case None:
            parameter.grad = torch.zeros_like(parameter)
        case Tensor(is_sparse=True) as found if not sparse:
            parameter.grad = found.to_dense()
        case found:
            return found
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
