"""A feed over a plan: batches made here, or ahead of time by worker processes, in the plan's order either way."""

import copy
import itertools
from collections.abc import Iterable, Iterator
from typing import Any, Self

import torch

from etude.base.errors import DataError
from etude.base.says import Say, unheard
from etude.data import nest
from etude.data.feeds.feed import NOTHING, Delivery, Feed, Limit, limited
from etude.data.feeds.fetching import Fetch, named, sample_error
from etude.data.feeds.remembered import Memory, tell_epoch
from etude.data.feeds.workers import WorkerDied, Workers
from etude.data.order.plan import ALONE, Keys, Plan, Planned, Position, Share

AHEAD = 16
"""Batches that are made one by one after a worker died."""
ENOUGH = 2
"""Deaths at a batch made alone that end the run."""


class PlannedFeed(Feed):
    """The batches of `plan`, each made by `fetch`: here, or in `workers`.

    `pin_memory` counts where there is CUDA. `limit` keeps the first batches of each epoch. `varying` says that the
    size of batches may change within an epoch, which is then counted in samples. Without `sized` the plan does not
    know how many samples a batch holds, and each is asked. A
    worker process that dies is replaced, and the order goes on unchanged; when the same batch ends one after another,
    that is a DataError.
    """

    def __init__(
        self,
        plan: Plan,
        fetch: Fetch,
        *,
        workers: Workers | None = None,
        pin_memory: bool = False,
        limit: Limit | None = None,
        varying: bool = False,
        sized: bool = True,
        notice: Say = unheard,
    ) -> None:
        self._plan = plan
        self._fetch = fetch
        self._workers = workers
        self._pin = pin_memory and torch.cuda.is_available()
        self._limit = limit
        self._varying = varying
        self._sized = sized
        self._notice = notice
        self._source: object = None
        self._memory = NOTHING
        self._expected: tuple[int, int, float] | None = None
        self._turns = ALONE

    def reading(self, source: object, *, training: bool) -> Self:
        """Let the feed know what of a user's it reads: that is watched and, in `training`, told of each epoch."""
        self._memory = Memory(source, notice=self._notice)
        self._source = source if training else None
        return self

    @property
    def memory(self) -> Memory:
        """What the data has come to remember."""
        return self._memory

    @property
    def batches(self) -> int | None:
        """Batches of an epoch under the limit; None where unknown."""
        return self.now[0] if self._expected is None else self._expected[0]

    @property
    def now(self) -> tuple[int | None, int | None]:
        """Batches and samples of an epoch that would begin now; None where unknown."""
        stop, batches, samples = self._stop(), self._plan.batches, self._plan.samples
        if stop is None or not samples or not batches:
            return (batches if stop is None else stop), samples
        return stop, round(samples * stop / batches)

    @property
    def pieces(self) -> float | None:
        """What the steps of an epoch are counted by: its batches, and no whole number where that is an average."""
        return self.batches if self._expected is None else self._expected[2]

    def expect(self, batches: int, samples: int, pieces: float) -> None:
        """Let `batches`, `samples` and `pieces` tell of an average epoch of the run, where epochs differ."""
        self._expected = batches, samples, pieces

    @property
    def exact(self) -> bool:
        """Whether `batches` is the number in every epoch."""
        if self._varying:
            return False
        if self._plan.exact:
            return True
        stop, batches = self._stop(), self._plan.batches
        # An estimate is never wrong by half.
        return stop is not None and batches is not None and 2 * stop <= batches

    @property
    def samples(self) -> int | None:
        """Samples of an epoch under the limit, all ranks together; None where unknown."""
        return self.now[1] if self._expected is None else self._expected[1]

    @property
    def epoch_total(self) -> int:
        """What one epoch holds, in the unit of `Delivery.done`; 0 where unknown."""
        return (self.now[0] if self._in_batches() else self._plan.samples) or 0

    def epoch(self, epoch: int, position: Position | None = None) -> Iterator[Delivery]:
        """Give the batches of an epoch, from its begin or right after the one that carried `position`."""
        tell_epoch(self._source, epoch)
        deaths = careful = 0
        while True:
            before, single = position, careful > 0
            try:
                for delivery in self._run(epoch, position, single=single):
                    position, deaths, careful = delivery.position, 0, max(0, careful - 1)
                    yield delivery
                if not single or position is before:
                    return
            except WorkerDied as death:
                self.close()
                # What was being made ahead is not known, so the next few batches are asked for one by one: then a
                # death has its batch.
                deaths += careful > 0
                careful = AHEAD
                if deaths == ENOUGH:
                    raise self._beyond_help(epoch, position, death) from None
                self._notice(f"A loader worker died ({death}); new ones continue in the same order.")

    @property
    def resizable(self) -> bool:
        """Whether `resize` sets what a batch holds."""
        return True

    def resize(self, size: int) -> None:
        """Set what a batch holds, for epochs begun from now on; one that is continued keeps its own size."""
        self._plan.resize(size)

    def fetching(self, fetch: Fetch) -> "PlannedFeed":
        """Give a feed of the same plan, with what it is set to later, that fetches another thing, in this process."""
        other = copy.copy(self)
        vars(other).update(_fetch=fetch, _workers=None, _pin=False)
        return other

    def keyed(self) -> "PlannedFeed":
        """Give a feed of the same epochs whose deliveries hold, in place of a batch, the keys of its samples."""
        return self.fetching(lambda _, keys: keys)

    def made(self, epoch: int, keys: Keys) -> object:
        """Make the batch of the samples `keys`, in this process."""
        return self._fetch(epoch, keys)

    def places(self, epoch: int, keys: Keys) -> int:
        """Give how large that batch is, padding included, in a unit that compares it with others."""
        del epoch
        return len(keys)

    def in_turns(self, share: Share) -> Iterator[Delivery]:
        """Give one of every `share.world` batches; no other is made."""
        other = copy.copy(self)
        vars(other)["_turns"] = share
        return other.epoch(0)

    def close(self) -> None:
        """End worker processes; the feed can be used again."""
        if self._workers is not None:
            self._workers.close()

    def _run(self, epoch: int, position: Position | None, *, single: bool) -> Iterator[Delivery]:
        stop, unit = self._stop(), "batch" if self._in_batches() else "sample"
        plans = _first(self._plan.epoch(epoch, position), stop)
        if self._turns.world > 1:
            plans = itertools.islice(plans, self._turns.rank, None, self._turns.world)
        if single:
            plans = itertools.islice(plans, 1)
        made = self._here(epoch, plans) if self._workers is None else self._workers.stream(epoch, plans)
        for planned, batch in made:
            after = planned.position
            last = planned.last or after["batch"] == stop
            samples = planned.samples if self._sized else nest.count_samples(batch) or 1
            yield Delivery(batch, samples, after, after[unit], last, borrowed=planned.borrowed)

    def _here(self, epoch: int, plans: Iterable[Planned]) -> Iterator[tuple[Planned, Any]]:
        for planned in plans:
            try:
                batch = self._fetch(epoch, planned.indices)
            except Exception as error:
                raise sample_error(error, planned.indices) from error
            yield planned, nest.pin(batch) if self._pin else batch

    def _stop(self) -> int | None:
        return None if self._limit is None else limited(self._limit, self._plan.batches)

    def _in_batches(self) -> bool:
        return self._stop() is not None or self._plan.samples is None or (self._plan.exact and not self._varying)

    def _beyond_help(self, epoch: int, position: Position | None, death: WorkerDied) -> DataError:
        planned = next(self._plan.epoch(epoch, position), None)
        which = "none" if planned is None else named(planned.indices)
        return DataError(
            f"Loader workers died again and again at the same batch ({death}); its samples are {which}. "
            "Without workers they are loaded in the main process, which shows more."
        )


def _first(plans: Iterator[Planned], stop: int | None) -> Iterator[Planned]:
    """Give the plans up to the epoch's batch number `stop`."""
    if stop is None:
        yield from plans
        return
    for planned in plans:
        if planned.position["batch"] <= stop:
            yield planned
        if planned.position["batch"] >= stop:
            return
