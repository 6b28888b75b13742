"""Inputs of a prediction that several ranks share: each computes some of the batches, and all learn every answer."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar, final

from etude.base.errors import ConfigError, DataError, DistributedError, RefusedError, StorageError
from etude.train.world import World

A = TypeVar("A")
J = TypeVar("J")
Ask = Callable[[Sequence[str], int], Iterable[A]]
"""Answers texts in order; of the first its number is told as well."""
Places = Sequence[int]
Batches = Callable[[Sequence[str]], Sequence[Places]]
"""Which of some texts one process would compute together, in the order in which it does."""

NOT_OF_ONE = (ConfigError, StorageError, RefusedError, DistributedError)
"""What no single input is the cause of."""


def consecutive(places: Sequence[J], size: int) -> list[Sequence[J]]:
    """Cut into batches of `size` in their order.

    >>> consecutive([0, 1, 2, 5, 6], 2)
    [[0, 1], [2, 5], [6]]
    """
    return [places[begin : begin + size] for begin in range(0, len(places), size)]


def one_by_one(texts: Sequence[str]) -> list[Places]:
    """Each text by itself."""
    return consecutive(range(len(texts)), 1)


def shared(ask: Ask[A], world: World, batches: Batches, *, in_steps: bool = False) -> Ask[A]:
    """The same of several ranks, all of which ask for the same texts: each computes every Nth of the batches.

    Answers, and what fails, are those of one process, since the batches are. `in_steps` says that one process hands
    over the answers of each batch before it begins the next, and so has those that come before a failure. Texts keep
    their numbers where those of each batch follow each other.
    """
    return ask if world.size == 1 else _Shared(ask, world, batches, in_steps=in_steps)


@final
class _Shared(Generic[A]):
    """Asks for the batches that are this rank's."""

    def __init__(self, ask: Ask[A], world: World, batches: Batches, *, in_steps: bool) -> None:
        self._ask, self._world, self._batches, self._in_steps = ask, world, batches, in_steps

    def __call__(self, texts: Sequence[str], first: int) -> Iterator[A]:
        batches = _with_rest(self._batches(texts), len(texts))

        def answer(places: Places) -> list[A]:
            return list(self._ask([texts[place] for place in places], first + places[0]))

        answers: dict[int, A] = {}
        for places, found in zip(batches, in_turns(self._world, batches, answer, about=texts), strict=True):
            if isinstance(found, Exception):
                done = len(answers) if self._in_steps else 0
                yield from (answers[place] for place in range(done))
                raise found
            answers.update(zip(places, found, strict=True))
        yield from (answers[place] for place in range(len(texts)))


@final
@dataclass(frozen=True)
class _Failed:
    """What is told of an error: some cannot be sent to another process."""

    name: str
    said: str
    is_of_data: bool

    @classmethod
    def by(cls, error: Exception) -> "_Failed":
        """What is told of this one."""
        return cls(type(error).__name__, str(error), isinstance(error, DataError))

    def error(self) -> Exception:
        """An error of the same name that says the same."""
        return DataError(self.said) if self.is_of_data else type(self.name, (Exception,), {})(self.said)


def in_turns(world: World, jobs: Sequence[J], do: Callable[[J], A], *, about: Sequence[str]) -> Iterator[A | Exception]:
    """What each job gives, of which every rank does every Nth; from one that fails on, the error.

    Raises DistributedError where ranks are asked `about` different texts, and at once what no single job is to blame
    for.
    """
    if world.size == 1:
        yield from map(do, jobs)
        return
    own: list[A | _Failed] = []
    for job in jobs[world.rank :: world.size]:
        try:
            own.append(do(job))
        except NOT_OF_ONE:
            raise
        except Exception as error:  # noqa: BLE001 - a model of the user's own may raise anything
            own.append(_Failed.by(error))
            break
    digest = hashlib.sha256("\n".join(about).encode("utf-8", "surrogatepass")).hexdigest()
    gathered = world.gather((digest, own))
    for rank, (others, _) in enumerate(gathered):
        if others != gathered[0][0]:
            raise DistributedError(f"Rank {rank} was asked for other predictions than rank 0: give all the same input.")
    for number in range(len(jobs)):
        yield _of_rank(gathered[number % world.size][1], number // world.size)


def _of_rank(found: Sequence[A | _Failed], number: int) -> A | Exception:
    """What a rank has found of its job of this number; the error that has kept it from it."""
    match found[min(number, len(found) - 1)]:
        case _Failed() as failed:
            return failed.error()
        case one:
            return one


def _with_rest(batches: Sequence[Places], count: int) -> list[Places]:
    """The batches and, as the last one, the places that are in none: texts for which nothing is computed."""
    computed = {place for places in batches for place in places}
    rest = [place for place in range(count) if place not in computed]
    return [*batches, rest] if rest else [*batches]
