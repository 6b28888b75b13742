"""Hidden states of a batch, dealt out to another number of ranks than they were saved by.

A rank has every Nth row of a batch, and so of its hidden states. The rows of all ranks are put together in the order
of the batch, and each rank takes its own of these.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

RECURRENT = 3
"""The dimensions of the states of torch's recurrent layers: [layers, rows, width]."""


class UnclearError(Exception):
    """Nothing tells which dimension of a hidden state has the rows."""


@dataclass(frozen=True)
class Deal:
    """How the rows of one batch come to one rank."""

    sizes: Sequence[int]
    """The rows that each rank had."""
    rank: int
    world: int
    recurrent: Collection[tuple[int, int]] = ()
    """Layers and width of the states that the task's recurrent layers have."""

    @property
    def rows(self) -> list[int]:
        """The places of this rank's rows among those of all ranks, laid one after the other."""
        before = len(self.sizes)
        begins = [sum(self.sizes[:rank]) for rank in range(before)]
        return [begins[row % before] + row // before for row in range(self.rank, sum(self.sizes), self.world)]

    def of(self, nests: Sequence[Any]) -> Any:
        """This rank's part of what all ranks had, mappings and sequences of tensors. Raises UnclearError."""
        match nests[0]:
            case Tensor():
                return self._of_tensors(nests)
            case Mapping() as first:
                return {key: self.of([nest[key] for nest in nests]) for key in first}
            case list() | tuple() as first:
                return type(first)(map(self.of, zip(*nests, strict=True)))
        return _common(nests)

    def _of_tensors(self, parts: Sequence[Tensor]) -> Tensor:
        along = self._dimension([part.shape for part in parts])
        rows = torch.tensor(self.rows, device=parts[0].device)
        return torch.cat(list(parts), along).index_select(along, rows)

    def _dimension(self, shapes: Sequence[torch.Size]) -> int:
        """Which dimension has the rows: the one that is as long as a rank's rows are many, on every rank."""
        possible = [at for at in range(len(shapes[0])) if [shape[at] for shape in shapes] == list(self.sizes)]
        if len(possible) > 1 and self._is_recurrent(shapes[0]):
            return 1
        if len(possible) != 1 or len({shape[: possible[0]] + shape[possible[0] + 1 :] for shape in shapes}) > 1:
            raise UnclearError
        return possible[0]

    def _is_recurrent(self, shape: torch.Size) -> bool:
        return len(shape) == RECURRENT and (shape[0], shape[2]) in self.recurrent


def _common(values: Sequence[object]) -> object:
    """What is the same on all ranks."""
    if any(value != values[0] for value in values):
        raise UnclearError
    return values[0]


def recurrent_states(task: nn.Module) -> set[tuple[int, int]]:
    """Layers (of both directions) and width of the states of every recurrent layer of torch's in a task.

    >>> sorted(recurrent_states(nn.LSTM(4, 8, num_layers=2, proj_size=3)))
    [(2, 3), (2, 8)]
    """
    layers = [module for module in task.modules() if isinstance(module, nn.RNNBase)]
    return set(chain.from_iterable(map(_states, layers)))


def _states(layer: nn.RNNBase) -> Iterator[tuple[int, int]]:
    layers = layer.num_layers * (1 + layer.bidirectional)
    return ((layers, width) for width in {layer.hidden_size, layer.proj_size or layer.hidden_size})
