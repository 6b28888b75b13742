"""A planned transfer: what every parameter of the new network takes from the old one, and how it is written."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import filterfalse
from math import prod
from operator import attrgetter
from typing import Literal, NamedTuple, TypeAlias, final

import torch
from torch import Tensor, nn

from etude.base.errors import ConfigError
from etude.model.growth.axes import Axis, Block
from etude.model.growth.declared import stored_in
from etude.model.growth.report import Line, lines, plain

Kind: TypeAlias = Literal["copied", "grown", "new"]


@final
@dataclass(frozen=True)
class Entry:
    """What becomes of one parameter or buffer of the new network."""

    name: str
    kind: Kind
    source: str | None
    """The old one that it takes values of."""
    new_shape: tuple[int, ...]
    old_shape: tuple[int, ...] | None = None
    axes: tuple[Axis, ...] = ()
    fill: float | None = None
    """What a new one is filled with, so that the network computes what it did; None: its initial values stay."""
    is_duplicate: bool = False
    """Whether it is a copy, beside the parameter that takes the place of the old one."""
    is_parameter: bool = True

    @property
    def blocks(self) -> tuple[tuple[Block, ...], ...]:
        """Of each dimension, the stretches that are kept."""
        return tuple(axis.blocks for axis in self.axes)

    @property
    def is_identity(self) -> bool:
        """Whether it stays as it is."""
        return self.source == self.name and self.is_unchanged and not self.is_duplicate

    @property
    def is_unchanged(self) -> bool:
        """Whether every value of the old one stays where it is in the new one."""
        return self.source is not None and all(axis.is_identity for axis in self.axes)

    @property
    def size(self) -> int:
        """Numbers of it."""
        return prod(self.new_shape)

    def as_grown(self) -> "Entry":
        """The same, of which some values are new."""
        return replace(self, kind="grown")

    @property
    def kept(self) -> int:
        """Old numbers that it has."""
        return 0 if self.source is None else prod(axis.kept for axis in self.axes)


class Counts(NamedTuple):
    """Parameters, as numbers."""

    copied: int
    """Old ones that are kept."""
    new: int
    """New ones, in parameters that grew or are new."""
    dropped: int
    """Old ones, of parameters that have no place in the new network or shrank."""


@final
@dataclass(frozen=True)
class Transfer:
    """How a network's parameters and buffers become those of another one; made of shapes alone.

    Buffers that are not stored are no part of it: the new network has made its own.
    """

    entries: Mapping[str, Entry]
    """By the new name, of tied parameters the first."""
    dropped: Mapping[str, tuple[int, ...]]
    """Old ones without a place in the new network, and their shapes."""
    where: str = ""
    old_total: int = 0
    """Numbers of all old parameters."""

    @property
    def is_identity(self) -> bool:
        """Whether nothing changes."""
        return not self.dropped and all(entry.is_identity for entry in self.entries.values())

    @property
    def counts(self) -> Counts:
        """Parameters that are copied, new and dropped; buffers are not counted, nor copies of a layer as copied."""
        parameters = list(filter(attrgetter("is_parameter"), self.entries.values()))
        copied = sum(entry.kept for entry in filterfalse(attrgetter("is_duplicate"), parameters))
        return Counts(copied, sum(map(attrgetter("size"), parameters)) - copied, self.old_total - copied)

    @torch.no_grad()
    def apply(self, old: Mapping[str, Tensor], new: nn.Module) -> None:
        """Write what is kept of the old network's state dict over the initial values of the new one, in place."""
        self.write(old, {one.name: one.tensor for one in stored_in(new)})

    @torch.no_grad()
    def write(self, old: Mapping[str, Tensor], new: Mapping[str, Tensor]) -> None:
        """Write what is kept of `old` over `new`, in place; both by name, as state dicts have them."""
        for entry in self.entries.values():
            self._write(entry, old, new[entry.name])

    def _write(self, entry: Entry, old: Mapping[str, Tensor], new: Tensor) -> None:
        _check(new, entry.new_shape, entry.name, "new")
        if entry.fill is not None:
            new.fill_(entry.fill)
        if entry.source is None:
            return
        value = _value(old, entry.source, entry.name)
        _check(value, entry.old_shape or (), entry.source, "old")
        write(value, new, entry.axes)

    def table(self) -> list[dict[str, object]]:
        """The report as plain rows: every parameter with what it is, its source, its shapes and its numbers."""
        return list(map(plain, self._lines()))

    def text(self) -> list[str]:
        """The report as lines of text, layers that fare alike as one."""
        counts = self.counts
        head = f"{counts.copied:,} parameters copied, {counts.new:,} new, {counts.dropped:,} dropped"
        return [f"{self.where}: {head}" if self.where else head, *lines(self._lines())]

    def _lines(self) -> list[Line]:
        found = [
            Line(entry.kind, entry.name, entry.source, entry.old_shape, entry.new_shape, entry.size, entry.kept)
            for entry in self.entries.values()
        ]
        gone = [Line("dropped", name, name, shape, None, prod(shape), 0) for name, shape in self.dropped.items()]
        return found + gone


