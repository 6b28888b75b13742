"""Data of the user's own, as a feed.

A `DataLoader`, an iterable with `state_dict`, or any other iterable holds batches; a torch `Dataset` (and what can be
indexed and counted, but not iterated) holds samples.
"""

from collections.abc import Callable, Iterable, Mapping, Sized
from typing import Any, TypeGuard, cast

from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    default_collate,
    get_worker_info,
)

from etude.base.errors import ConfigError
from etude.base.says import Say, unheard
from etude.data.feeds.consumed import IterableFeed
from etude.data.feeds.feed import Feed, Limit
from etude.data.feeds.fetching import SampleFetch
from etude.data.feeds.foreign import as_feed, is_feed
from etude.data.feeds.planned import PlannedFeed
from etude.data.feeds.workers import Workers
from etude.data.order.plan import CountPlan, Plan, Share
from etude.data.order.sampled import SamplerPlan

DEFAULT_BATCH_SIZE = 64
LEFT_OUT = "The loader's random sampler is ignored here: samples come in their own order."
REPLACED = "Etude's order, a function of (seed, epoch), replaces the loader's random sampler."


def adopt(  # noqa: PLR0913 - what the trainer knows about its data, one for one
    data: Any,
    *,
    seed: int,
    shuffle: bool | None = None,
    batch_size: int | None = None,
    notice: Say = unheard,
    rank: int = 0,
    world: int = 1,
    limit: Limit | None = None,
    workers: int = 0,
    pin_memory: bool = False,
    training: bool = False,
) -> Feed:
    """Make a feed of `data`: a DataLoader, a Dataset, an iterable of batches, or a function that returns one.

    `shuffle`: None leaves a loader's order as it is and shuffles nothing else; False forbids shuffling; True asks
    for it where samples can be indexed. `batch_size` (64 where not given), `workers` and `pin_memory` count for a
    Dataset alone: what holds batches has its own, and `batch_size` beside it is a ConfigError. In `training`, what can
    be indexed is told of each epoch by its `set_epoch`, where it has one.
    """
    share = Share(rank, world)
    if is_feed(data):
        return as_feed(data)
    if _indexed(data):
        _need_length(data)
        plan = CountPlan(len(data), batch_size or DEFAULT_BATCH_SIZE, seed=seed, shuffle=bool(shuffle), share=share)
        fetch = SampleFetch(data, default_collate, seed=seed)
        crew = Workers(fetch, count=workers, pin_memory=pin_memory, watched=[data]) if workers else None
        feed = PlannedFeed(plan, fetch, workers=crew, pin_memory=pin_memory, limit=limit, notice=notice)
        return feed.reading(data, training=training)
    if isinstance(data, IterableDataset):
        loader: DataLoader[object] = DataLoader(data, batch_size=batch_size or DEFAULT_BATCH_SIZE)
        return IterableFeed(loader, seed=seed, limit=limit, share=share, notice=notice)
    _refuse(batch_size, data)
    if _computable(data):
        return _of_loader(data, seed=seed, shuffle=shuffle, share=share, limit=limit, notice=notice, training=training)
    _need_batches(data)
    return IterableFeed(data, seed=seed, limit=limit, share=share, notice=notice)


def _need_batches(data: object) -> None:
    match data:
        case str() | bytes() | Mapping():
            known = callable(data)
        case _:
            known = isinstance(data, Iterable) or callable(data)
    if not known:
        raise ConfigError(
            f"Data must be a DataLoader, a Dataset, an iterable of batches or a function that returns one, but is a "
            f"{type(data).__name__}."
        )


def _need_length(data: Sized) -> None:
    try:
        len(data)
    except (TypeError, NotImplementedError):
        raise ConfigError(
            f"The {type(data).__name__} does not say how many samples it has: give it a __len__, or make it an "
            f"IterableDataset, which is read to its end."
        ) from None


def _refuse(batch_size: int | None, data: object) -> None:
    if batch_size is not None:
        what = "a DataLoader" if isinstance(data, DataLoader) else "an iterable of batches"
        raise ConfigError(
            f"train.batch_size is {batch_size}, but the data is {what}, which has batches of its own; leave batch_size "
            "out, or give the Dataset."
        )


