"""Words that ranks leave for each other by name, for a thread that talks to others while its process is in a step."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from time import monotonic, sleep
from typing import final

from etude.base.errors import DistributedError
from etude.train.world.store import Store

POLL_SECONDS = 0.02


@final
class Post:
    """The store in which ranks meet, over a connection of its own; `connect` makes that once it is needed."""

    def __init__(self, connect: Callable[[], Store], rank: int, size: int, *, timeout: float) -> None:
        self.rank = rank
        self.size = size
        self.timeout = timeout
        """Seconds after which a rank that should have left a word is missed (`distributed.timeout`)."""
        self._connect = connect
        self._rounds = 0

    @cached_property
    def _store(self) -> Store:
        return self._connect()

    def next_round(self) -> int:
        """A number that tells what all ranks do together from what they did before: the same on all of them."""
        self._rounds += 1
        return self._rounds

    def leave(self, name: str, words: str) -> None:
        """Leave words under a name, to be read by whoever looks for it."""
        with _speaking():
            self._store.set(name, words)

    def find(self, names: Sequence[str], seconds: float) -> tuple[str, str] | None:
        """The first of the names under which words are left, and the words; None where none are after so long."""
        begun = monotonic()
        with _speaking():
            while True:
                for name in names:
                    if self._store.check([name]):
                        return name, self._store.get(name).decode()
                if monotonic() - begun > seconds:
                    return None
                sleep(POLL_SECONDS)

    def forget(self, names: Sequence[str]) -> None:
        """Take words away that all have read."""
        with _speaking():
            for name in names:
                self._store.delete_key(name)


@contextmanager
def _speaking() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        said = " ".join(str(error).split())
        raise DistributedError(f"The store in which the ranks meet is gone: {said}") from error
