"""Feeds of iterables, which can only be read from their begin: forward, or by a `state_dict` of their own."""

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, cast

import torch
from torch.utils.data import DataLoader

from etude.base.errors import DataError, EtudeError
from etude.base.randomness import seed_of
from etude.base.says import Say, unheard
from etude.data.feeds import jsonable
from etude.data.feeds.feed import Delivery, Feed, Limit, limited
from etude.data.feeds.remembered import Memory, State, changed, remembered, tell_epoch
from etude.data.nest import count_samples, rows_of, tensors
from etude.data.order.plan import ALONE, Position, Share
from etude.data.order.sampled import Announced, ended
from etude.data.order.states import begun_seeded, each_seeded, on_its_own, reseed

COUNTED = "_IterableDataset_len_called"
"""Where torch's loader keeps the length that it was asked for, to warn at every batch beyond it; we say so once."""


class IterableFeed(Feed):
    """The batches of an iterable, or of what a function without arguments returns anew for every epoch.

    The iteration has global random states of its own, begun from (seed, epoch), so that it gives the same again. To
    go on in the middle of an epoch it is read forward, and how long that took is said; a list is entered at once, and
    an iterable with `state_dict` and `load_state_dict` is asked. Every rank reads all of it, and takes its `share`
    of the rows of each batch.
    """

    def __init__(
        self,
        data: Iterable[object] | Callable[[], Iterable[object]],
        *,
        seed: int,
        limit: Limit | None = None,
        share: Share = ALONE,
        notice: Say = unheard,
    ) -> None:
        self._share = share
        self._data = data
        self._seed = seed
        self._limit = limit
        self._notice = notice
        self._stored = isinstance(data, list | tuple)
        self._stateful = hasattr(data, "state_dict") and hasattr(data, "load_state_dict")
        self._begun = False
        self._announced = Announced(notice)
        self._memory = Memory(data, notice=notice)
        self._known: State | None = None
        self._told = self._told_of_rows = False

    @property
    def memory(self) -> Memory:
        """What the data has come to remember."""
        return self._memory

    @property
    def batches(self) -> int | None:
        """Batches of an epoch under the limit; None where unknown."""
        length = self._length()
        stop = self._stop()
        return length if stop is None else stop

    @property
    def exact(self) -> bool:
        """Whether `batches` is the number in every epoch."""
        return self._stored

    @property
    def samples(self) -> int | None:
        """Samples of an epoch under the limit, all ranks together; None where unknown."""
        return None

    @property
    def epoch_total(self) -> int:
        """What one epoch holds, in the unit of `Delivery.done`; 0 where unknown."""
        return self.batches or 0

    @property
    def repeatable(self) -> bool:
        """Whether an epoch can be looked at and begun again: an iterator can be read once only."""
        return not isinstance(self._data, Iterator)

    def epoch(self, epoch: int, position: Position | None = None) -> Iterator[Delivery]:
        """Give the batches of an epoch, from its begin or right after the one that carried `position`."""
        batch, sample = (position["batch"], position["sample"]) if position else (0, 0)
        stop = self._stop()
        if stop is not None and batch >= stop:
            return
        for (item, state), last in ended(self._after(epoch, position, stop)):
            batch += 1
            count = count_samples(item) or 1
            sample += count
            after = {"batch": batch, "sample": sample, **state}
            if last:
                self._announced.ended(self.batches, batch)
            part = item if self._share.world == 1 else self._part(item, count)
            yield Delivery(part, count, after, batch, last, borrowed=self._share.borrows(count))

    def _part(self, batch: object, count: int) -> object:
        """This rank's rows of a batch that all ranks have read. Raises DataError where its rows are not known."""
        if any(tensor.ndim == 0 or len(tensor) != count for tensor in tensors(batch)):
            raise DataError(
                f"A batch of an iterable cannot be shared out among {self._share.world} ranks: its tensors differ in "
                f"their first dimension, so that its rows are not known. Give a Dataset, or a DataLoader of one."
            )
        if not self._told_of_rows:
            self._told_of_rows = True
            self._notice(
                f"Every rank reads all of the iterable, and takes each {self._share.world}th row of its batches: the "
                f"first dimension of every tensor."
            )
        return rows_of(batch, self._share.of(torch.arange(count)).tolist())

    def close(self) -> None:
        """Nothing is held here: workers of a loader are its own."""

    def _after(self, epoch: int, position: Position | None, stop: int | None) -> Iterator[tuple[object, State]]:
        """Give the batches after a position, up to the epoch's batch number `stop`, each with the state after it."""
        done = position["batch"] if position else 0
        data: Any = self._data
        if self._stateful and position:
            data.load_state_dict(jsonable.decoded(position["state"]))
        items = self._items(epoch, done)
        if not self._stateful:
            self._pass_over(items, done)
        for item in itertools.islice(_explained(items), None if stop is None else stop - done):
            yield item, {"state": jsonable.encoded(data.state_dict())} if self._stateful else {}

    def _items(self, epoch: int, done: int) -> Iterator[object]:
        if self._stored:
            return iter(cast("Sequence[object]", self._data))
        items = self._begun_anew()
        seed = seed_of(self._seed, "iterable", epoch)
        for part in (items, *(getattr(items, name, None) for name in ("dataset", "sampler", "batch_sampler"))):
            tell_epoch(part, epoch)
        self._renew_workers(items)
        _forget_count(items)
        if self._stateful:
            # It goes on at any batch, so the draws of each must not hang on those before.
            return each_seeded(items, seed, begin=done)
        return _seeded(items, seed)

    def _renew_workers(self, items: object) -> None:
        """Let a loader that keeps its workers start new ones where its data has changed since they were started."""
        now, before = remembered(getattr(items, "dataset", None)), self._known
        self._known = now
        if before is None or now == before or not getattr(items, "persistent_workers", False):
            return
        match items:
            case DataLoader():
                end_workers(items)
            case _ if not self._told:
                self._told = True
                self._notice(
                    f"The data has changed ({', '.join(changed(before, now)[:5])}), but the loader, a "
                    f"{type(items).__name__}, keeps its workers, which may not know it: set persistent_workers=False."
                )

    def _begun_anew(self) -> Iterable[object]:
        if callable(self._data) and not hasattr(self._data, "__iter__"):
            return self._data()
        self._refuse_a_second_pass()
        return cast("Iterable[object]", self._data)

    def _refuse_a_second_pass(self) -> None:
        if self._begun and not self.repeatable:
            raise DataError(
                "The data is an iterator, which can be read only once, but a second epoch needs it again; give a "
                "list, a DataLoader, or a function that returns a new iterator."
            )
        self._begun = True

    def _pass_over(self, items: Iterator[object], done: int) -> None:
        if not done:
            return
        begin = time.monotonic()
        for _ in range(done):
            next(items, None)
        if not self._stored:
            took = time.monotonic() - begin
            self._notice(f"The data cannot seek: {done} batches were read again in {took:.1f} s to resume after them.")

    def _length(self) -> int | None:
        data: Any = self._data
        try:
            return len(data)
        except (TypeError, NotImplementedError):
            return None
        finally:
            _forget_count(data)

    def _stop(self) -> int | None:
        return None if self._limit is None else limited(self._limit, self._length())


def _forget_count(loader: object) -> None:
    """Let a loader not know that it was asked for its length."""
    if hasattr(loader, COUNTED):
        setattr(loader, COUNTED, None)


def end_workers(loader: DataLoader[Any]) -> None:
    """End the processes that a loader keeps; it starts new ones when it is iterated again."""
    iterator: Any = loader._iterator  # noqa: SLF001 - torch offers no other way
    loader._iterator = None  # noqa: SLF001 - as above
    if iterator is not None:
        iterator._shutdown_workers()  # noqa: SLF001 - as above


def _explained(items: Iterator[object]) -> Iterator[object]:
    """Give the items, and say of an error that it came from them."""
    while True:
        try:
            item = next(items)
        except StopIteration:
            return
        except EtudeError:
            raise
        except Exception as error:
            raise DataError(f"The next batch could not be loaded: {type(error).__name__}: {error}") from error
        yield item


def _seeded(items: Iterable[object], seed: int) -> Iterator[object]:
    if not isinstance(items, DataLoader):
        return on_its_own(items, seed)
    reseed(items, seed)
    # Workers draw in processes of their own: only their start needs our seed.
    return begun_seeded(items, seed) if items.num_workers else on_its_own(items, seed)
