"""Which writer of a checkpoint writes what: of a run on several ranks each has whole tensors in files of its own."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch import Tensor

from etude.train.memory.checkpoint.nest import copied
from etude.train.memory.checkpoint.shards import index_name, index_of, shard_name
from etude.train.world.sharding import Handed, Key, Whole


class Writer(NamedTuple):
    """One of those that write a checkpoint together."""

    rank: int
    """Which one; the first, 0, writes all that is not shared out."""
    size: int
    """How many there are."""
    hand_out: Callable[[Mapping[Key, Tensor], int], Handed]
    """Gives the tensors that are sharded each whole to one of so many writers."""


ALONE = Writer(0, 1, Whole().handed_out)


class Parts:
    """The tensors of a checkpoint by kind (`model.safetensors`), and what of them is this writer's."""

    def __init__(self, writer: Writer, kinds: Mapping[str, Mapping[str, Tensor]]) -> None:
        self._writer = writer
        self._kinds = kinds
        named = {(kind, name): tensor for kind, held in kinds.items() for name, tensor in held.items()}
        self._owners, self._own = writer.hand_out(named, writer.size)

    def own(self) -> dict[str, dict[str, Tensor]]:
        """By file: copies of the tensors that this writer writes."""
        found: dict[str, dict[str, Tensor]] = {}
        for kind, held in self._kinds.items():
            mine = {name: self._taken(kind, name) for name in held if self._owner(kind, name) == self._writer.rank}
            if mine or (not held and self._writer.rank == 0):
                found[self._files(kind)[self._writer.rank]] = mine
        return found

    def indexes(self) -> dict[str, dict[str, Any]]:
        """Of each kind that lies in several files, its index; by the name of that."""
        return {index_name(kind): self._index(kind) for kind in self._kinds if self._is_shared_out(kind)}

    def _index(self, kind: str) -> dict[str, Any]:
        held, files = self._kinds[kind], self._files(kind)
        return index_of({name: files[self._owner(kind, name)] for name in held}, held)

    def _taken(self, kind: str, name: str) -> Tensor:
        whole = self._own.get((kind, name))
        return copied(self._kinds[kind][name]) if whole is None else whole

    def _owner(self, kind: str, name: str) -> int:
        return self._owners.get((kind, name), 0)

    def _is_shared_out(self, kind: str) -> bool:
        return self._writer.size > 1 and any((kind, name) in self._owners for name in self._kinds[kind])

    def _files(self, kind: str) -> dict[int, str]:
        """By writer, of those that have something of a kind: the file that it writes."""
        if not self._is_shared_out(kind):
            return {0: kind}
        writers = sorted({self._owner(kind, name) for name in self._kinds[kind]})
        return {writer: shard_name(kind, number, len(writers)) for number, writer in enumerate(writers, start=1)}
