"""How two runs' checkpoints of one step differ: tensor by tensor, and in what they remember beside tensors."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from etude.base.config.lines import Key
from etude.base.config.nest import leaves
from etude.base.files import json_or_empty
from etude.train.memory.checkpoint.content import AVERAGED, MODEL, OPTIMIZER, SHARED, STATE, STATE_JSON
from etude.train.memory.checkpoint.reader import read_kind, verify
from etude.train.memory.checkpoint.shards import parts_of

Far = tuple[str, float | None]
"""A tensor that differs, with the largest absolute difference of its elements; None where the shapes differ."""

OF_THE_START = ("record", "ended", "horizon", "optimizers")
"""What the state says about the files and the end of a run rather than about its steps."""
PROGRESS_SECONDS = 5
"""Where the clock stands in a progress that is written as a list."""
PROGRESSES = ("since", "judged")


@dataclass(frozen=True)
class Weights:
    """The first step, of those that both saved, whose tensors differ."""

    step: int
    weights: list[Far]
    """Parameters with the largest absolute difference of their elements; None where their shapes differ."""
    of: int
    """How many tensors the weights are."""
    optimizer: int
    """How many tensors of the optimizer's state differ."""
    averaged: int
    """How many averaged tensors differ."""


class Both:
    """The checkpoints of one step in two runs. Raises StorageError, as its methods do, where one is damaged."""

    def __init__(self, step: int, places: Sequence[Path]) -> None:
        self.step = step
        self._places = places
        self._files: list[Mapping[str, Mapping[str, Any]]] = [verify(place)["files"] for place in places]

    def unlike_weights(self) -> Weights | None:
        """How the tensors differ; None where those that training uses are equal."""
        # One alone may keep an average: that is no difference of what both compute.
        names = [name for name in SHARED if name != AVERAGED or self._have(name)]
        unlike = {name: self._unlike_file(name) for name in names}
        if not any(unlike.values()):
            return None
        of = len(self._tensors(0, MODEL))
        return Weights(self.step, unlike[MODEL], of, len(unlike[OPTIMIZER]), len(unlike.get(AVERAGED, [])))

    def unlike_state(self) -> list[str]:
        """The names in the states that differ, the clock's left out; tensors by the names in their file."""
        one, other = (_remembered(json_or_empty(place / STATE_JSON)) for place in self._places)
        unlike = [".".join(map(str, key)) for key in dict.fromkeys([*one, *other]) if one.get(key) != other.get(key)]
        return unlike + [name for name, _ in self._unlike_file(STATE)]

    def _have(self, name: str) -> bool:
        """Whether both have tensors of a kind."""
        return all(parts_of(name, files) for files in self._files)

    def _unlike_file(self, name: str) -> list[Far]:
        """The tensors of a kind that differ; files that are equal are not read."""
        first, second = ([files[part]["sha256"] for part in parts_of(name, files)] for files in self._files)
        return [] if first == second else list(_apart(self._tensors(0, name), self._tensors(1, name)))

    def _tensors(self, number: int, name: str) -> Mapping[str, Tensor]:
        """The tensors of a kind in one of the two; none where it has no such file."""
        return read_kind(self._places[number], name, self._files[number])


def _apart(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> Iterator[Far]:
    """Tensors that are not equal to the bit, with how far they are apart."""
    for name in dict.fromkeys([*first, *second]):
        one, other = first.get(name), second.get(name)
        if one is None or other is None or (one.shape, one.dtype) != (other.shape, other.dtype):
            yield name, None
        elif not torch.equal(one.reshape(-1).view(torch.uint8), other.reshape(-1).view(torch.uint8)):
            yield name, float((one.double() - other.double()).abs().max())


def _remembered(state: Mapping[str, object]) -> dict[Key, object]:
    """What a state holds about the steps of a run, by place, without the clock."""
    return {key: _without_clock(key, value) for key, value in leaves(state) if _is_of_steps(key, value)}


def _is_of_steps(key: Key, value: object) -> bool:
    return key[0] not in OF_THE_START and "seconds" not in key and value != {}


def _without_clock(key: Key, value: object) -> object:
    if isinstance(value, list) and key[-1] in PROGRESSES:
        return [*value[:PROGRESS_SECONDS], *value[PROGRESS_SECONDS + 1 :]]
    return value
