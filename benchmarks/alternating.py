"""Etude's loop and hand-written loops in turns, inside one Etude run: only steps in the middle of training are timed.

The data that Etude takes its batches from does the alternating: after every block of Etude's steps, and before it
hands over the next batch, it runs a block of each hand-written loop. Both sides are warm, share the process, and take
the same batches; neither start-up nor the end of a run is within what is timed.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from measuring import Measured

from etude.data.feeds.feed import Delivery

ETUDE = "Etude"


class Alternating:
    """An iterable of batches for Etude's side that times blocks of `steps`, and of the others in between.

    `batches(n)` gives Etude's batches from step n on, once for the whole run; `others` take `steps` steps of their
    own each. Work is steps, or what `work` says that Etude's batch holds.
    """

    def __init__(
        self,
        batches: Callable[[], Iterator[Any]],
        others: Mapping[str, Callable[[int], float]],
        *,
        steps: int,
        rounds: int,
        work: Callable[[Any], float] = lambda _: 1.0,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._batches = batches
        self._others = dict(others)
        self._steps = steps
        self._rounds = rounds
        self._work = work
        self._clock = clock
        self.seconds: dict[str, list[float]] = {name: [] for name in [ETUDE, *others]}
        self.done: dict[str, list[float]] = {name: [] for name in [ETUDE, *others]}

    @property
    def total_steps(self) -> int:
        """Steps that Etude is asked to take: one block to warm up, the rounds, and a last one that is not timed."""
        return self._steps * (self._rounds + 1) + 1

    def __iter__(self) -> Iterator[Any]:
        source = self._batches()
        for block in range(self._rounds + 1):
            work = 0.0
            start = self._clock()
            for _ in range(self._steps):
                batch = next(source)
                work += self._work(batch)
                yield batch
            # Asked for the next batch: the last of the block is done.
            self._note(block, ETUDE, start, work)
            names = list(self._others) if block % 2 else list(reversed(self._others))
            for name in names:
                start = self._clock()
                self._note(block, name, start, self._others[name](self._steps))
        yield next(source)

    def _note(self, block: int, name: str, start: float, work: float) -> None:
        if block:
            self.seconds[name].append(self._clock() - start)
            self.done[name].append(work)

    def costs(self) -> Measured:
        """Seconds a unit of work."""
        return Measured(
            {name: [s / w for s, w in zip(self.seconds[name], self.done[name], strict=True)] for name in self.done}
        )

    def rates(self) -> Measured:
        """Units of work a second."""
        return Measured(
            {name: [w / s for s, w in zip(self.seconds[name], self.done[name], strict=True)] for name in self.done}
        )


class Timed(Protocol):
    """Batches that note when they are asked for."""

    @property
    def total_steps(self) -> int:
        """How many there are."""

    def __iter__(self) -> Iterator[Any]: ...


class AlternatingFeed:
    """The same as one of Etude's own feeds: what a prepared corpus comes as."""

    exact = True

    def __init__(self, data: Timed, samples: Callable[[Any], int] = len) -> None:
        self._data = data
        self._samples = samples
        self.batches = self.epoch_total = data.total_steps
        self.samples = None

    def epoch(self, epoch: int, position: Mapping[str, Any] | None = None) -> Iterator[Delivery]:
        """The one epoch that there is."""
        del epoch, position
        for number, batch in enumerate(self._data, start=1):
            yield Delivery(batch, self._samples(batch), {"batch": number}, number, last=number == self.batches)

    def close(self) -> None:
        """Nothing is open."""
