"""The processes that train one run together. Only this file may ever import `torch.distributed`."""

from typing import Protocol, TypeVar, final

from torch import Tensor

T = TypeVar("T")
Number = TypeVar("Number", bound=float | Tensor)


class World(Protocol):
    """All ranks of a run, as one of them sees them."""

    @property
    def rank(self) -> int:
        """Which of them this one is, from 0."""

    @property
    def size(self) -> int:
        """How many there are."""

    @property
    def is_first(self) -> bool:
        """Whether this is the rank that writes."""

    def sum(self, value: Number) -> Number:
        """The sum of `value` over all ranks."""

    def all(self, holds: bool) -> bool:  # noqa: FBT001 - as Python's own
        """Whether something holds on every rank."""

    def gather(self, value: T) -> list[T]:
        """The values of all ranks, by rank."""

    def agree(self, value: T | None) -> T | None:
        """What the lowest rank that has something to say says; None where none has. The same on every rank."""


@final
class Alone:
    """A world of one rank.

    >>> Alone().sum(3), Alone().gather("a"), Alone().agree(None)
    (3, ['a'], None)
    """

    rank = 0
    size = 1
    is_first = True

    def sum(self, value: Number) -> Number:
        """`value` itself."""
        return value

    def all(self, holds: bool) -> bool:  # noqa: FBT001 - as Python's own
        """Whether it holds here."""
        return holds

    def gather(self, value: T) -> list[T]:
        """`value` alone."""
        return [value]

    def agree(self, value: T | None) -> T | None:
        """`value` itself."""
        return value


ALONE = Alone()