def _indexed(data: object) -> bool:
    """Tell samples that can be asked for by number."""
    if isinstance(data, Dataset):
        return not isinstance(data, IterableDataset)
    indexable = hasattr(data, "__getitem__") and hasattr(data, "__len__")
    return indexable and (hasattr(data, "__getitems__") or not hasattr(data, "__iter__"))


def _computable(data: object) -> TypeGuard[DataLoader[object]]:
    """Tell a loader whose batches we can make ourselves from one that must be asked for them."""
    return (
        isinstance(data, DataLoader)
        and type(data).__iter__ is DataLoader.__iter__
        and not isinstance(data.dataset, IterableDataset)
        and not hasattr(data, "load_state_dict")
    )


def _of_loader(
    loader: DataLoader[object],
    *,
    seed: int,
    shuffle: bool | None,
    share: Share,
    limit: Limit | None,
    notice: Say,
    training: bool,
) -> PlannedFeed:
    single = loader.batch_sampler is None
    fetch = SampleFetch(loader.dataset, loader.collate_fn, seed=seed, single=single)
    crew = _crew(loader, fetch) if loader.num_workers else None
    return PlannedFeed(
        _plan(loader, seed=seed, shuffle=shuffle, share=share, notice=notice),
        fetch,
        workers=crew,
        pin_memory=loader.pin_memory,
        limit=limit,
        notice=notice,
        sized=not single,
    ).reading(loader.dataset, training=training)


def _plan(loader: DataLoader[object], *, seed: int, shuffle: bool | None, share: Share, notice: Say) -> Plan:
    """Compute the order of a loader whose samplers are known; follow one that is a user's own."""
    batches = loader.batch_sampler
    standard = batches is None or type(batches) is BatchSampler
    sampler = batches.sampler if type(batches) is BatchSampler else loader.sampler
    shuffled = _known_order(sampler, loader.dataset) if standard else None
    if shuffled is None:
        named = type(sampler if standard else batches).__name__
        notice(
            f"The loader's {named} is seeded for every epoch; to resume in the middle of one, its numbers are drawn "
            "again."
        )
        drawn = loader.sampler if batches is None else batches
        return SamplerPlan(drawn, seed=seed, share=share, single=batches is None, exact=standard, notice=notice)
    if shuffled:
        notice(LEFT_OUT if shuffle is False else REPLACED)
    return _counted_out(loader, share, seed=seed, shuffle=shuffled and shuffle is not False)


def _counted_out(loader: DataLoader[object], share: Share, *, seed: int, shuffle: bool) -> CountPlan:
    """Compute the order of a loader with torch's own samplers."""
    size, drop_last = share.world, False
    if isinstance(loader.batch_sampler, BatchSampler):
        size, drop_last = loader.batch_sampler.batch_size, loader.batch_sampler.drop_last
    return CountPlan(_samples(loader), size, seed=seed, shuffle=shuffle, share=share, drop_last=drop_last)


def _samples(loader: DataLoader[object]) -> int:
    return len(cast("Sized", loader.dataset))


def _known_order(sampler: Any, dataset: Any) -> bool | None:
    """Tell whether a sampler shuffles all samples (True) or takes them in order (False); None: its own way."""
    if type(sampler) is SequentialSampler and len(sampler) == len(dataset):
        return False
    if type(sampler) is RandomSampler and not sampler.replacement and sampler.num_samples == len(dataset):
        return True
    return None


def _crew(loader: DataLoader[object], fetch: SampleFetch) -> Workers:
    options = {
        "prefetch_factor": loader.prefetch_factor,
        "timeout": loader.timeout,
        "multiprocessing_context": loader.multiprocessing_context,
    }
    start = _Start(loader.worker_init_fn, loader.dataset)
    return Workers(
        fetch,
        count=loader.num_workers,
        pin_memory=loader.pin_memory,
        start=start,
        options=options,
        watched=[loader.dataset, loader.collate_fn],
    )


class _Start:
    """Calls a loader's `worker_init_fn` with the world as it knows it: `get_worker_info().dataset` is its own."""

    def __init__(self, function: Callable[[int], object] | None, dataset: object) -> None:
        self._function = function
        self._dataset = dataset

    def __call__(self, worker: int) -> None:
        object.__setattr__(get_worker_info(), "dataset", self._dataset)  # the record is frozen against users' slips
        if self._function is not None:
            self._function(worker)
