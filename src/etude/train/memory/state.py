"""All that a run must remember."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypedDict, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from etude.base.errors import StorageError
from etude.base.progress import Progress
from etude.base.randomness import seed_of
from etude.train.end import End

OF_EACH_RANK = ("generators", "hiddens", "data")
"""The parts of a run, by name, that each of its ranks has one of its own of."""


@runtime_checkable
class Part(Protocol):
    """Something with a memory of its own, kept in State under a name."""

    def state_dict(self) -> Any:
        """Tensors, numbers, text, and lists and mappings of them."""

    def load_state_dict(self, state: Any) -> None:
        """Go on from `state_dict()`."""


@runtime_checkable
class Dealt(Part, Protocol):
    """A part whose memory is that of the rows of a batch, of which each rank has some."""

    def go_on_from(self, of_ranks: Sequence[Any], rank: int, world: int) -> bool:
        """Go on from the `state_dict()` of every rank as one of another number; whether that could be done."""


def seed_generators(seed: int) -> None:
    """Where a run begins: what it draws is its own, not left over from what the process did before."""
    random.seed(seed_of(seed, "python"))
    np.random.seed(seed_of(seed, "numpy") % 2**32)  # noqa: NPY002 - users' code may draw from it
    torch.default_generator.manual_seed(seed_of(seed, "torch"))


class GeneratorStates(TypedDict):
    """What a checkpoint keeps of them."""

    python: tuple[Any, ...]
    numpy: list[Any]
    torch: Tensor


class Generators:
    """Python's, numpy's and torch's global generators, for users' code that draws from them."""

    def state_dict(self) -> GeneratorStates:
        """Their states: numbers, and torch's as a tensor of bytes."""
        kind, keys, position, has_gauss, gauss = np.random.get_state()  # noqa: NPY002 - users' code may draw from it
        return {
            "python": random.getstate(),
            "numpy": [kind, [int(key) for key in keys], position, has_gauss, gauss],
            "torch": torch.get_rng_state(),
        }

    def load_state_dict(self, state: GeneratorStates) -> None:
        """Set all three."""
        version, numbers, gauss = state["python"]
        random.setstate((version, tuple(numbers), gauss))
        kind, keys, position, has_gauss, cached = state["numpy"]
        np.random.set_state((kind, np.array(keys, dtype=np.uint32), position, has_gauss, cached))  # noqa: NPY002
        torch.set_rng_state(state["torch"])


class EpochLoss:
    """The loss over the running epoch: for each term the sum of sums over the sum of counts."""

    def __init__(self) -> None:
        self._terms: dict[str, tuple[Any, Any, float]] = {}

    def add(self, terms: Mapping[str, tuple[object, object, float]]) -> None:
        """Take in one step's terms."""
        for name, (total, count, weight) in terms.items():
            old = self._terms.get(name)
            self._terms[name] = (total, count, weight) if old is None else (old[0] + total, old[1] + count, weight)

    def close(self) -> float | None:
        """The epoch's loss; the next epoch begins at nothing."""
        values = [float(total) / float(count) * weight for total, count, weight in self._terms.values() if float(count)]
        self._terms.clear()
        return sum(values) if values else None

    def state_dict(self) -> dict[str, Sequence[Any]]:
        """The sums so far."""
        return {name: list(term) for name, term in self._terms.items()}

    def load_state_dict(self, state: Mapping[str, Sequence[float]]) -> None:
        """Go on from `state_dict()`."""
        self._terms = {name: (total, count, weight) for name, (total, count, weight) in state.items()}


def _nothing() -> Mapping[str, Part]:
    return {}


