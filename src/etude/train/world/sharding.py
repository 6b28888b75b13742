"""How the weights of a task lie on its ranks: whole on each, or sharded, which `sharded.py` does."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple, Protocol, TypeVar, cast, final

from torch import Tensor, nn

T = TypeVar("T")
Key = tuple[str, str]
"""What a tensor is called: the file that it belongs to, and its name in there."""


class Handed(NamedTuple):
    """Sharded tensors that were made whole again, each on one rank."""

    owners: Mapping[Key, int]
    """Which rank has which: the same on all ranks."""
    own: Mapping[Key, Tensor]
    """Those that this rank has, on the CPU."""


class Sharding(Protocol):
    """How the weights lie on the ranks."""

    @property
    def is_sharded(self) -> bool:
        """Whether a rank holds a part of each alone."""

    def shard(self, task: nn.Module) -> None:
        """Let the weights of a task, which are whole on all ranks, lie on them so; nothing, once it is the end."""

    def unshard(self) -> None:
        """Let every rank hold all weights of the task again, as before they were sharded."""

    def end(self) -> None:
        """Let every rank hold all weights from here on."""

    def reduces(self, *, now: bool) -> None:
        """Let the next backward pass add up gradients over the ranks, or leave that to a later one."""

    def gathered(self) -> AbstractContextManager[None]:
        """Let every rank hold all weights inside the block, where it computes without the others."""

    def handed_out(self, tensors: Mapping[Key, Tensor], count: int) -> Handed:
        """Those of some tensors that are sharded, each whole on one of the first `count` ranks, balanced by bytes."""

    def whole(self, nest: T) -> T:
        """A nest of tensors of which each rank has a part, whole and on the CPU; itself where none is sharded."""

    def parted(self, value: Tensor, like: Tensor) -> Tensor:
        """This rank's part of a whole tensor, as `like` is parted; itself where that is not."""


@final
class Whole:
    """Each rank holds all weights."""

    is_sharded = False

    def shard(self, task: nn.Module) -> None:
        """They do."""

    def unshard(self) -> None:
        """It does."""

    def end(self) -> None:
        """It does."""

    def reduces(self, *, now: bool) -> None:
        """Nothing is reduced in a backward pass."""

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """All weights are there."""
        yield

    def handed_out(self, tensors: Mapping[Key, Tensor], count: int) -> Handed:
        """None is sharded."""
        del tensors, count
        return Handed({}, {})

    def whole(self, nest: T) -> T:
        """The nest itself."""
        return nest

    def parted(self, value: Tensor, like: Tensor) -> Tensor:
        """The tensor itself."""
        del like
        return value


def layers_of(task: nn.Module) -> list[nn.Module]:
    """The layers of the stacks of a task: what its outermost lists of modules hold."""
    found: list[nn.Module] = []

    def look(module: nn.Module) -> None:
        for child in module.children():
            if isinstance(child, nn.ModuleList):
                found.extend(layer for layer in child if any(True for _ in layer.parameters()))
            else:
                look(child)

    look(task)
    return found


def local(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The parts of tensors that lie on this rank, which share their memory."""
    return [cast("Any", tensor).to_local() if hasattr(tensor, "to_local") else tensor for tensor in tensors]
