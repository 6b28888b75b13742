"""What each of many ranks holds, sends and takes for a step."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

from etude.app.plan.ranks.footprint import Footprint, Part, footprint
from etude.app.plan.ranks.imagined import Level
from etude.base.errors import ConfigError
from etude.base.horizon import Horizon
from etude.base.says import Say, unheard
from etude.tasks.config import LoadedConfig
from etude.train.world.config import DistributedConfig

Strategy = Literal["alone", "ddp", "fsdp"]
NARROW = 2
"""Bytes of a gradient, and of a weight that is gathered where the forward pass is computed in 16 bits."""


class Memory(NamedTuple):
    """Bytes of a rank at the moment of a step at which it holds most."""

    parameters: int
    """Buffers of the model included."""
    gradients: int
    optimizer: int
    average: int
    activations: int
    """What the forward pass keeps for the way back, and all that is needed in passing."""
    gathered: int
    """What is gathered to be sent, or to be computed with: a copy of gradients, or whole units of a sharded model."""

    @property
    def total(self) -> int:
        """All of it."""
        return sum(self)


class Time(NamedTuple):
    """Seconds of a step."""

    computing: float | None
    """None where no speed is known."""
    sending: float | None
    """None where no bandwidth was given."""

    @property
    def least(self) -> float | None:
        """Where all that is sent is sent while something is computed."""
        return None if None in self else max(self)  # type: ignore[type-var]

    @property
    def most(self) -> float | None:
        """Where nothing is."""
        return None if None in self else sum(self)  # type: ignore[arg-type]


class Rank(NamedTuple):
    """One rank of a world, the one with the largest share."""

    world: int
    strategy: Strategy
    samples: int
    """Of the largest batch."""
    memory: Memory
    sent: float
    """Bytes that it sends in a step, and receives."""
    time: Time


@dataclass(frozen=True)
class Ranks:
    """The plan of a run for some numbers of ranks."""

    run: str
    parameters: int
    """How many numbers the model has."""
    trained: int
    precision: str
    steps_per_epoch: float | None
    steps: float | None
    samples: tuple[int, int]
    """Of the smallest and the largest batch."""
    tokens: float | None
    """Targets of a step, all ranks together."""
    accumulate: int
    chosen: str
    """The strategy of the config."""
    speed: float | None
    bandwidth: float | None
    ranks: tuple[Rank, ...]
    notes: tuple[str, ...]


class Given(NamedTuple):
    """What a plan cannot know by itself."""

    speed: float | None = None
    """Targets that one rank learns from in a second."""
    bandwidth: float | None = None
    """Bytes that one rank sends in a second."""


def plan_ranks(loaded: LoadedConfig, worlds: Sequence[int], given: Given, say: Say = unheard) -> Ranks:
    """Plan a run for some numbers of ranks. Raises ConfigError for more ranks than a batch has samples."""
    _check(worlds, given)
    found = footprint(loaded, worlds, say)
    every = _average_every(loaded.config.distributed, found.horizon)
    return Ranks(
        run=loaded.config.run.name,
        parameters=sum(map(_numbers, found.parameters)),
        trained=sum(map(_numbers, _trained(found))),
        precision=found.precision,
        steps_per_epoch=found.horizon.steps_per_epoch,
        steps=found.horizon.steps,
        samples=(found.shares.least, found.shares.most),
        tokens=found.tokens,
        accumulate=found.accumulate,
        chosen=loaded.config.distributed.strategy,
        speed=given.speed,
        bandwidth=given.bandwidth,
        ranks=tuple(
            rank_of(found, world, strategy, given, every) for world in worlds for strategy in _strategies(world)
        ),
        notes=(*found.notes, *notes_of(found, worlds)),
    )


def _check(worlds: Sequence[int], given: Given) -> None:
    for world in worlds:
        if world < 1:
            raise ConfigError(f"--world must be at least 1, but is {world}.")
    for flag, value in (("speed", given.speed), ("bandwidth", given.bandwidth)):
        if value is not None and not 0 < value < math.inf:
            raise ConfigError(f"--{flag} must be a positive number, but is {value:g}.")


def _strategies(world: int) -> tuple[Strategy, ...]:
    return ("alone",) if world == 1 else ("ddp", "fsdp")


def _average_every(config: DistributedConfig, horizon: Horizon) -> float | None:
    """Steps between two averages of the weights; None where gradients are summed in every step."""
    if config.reduce != "local":
        return None
    every = config.average_every
    known = {
        "steps": 1.0,
        "epochs": horizon.steps_per_epoch,
        "batches": 1 / horizon.batches_per_step,
        "percent": None if horizon.steps is None else horizon.steps / 100,
    }.get(every.unit)
    if known is None:
        raise ConfigError(f"distributed.average_every is {every}, whose steps are not known here; give it in steps.")
    return max(1.0, float(every.amount) * known)


def notes_of(found: Footprint, worlds: Sequence[int]) -> Iterator[str]:
    """What else is to be known, in sentences."""
    least = found.shares.least
    short = [world for world in worlds if world > least]
    if short:
        yield (
            f"A batch has {least:,} samples at least: of {_listed(short)} ranks some have none of such a batch, and "
            f"wait for the others."
        )


def _listed(numbers: Sequence[int]) -> str:
    return " or ".join(f"{number:,}" for number in numbers)


def rank_of(found: Footprint, world: int, strategy: Strategy, given: Given, average_every: float | None = None) -> Rank:
    """One rank of so many."""
    sent = 0.0 if world == 1 else sent_in_a_step(found, world, strategy, average_every)
    return Rank(
        world,
        strategy,
        found.shares.largest[world].samples,
        memory_of(found, world, strategy),
        sent,
        Time(
            None if given.speed is None else _computing(found, world, given.speed),
            None if given.bandwidth is None else sent / given.bandwidth,
        ),
    )


# -- memory ----------------------------------------------------------------------------------------------------------


def memory_of(found: Footprint, world: int, strategy: Strategy) -> Memory:
    """What a rank holds at the moment at which it holds most."""
    pieces = world if strategy == "fsdp" else 1
    kept = Memory(
        parameters=_share(found.parameters, pieces) + found.buffers,
        gradients=0,
        optimizer=_share(found.optimizer, pieces),
        average=_share(found.average, pieces),
        activations=0,
        gathered=0,
    )
    moments = _sharded(found, world) if strategy == "fsdp" else _whole(found, world)
    return max((kept._replace(**moment._asdict()) for moment in moments), key=lambda memory: memory.total)


class _Moment(NamedTuple):
    """What a step holds for a time."""

    gradients: int
    activations: int
    gathered: int = 0


def _whole(found: Footprint, world: int) -> Iterator[_Moment]:
    """A step of a rank that has the whole model; of several, gradients that are made lie in the sums to be as well."""
    step, copies = found.steps[world], int(world > 1)
    for level in step.backward:
        yield _Moment(level.gradients, level.other, copies * level.gradients)
    for level in step.update:
        yield _Moment(level.gradients, level.other)
    if copies:
        gradients = _share(_trained(found), 1)
        yield _Moment(gradients, 0, gradients)


def _sharded(found: Footprint, world: int) -> Iterator[_Moment]:
    """A step of a rank that has a piece of every tensor, and gathers the units of the model one after the other.

    Gradients are divided once a step, so that those of several batches are whole until the last.
    """
    step, gathered = found.steps[world], _gathered(found)
    trained = _trained(found)
    piece = _share(trained, world) / max(1, _share(trained, 1))
    held = piece if found.accumulate == 1 else 1.0
    for level in step.backward:
        yield _Moment(math.ceil(level.gradients * held), level.other, gathered)
    for level in step.update:
        yield _in_pieces(level, piece)


def _in_pieces(level: Level, piece: float) -> _Moment:
    return _Moment(math.ceil(level.gradients * piece), math.ceil(level.other * piece))


def _gathered(found: Footprint) -> int:
    """The most that is whole at once: the root, a unit and the next one, and the gradients of a unit.

    Those are reduced from a copy; the root stays whole from the forward pass on.
    """
    weights = _whole_weights(found)
    computed, reduced = (_by_unit(_trained(found), itemsize) for itemsize in (_narrow(found), None))
    units = [weights[unit] for unit in sorted(weights, key=_order) if unit is not None]
    pairs = [one + other for one, other in pairwise(units)] or units
    gradients = max((computed[unit] + size for unit, size in reduced.items()), default=0)
    return weights.get(None, 0) + max(pairs, default=0) + gradients


def _whole_weights(found: Footprint) -> dict[int | None, int]:
    """Bytes of each unit once it is gathered: of the root in its own type, of layers in that which they compute in."""
    own, narrow = (_by_unit(found.parameters, itemsize) for itemsize in (None, _narrow(found)))
    return {unit: size if unit is None else narrow[unit] for unit, size in own.items()}


def _order(unit: int | None) -> int:
    return -1 if unit is None else unit


def _by_unit(parts: Iterable[Part], itemsize: int | None) -> dict[int | None, int]:
    """Bytes of each unit, where a number takes so many."""
    found: dict[int | None, int] = {}
    for part in parts:
        found[part.unit] = found.get(part.unit, 0) + math.prod(part.shape) * (itemsize or part.itemsize)
    return found


def _narrow(found: Footprint) -> int | None:
    """Bytes of a number of a layer that is gathered; None for as many as it has."""
    return None if found.precision == "float32" else NARROW


def _share(parts: Iterable[Part], pieces: int) -> int:
    return sum(part.share(pieces) for part in parts)


def _trained(found: Footprint) -> list[Part]:
    return [part for part in found.parameters if part.trained]


def _numbers(part: Part) -> int:
    return math.prod(part.shape)


# -- communication and time ------------------------------------------------------------------------------------------


def sent_in_a_step(found: Footprint, world: int, strategy: Strategy, average_every: float | None) -> float:
    """Bytes that a rank sends in a step, by algorithms of the ring, which send least (Patarasuk and Yuan 2009).

    A sum over N ranks of S bytes takes 2 (N - 1) / N S, a gathering or a scattering sum half of that. A sharded model
    gathers its weights in the forward and, but for the root, in the backward pass of each batch, and once a step it
    scatters the sum of its gradients. With `average_every`, weights, their average and the optimizer's state are summed
    every so many steps, and no gradients.
    """
    ring = (world - 1) / world
    gradients = _share(_trained(found), 1)
    if strategy == "ddp" and average_every is not None:
        return 2 * ring * _share((*found.parameters, *found.average, *found.optimizer), 1) / average_every
    if strategy == "ddp":
        return 2 * ring * gradients
    weights = _whole_weights(found)
    gathered = 2 * sum(weights.values()) - weights.get(None, 0)
    return ring * (found.accumulate * gathered + gradients)


def _computing(found: Footprint, world: int, speed: float) -> float | None:
    """Seconds that the rank with the largest share computes in a step: ranks wait for the last one."""
    if found.tokens is None:
        return None
    samples = (found.horizon.samples_per_step or 0) / found.accumulate
    share = math.ceil(samples / world) / samples if samples else 1 / world
    return found.tokens * share / speed