def _value(old: Mapping[str, Tensor], source: str, name: str) -> Tensor:
    """The old tensor that `name` is made of."""
    if source not in old:
        raise ConfigError(f"{source} is not among the old network's parameters, of which {name} is made.")
    return old[source].detach()


def _check(tensor: Tensor, shape: tuple[int, ...], name: str, which: str) -> None:
    if tuple(tensor.shape) != shape:
        raise ConfigError(
            f"{name} of the {which} network has the shape {tuple(tensor.shape)}, but the transfer was planned for "
            f"{shape}."
        )


def write(old: Tensor, new: Tensor, axes: Sequence[Axis]) -> None:
    """Write the kept values of `old` into `new`, in place, and their copies, zeros and factors where axes have them."""
    old = old.to(new.device)
    sources = [axis.sources().to(new.device) for axis in axes]
    _zero(new, axes, sources)
    for dim, (axis, found) in enumerate(zip(axes, sources, strict=True)):
        kept = found[found >= 0]
        old = _scaled(old, dim, axis, kept).index_select(dim, kept)
    _put(old, new, sources)


def _zero(new: Tensor, axes: Sequence[Axis], sources: Sequence[Tensor]) -> None:
    """Write zeros where an axis has them in the place of what no old value comes to."""
    for dim, (axis, found) in enumerate(zip(axes, sources, strict=True)):
        if axis.zeroes:
            new.index_fill_(dim, (found < 0).nonzero()[:, 0], 0)


def _scaled(value: Tensor, dim: int, axis: Axis, kept: Tensor) -> Tensor:
    """What is read along a dimension, divided by how often it is."""
    if axis.factor != 1.0:
        value = value * axis.factor
    if not axis.divides or not axis.replicas:
        return value
    counts = torch.bincount(kept, minlength=axis.old_size).clamp(min=1)
    shape = [1] * value.ndim
    shape[dim] = -1
    return value / counts.view(shape)


def _put(value: Tensor, new: Tensor, sources: Sequence[Tensor]) -> None:
    """Write `value` to the places of `new` that have a source in every dimension."""
    if value.shape == new.shape:
        new.copy_(value)
        return
    index = [(found >= 0).nonzero()[:, 0] for found in sources]
    places = torch.meshgrid(*index, indexing="ij")
    new[places] = value.to(new.dtype)


def scattered(old: Tensor, axes: Sequence[Axis | None], like: Sequence[int]) -> Tensor:
    """The kept values of `old` in a tensor of zeros of the shape `like`; a dimension of None stays as it is."""
    sources = []
    for dim, axis in enumerate(axes):
        found = torch.arange(old.size(dim)) if axis is None else axis.sources(replicas=False)
        sources.append(found.to(old.device))
    new = old.new_zeros(tuple(like))
    for dim, found in enumerate(sources):
        old = old.index_select(dim, found[found >= 0])
    _put(old, new, sources)
    return new