@dataclass
class State:
    """All that a run remembers but weights and optimizers, which have files of their own.

    Its progress, the position in the data, how much was logged, how it ended, and every part with a memory, by name.
    """

    progress: Progress = field(default_factory=Progress)
    position: Mapping[str, Any] | None = None
    """Where the data goes on within the epoch; None at an epoch's start."""
    skipped: int = 0
    """Steps skipped since their loss or gradient was not finite."""
    skipped_in_a_row: int = 0
    without_targets: int = 0
    """Batches in which no target counted."""
    record: int = 0
    """Bytes of the rows that belong to the run as it stands."""
    record_hash: str = ""
    """Their hash; empty of a checkpoint of before."""
    end: End | None = None
    """What has ended the run; None on the way."""
    until: Sequence[str] = ()
    """The `max_duration` that it was to be trained for."""
    horizon: float | None = None
    """The length of the run, in steps, that its schedules are bound to."""
    own: dict[str, Part] = field(default_factory=dict)
    """Parts that stay the same."""
    learnt: Callable[[], Mapping[str, Part]] = _nothing
    """Gives the parts of the learner, which may become others at an epoch's begin."""

    of_ranks: Sequence[Mapping[str, Any]] = ()
    """The states of the parts that each rank has its own of, by rank; of one rank nothing."""

    def of_this_rank(self) -> dict[str, Any]:
        """The states of the parts that each rank has its own of."""
        return {name: part.state_dict() for name, part in self.parts.items() if name in OF_EACH_RANK}

    def go_on_as(self, rank: int, size: int, state: Mapping[str, Any]) -> bool:
        """Let those parts be what they were on a rank; of another number, what belongs to rows is dealt out anew.

        Whether all goes on.
        """
        of_ranks = state.get("ranks", ())
        if (len(of_ranks) or 1) == size:
            for name, own in (of_ranks[rank] if of_ranks else {}).items():
                self.parts[name].load_state_dict(own)
            return True
        return self._dealt(of_ranks or [{name: state[f"part {name}"] for name in self.parts}], rank, size)

    def _dealt(self, of_ranks: Sequence[Mapping[str, Any]], rank: int, size: int) -> bool:
        dealt = {name: part for name, part in self.parts.items() if isinstance(part, Dealt)}
        return all([part.go_on_from([own[name] for own in of_ranks], rank, size) for name, part in dealt.items()])  # noqa: C419 - each has to

    @property
    def parts(self) -> dict[str, Part]:
        """Every part with a memory, by name."""
        return {**self.own, **self.learnt()}

    def state_dict(self) -> dict[str, Any]:
        """Everything, as tensors, numbers, text, and lists and mappings of them."""
        return {
            "progress": self.progress._asdict(),
            "position": None if self.position is None else dict(self.position),
            "skipped": [self.skipped, self.skipped_in_a_row],
            "without_targets": self.without_targets,
            "record": {"bytes": self.record, "sha256": self.record_hash},
            "ended": None if self.end is None else {**self.end.state_dict(), "until": list(self.until)},
            "horizon": self.horizon,
            **({"ranks": list(self.of_ranks)} if self.of_ranks else {}),
            **{f"part {name}": part.state_dict() for name, part in self.parts.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict()`, also from that of a version before; `until` and `horizon` stay this run's own.

        Raises StorageError if a part of this run has no state there.
        """
        self.progress = Progress(**state["progress"])
        self.position = state["position"]
        if self.position is not None and not isinstance(self.position, Mapping):
            raise TypeError(f"the position is {self.position!r}")
        self.skipped, self.skipped_in_a_row = state["skipped"]
        self.without_targets = state.get("without_targets", 0)
        self.record = int(state["record"]["bytes"])
        self.record_hash = str(state["record"].get("sha256", ""))
        self.end = End.read(state)
        for name, part in self.parts.items():
            part.load_state_dict(_state_of_part(name, state))


def _state_of_part(name: str, state: Mapping[str, Any]) -> Any:
    try:
        return state[f"part {name}"]
    except KeyError:
        raise StorageError(f"The checkpoint holds no state of {name}; was it added since?") from None


def completed(state: Mapping[str, Any]) -> dict[str, Any]:
    """A checkpoint's state with what one of a version before did not say.

    That is how often its average was updated; the structure of its task was the first; and nothing is known of what its
    data had come to remember.
    """
    updates = state["progress"]["step"] - state["skipped"][0]
    return {"part average": {"updates": updates}, "part structure": {"name": ""}, "part data": {}, **state}
