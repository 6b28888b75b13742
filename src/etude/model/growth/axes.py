"""Where the old values of one dimension go in the new one."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import accumulate
from operator import attrgetter, ne
from typing import NamedTuple, final

import torch
from torch import Tensor

from etude.model.growth.config import Growth
from etude.model.layers.growing import Dim, Part, Row


class Block(NamedTuple):
    """A stretch of the old dimension, and where it goes in the new one."""

    old: int
    new: int
    size: int


@final
@dataclass(frozen=True)
class Axis:
    """One dimension of a transfer."""

    old_size: int
    new_size: int
    blocks: tuple[Block, ...]
    """The old values that are kept."""
    replicas: tuple[Block, ...] = ()
    """Copies that stand beside them."""
    divides: bool = False
    """Whether values are divided by how often they stand there."""
    zeroes: bool = False
    """Whether what remains becomes zero."""
    factor: float = 1.0

    @property
    def is_identity(self) -> bool:
        """Whether every value stays where it is."""
        return self.old_size == self.new_size and self.blocks == _whole(self.old_size)

    @property
    def kept(self) -> int:
        """How many old places have one in the new dimension."""
        return sum(block.size for block in self.blocks)

    def sources(self, *, replicas: bool = True) -> Tensor:
        """By new place the old one, and -1 where there is none."""
        found = torch.full((self.new_size,), -1)
        for block in (*self.blocks, *(self.replicas if replicas else ())):
            found[block.new : block.new + block.size] = torch.arange(block.old, block.old + block.size)
        return found


def _whole(size: int) -> tuple[Block, ...]:
    return (Block(0, 0, size),) if size else ()


def unchanged(size: int) -> Axis:
    """A dimension that stays as it is."""
    return Axis(size, size, _whole(size))


@final
@dataclass
class Pairing:
    """What is found where the parts of two dimensions are paired."""

    blocks: list[Block] = field(default_factory=list)
    replicas: list[Block] = field(default_factory=list)
    grown: set[tuple[int, int]] = field(default_factory=set)
    """Old and new numbers of units, or of members alike, that grow."""
    obstacles: list[str] = field(default_factory=list)
    """Why copies would change the function."""
    shrinks: bool = False
    torn: bool = False
    """Whether groups change that must not do so unseen."""

    def axis(self, old: Dim, new: Dim, how: Growth) -> Axis:
        """What it comes to."""
        acts = how.new_weights != "init" and new.side in {"takes", "both"}
        axis = Axis(old.row.size, new.row.size, tuple(_joined(self.blocks)), zeroes=acts)
        if how.new_weights != "net2net":
            return axis
        return replace(axis, replicas=tuple(self.replicas), divides=new.side == "takes", factor=old.gain / new.gain)


def _joined(blocks: list[Block]) -> list[Block]:
    """Blocks in order, those that touch each other on both sides as one."""
    joined: list[Block] = []
    for block in sorted(blocks, key=attrgetter("new")):
        if joined and _touch(joined[-1], block):
            joined[-1] = joined[-1]._replace(size=joined[-1].size + block.size)
        else:
            joined.append(block)
    return joined


def _touch(first: Block, second: Block) -> bool:
    return second.new - first.new == second.old - first.old == first.size


def paired(old: Dim, new: Dim, how: Growth) -> Pairing:
    """The parts of an old and a new dimension, paired by position."""
    found = Pairing()
    _Walk(found, how, found.blocks).pair(old.row, new.row, 0, 0)
    return found


@dataclass(frozen=True)
class _Walk:
    """A walk through both, which notes blocks in one of the lists."""

    found: Pairing
    how: Growth
    into: list[Block]

    def pair(self, old: Part | Row, new: Part | Row, at_old: int, at_new: int) -> None:
        match old, new:
            case Part(), Part():
                self._parts(old, new, at_old, at_new)
            case (Part(), Row(joined=True)) | (Row(joined=True), Part()):
                self._parts(_one_part(old), _one_part(new), at_old, at_new)
            case _:
                self._rows(_row(old), _row(new), at_old, at_new)

    def _rows(self, old: Row, new: Row, at_old: int, at_new: int) -> None:
        if self.how.heads == "widen" and _both_change(old, new):
            self._parts(_one_part(old), _one_part(new), at_old, at_new)
            return
        self._members(old, new, at_old, at_new)
        self._note_members(old, new)

    def _members(self, old: Row, new: Row, at_old: int, at_new: int) -> None:
        """Pair the members of two rows by position; those behind all old ones, if alike, with these once more."""
        olds = _placed(old, at_old)
        for source, (member, place) in enumerate(_placed(new, at_new), old.before - new.before):
            if 0 <= source < len(olds):
                self.pair(olds[source].member, member, olds[source].start, place)
            elif new.alike and olds:
                again = olds[source % len(olds)]
                self._copying().pair(again.member, member, again.start, place)

    def _note_members(self, old: Row, new: Row) -> None:
        """Note whether there are fewer members, or more that are alike."""
        shift = old.before - new.before
        count, now = len(old.members), len(new.members)
        self.found.shrinks |= shift > 0 or count - shift > now
        if new.alike and now > count:
            self.found.grown.add((count, now))

    def _copying(self) -> "_Walk":
        return _Walk(self.found, self.how, self.found.replicas)

    def _parts(self, old: Part, new: Part, at_old: int, at_new: int) -> None:
        shift = new.before - old.before
        size = max(0, min(old.size + min(shift, 0), new.size - max(shift, 0)))
        if size:
            self.into.append(Block(at_old + max(-shift, 0), at_new + max(shift, 0), size))
        self.found.shrinks |= size < old.size
        if old.size != new.size:
            self.found.torn |= old.rigid != new.rigid
        if new.size > old.size:
            self._grow(old, new, at_old, at_new)

    def _grow(self, old: Part, new: Part, at_old: int, at_new: int) -> None:
        """Note copies of the units, one after another, behind them."""
        self.found.obstacles += filter(None, [new.obstacle or _of_norm(old, new)])
        if new.kind == "units" and old.size:
            self.found.grown.add((old.size, new.size))
            self.found.replicas += _repeated(old.size, new.size, at_old, at_new)


def _repeated(old: int, new: int, at_old: int, at_new: int) -> Iterator[Block]:
    """Copies of so many old values, side by side behind them until there are as many as new ones."""
    for start in range(old, new, old):
        yield Block(at_old, at_new + start, min(old, new - start))


class _Placed(NamedTuple):
    """A member of a row, and where it begins."""

    member: Part | Row
    start: int


def _placed(row: Row, at: int) -> list[_Placed]:
    """The members of a row that begins at `at`."""
    starts = accumulate((member.size for member in row.members), initial=at)
    return list(map(_Placed, row.members, starts))


def _row(parts: Part | Row) -> Row:
    return parts if isinstance(parts, Row) else Row((parts,))


def _of_norm(old: Part, new: Part) -> str:
    """Why a norm would have other values with copies of its units."""
    if not old.group:
        return ""
    if new.size % old.size:
        return f"a norm over {old.size} keeps its values only over twice, three times, ... as many"
    return "" if _same_groups(old, new) else "the groups of its norm would hold other units"


def _same_groups(old: Part, new: Part) -> bool:
    """Whether the groups of a norm are as large as they were, or it is still one over all units."""
    return old.group == new.group or (old.group, new.group) == (old.size, new.size)


def _both_change(old: Row, new: Row) -> bool:
    """Whether heads become other in number and in width."""
    if not (old.heads and new.heads):
        return False
    return all(map(ne, _heads(old), _heads(new)))


def _heads(row: Row) -> tuple[int, int]:
    """How many heads there are, and how wide they are."""
    count = len(row.members)
    inner = row.members[0]
    if isinstance(inner, Row) and inner.heads:
        within, width = _heads(inner)
        return count * within, width
    return count, inner.size


def _one_part(row: Part | Row) -> Part:
    return Part(row.size, obstacle="its heads are cut anew")
