"""All ranks of a run as one of them sees them, and the world of one."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol, TypeVar, final

from torch import Tensor

from etude.train.world.post import Post
from etude.train.world.store import of_one

T = TypeVar("T")


class World(Protocol):
    """All ranks of a run, as one of them sees them. Every method is called by all of them, in the same order."""

    @property
    def rank(self) -> int:
        """Which of them this one is, from 0."""

    @property
    def size(self) -> int:
        """How many there are."""

    @property
    def is_first(self) -> bool:
        """Whether this is the rank that has the run folder."""

    @property
    def post(self) -> Post:
        """Where a thread of this rank leaves words for the others, apart from what all take part in."""

    def total(self, numbers: Mapping[str, float], marks: Sequence[bool] = ()) -> tuple[dict[str, float], list[bool]]:
        """By name, the sum over the ranks that have a number of that name; exact for whole ones up to 2^53.

        `marks`, as many on each rank, come back as whether any rank has set them.
        """

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Put into each tensor the sum over all ranks; they have the same shapes and types on each."""

    def begin_to_add_up(self, tensor: Tensor) -> Callable[[], None]:
        """Put into a tensor the sum over all ranks, while this one goes on; what is given waits for it.

        Nothing else touches the tensor until then.
        """

    def spread(self, tensors: Sequence[Tensor]) -> None:
        """Put into each tensor what it is on the first rank."""

    def gather(self, value: T) -> list[T]:
        """The values of all ranks, by rank."""

    def exchange(
        self, sent: Tensor, lengths: Sequence[int], received: Tensor, sizes: Sequence[int]
    ) -> Sequence[Tensor]:
        """Send each rank its part of `sent`, of these lengths; the parts of `received`, of these sizes, by rank."""

    def agree(self, value: T | None) -> T | None:
        """What the lowest rank that has something to say says; None where none has. The same on every rank."""

    def after_the_first(self) -> AbstractContextManager[None]:
        """Let the first do what is inside the block before the others begin to, however long it takes."""


@final
class Alone:
    """A world of one rank.

    >>> Alone().total({"a": 3}), Alone().gather("a"), Alone().agree(None)
    (({'a': 3}, []), ['a'], None)
    """

    rank = 0
    size = 1
    is_first = True
    post = Post(of_one, 0, 1, timeout=0.0)

    def total(self, numbers: Mapping[str, float], marks: Sequence[bool] = ()) -> tuple[dict[str, float], list[bool]]:
        """The numbers themselves, and the marks."""
        return dict(numbers), list(marks)

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """They are the sum."""

    def begin_to_add_up(self, tensor: Tensor) -> Callable[[], None]:
        """It is the sum."""
        del tensor
        return lambda: None

    def spread(self, tensors: Sequence[Tensor]) -> None:
        """They are the first's."""

    def gather(self, value: T) -> list[T]:
        """`value` alone."""
        return [value]

    def exchange(
        self, sent: Tensor, lengths: Sequence[int], received: Tensor, sizes: Sequence[int]
    ) -> Sequence[Tensor]:
        """What is sent is received."""
        del lengths, sizes
        return [received.copy_(sent)]

    def agree(self, value: T | None) -> T | None:
        """`value` itself."""
        return value

    def after_the_first(self) -> AbstractContextManager[None]:
        """It does."""
        return nullcontext()


ALONE = Alone()
