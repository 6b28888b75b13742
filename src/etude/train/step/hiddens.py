"""The hiddens of truncated back-propagation: what one piece of a batch hands to the next, for each optimizer."""

from collections.abc import Callable, Sequence
from typing import Any, TypedDict

import torch

from etude.base.errors import ConfigError, DataError
from etude.data.nest import detach, move
from etude.train.step.dealing import Deal, UnclearError, recurrent_states
from etude.train.task import StepOutput, Task, accepts


class NoHiddens:
    """The hiddens of a run without truncated back-propagation: None for every batch."""

    now: Any = None
    are_kept = False

    def parts(self) -> dict[str, "Hiddens"]:
        """Nothing is remembered."""
        return {}

    def begin(self, name: str) -> None:
        """Do nothing."""

    def before(self, batch: object, *, first: bool, borrowed: bool) -> None:
        """Do nothing."""

    def after(self, returned: object) -> None:
        """Do nothing."""

    def keep(self, *, batch_ends: bool) -> None:
        """Do nothing."""

    def forget(self) -> None:
        """Do nothing."""


class HiddensState(TypedDict):
    """What a checkpoint keeps of them."""

    hiddens: dict[str, Any]
    samples: dict[str, int | None]


class Hiddens:
    """What the next piece of each optimizer gets; a part of State.

    A batch begins at None, or, with `carry`, where the batch before it in its epoch ended; an epoch begins at None,
    as its stream does. What a piece returned is detached. A step that was not finite, and an optimizer that was not
    stepped, hand on what they were given. Memory: one set of hiddens an optimizer, on the model's device.
    """

    are_kept = True

    def __init__(self, task: Task, *, carry: bool, device: torch.device) -> None:
        if not accepts(task.training_step, "hiddens"):
            key = "carry_hiddens" if carry else "tbptt_steps"
            raise ConfigError(
                f"train.{key} needs a training_step(batch, *, hiddens=None) that returns StepOutput(loss, hiddens=...),"
                f" but that of {type(task).__name__} does not take hiddens."
            )
        self._task = task
        self._carry = carry
        self._device = device
        self._kept: dict[str, Any] = {}
        self._samples: dict[str, int | None] = {}
        self._name = ""
        self._size: int | None = None
        self.now: Any = None
        """What the piece at hand gets."""

    def parts(self) -> dict[str, "Hiddens"]:
        """What of State these are."""
        return {"hiddens": self}

    def begin(self, name: str) -> None:
        """Begin the pieces of a step, for the optimizer `name`; a closure that is called again begins there too."""
        self._name, self.now, self._size = name, self._kept.get(name), self._samples.get(name)

    def before(self, batch: object, *, first: bool, borrowed: bool) -> None:
        """Take up a piece, the first of its batch or a later one; of a borrowed batch no sample is this rank's."""
        if not first:
            return
        size = None if borrowed else self._task.batch_size(batch)
        if not self._carry:
            self.now, self._size = None, size
            return
        if self.now is not None and None not in {size, self._size} and size != self._size:
            raise DataError(
                f"train.carry_hiddens carries states of {self._size} samples to a batch of {size}; every batch must "
                f"have the same number of samples: leave the last, smaller batch out (drop_last=True)."
            )
        self._size = size

    def after(self, returned: object) -> None:
        """Take what a piece returned."""
        if not isinstance(returned, StepOutput):
            raise ConfigError(
                f"With truncated back-propagation training_step must return StepOutput(loss, hiddens=...), but "
                f"returned a {type(returned).__name__}."
            )
        self.now = detach(returned.hiddens)

    def keep(self, *, batch_ends: bool) -> None:
        """Keep what the group ended with for the next one."""
        if batch_ends and not self._carry:
            self._kept.pop(self._name, None)
            return
        self._kept[self._name], self._samples[self._name] = self.now, self._size

    def forget(self) -> None:
        """Begin an epoch."""
        self._kept.clear()
        self._samples.clear()
        self.now, self._size = None, None

    def state_dict(self) -> HiddensState:
        """The hiddens and the samples they are of, by optimizer."""
        return {"hiddens": dict(self._kept), "samples": dict(self._samples)}

    def load_state_dict(self, state: HiddensState) -> None:
        """Go on from `state_dict()`."""
        self._kept = {name: move(value, self._device) for name, value in state["hiddens"].items()}
        self._samples = dict(state["samples"])

    def go_on_from(self, of_ranks: Sequence[HiddensState], rank: int, world: int) -> bool:
        """Go on from the `state_dict()` of every rank as one of another number; begin anew where that is unclear.

        Whether it went on.
        """
        try:
            self.load_state_dict(_dealt(of_ranks, rank, world, recurrent_states(self._task)))
        except UnclearError:
            self.forget()
            return False
        return True


def _dealt(of_ranks: Sequence[HiddensState], rank: int, world: int, recurrent: set[tuple[int, int]]) -> HiddensState:
    """One rank's part of the hiddens of all. Raises UnclearError."""
    dealt: HiddensState = {"hiddens": {}, "samples": {}}
    for name in of_ranks[0]["hiddens"]:
        deal = Deal(_rows([state["samples"].get(name) for state in of_ranks], world), rank, world, recurrent)
        dealt["hiddens"][name] = deal.of([state["hiddens"][name] for state in of_ranks])
        dealt["samples"][name] = len(deal.rows)
    return dealt


def _rows(samples: Sequence[int | None], world: int) -> list[int]:
    """The rows of each rank, where they are those of one batch that has enough for every rank of the new world."""
    known = [size for size in samples if size is not None]
    whole, before = sum(known), len(samples)
    if whole < world or known != [len(range(rank, whole, before)) for rank in range(before)]:
        raise UnclearError
    return known


def hiddens_of(task: Task, *, tbptt: bool, carry: bool, device: torch.device) -> Hiddens | NoHiddens:
    """The hiddens of a run. Raises ConfigError for a task that takes none where it should."""
    return Hiddens(task, carry=carry, device=device) if tbptt or carry else NoHiddens()


class Handed:
    """An evaluation step whose hiddens go from piece to piece, as in training."""

    def __init__(self, task: Task, step: Callable[..., object], *, carry: bool) -> None:
        self._task = task
        self._step = step
        self._carry = carry
        self._first = True
        self._now: Any = None
        self._size: int | None = None

    def begin(self, *, first: bool) -> None:
        """Say whether the piece that comes next is the first of its batch."""
        self._first = first

    def __call__(self, batch: object) -> Any:
        """The step of one piece."""
        if self._first:
            size = self._task.batch_size(batch)
            # A stream's last, smaller batch is evaluated all the same, from nothing.
            if not self._carry or size != self._size:
                self._now = None
            self._size = size
        returned = self._step(batch, hiddens=self._now)
        self._now = returned.hiddens if isinstance(returned, StepOutput) else None
        return returned
