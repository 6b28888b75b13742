"""How sample numbers become a batch, and what is said when one cannot."""

from collections.abc import Callable, Sequence, Sized
from typing import Any

import numpy as np
import torch
from torch.utils.data import ConcatDataset, Subset, TensorDataset, default_collate, get_worker_info

from etude.base.errors import DataError, EtudeError
from etude.base.randomness import seed_of
from etude.data.order.plan import Keys
from etude.data.order.states import kept, put_back, set_all, unmoved

Fetch = Callable[[int, Keys], object]
"""(epoch, samples) to their batch. Where worker processes are not forked it must pickle."""

Collate = Callable[[Any], object]
"""Samples to their batch."""

Seeding = Callable[[int, object], None]
"""Seeds what draws for (epoch, sample)."""


class Counted:
    """Counts the targets of a batch in the place of making it."""

    def __init__(self, count: Callable[[Any], int]) -> None:
        self._count = count

    def __call__(self, epoch: int, keys: Keys) -> int:
        """Give the targets of the samples `keys`."""
        del epoch
        return self._count(keys)


class SampleFetch:
    """Makes batches of a map-style dataset's samples.

    The global generators (Python's, numpy's, torch's for the CPU) are seeded from (seed, epoch, sample) before each
    sample, so that a random transform gives the same in any process; in the main process their states are put back
    afterwards. Seeding costs some ten microseconds a sample, so a dataset that drew nothing in its first batch is read
    without it, until one of its batches does draw: that one is made again, seeded, and so are all that follow.
    A dataset that answers `__getitems__` is asked for the whole batch, seeded by its first sample.
    Datasets of tensors, and torch's subsets and concatenations of them, draw nothing and are not watched.
    `single` hands the one sample to `collate` alone.
    """

    def __init__(self, dataset: Any, collate: Collate, *, seed: int, single: bool = False) -> None:
        self._dataset = dataset
        self._collate = collate
        self._seed = seed
        self._single = single
        silent = _draws_nothing(dataset)
        self._make = self._first
        if silent and _is_torchs(collate):
            self._make = self._unseeded
        self._tensors = dataset.tensors if type(dataset) is TensorDataset and collate is default_collate else None
        self._whole = not silent and hasattr(dataset, "__getitems__") and not _is_torchs(type(dataset))

    def __call__(self, epoch: int, keys: Keys) -> object:
        """Give the batch of the samples `keys`."""
        if not len(keys):
            raise DataError(
                "The last batch of the epoch holds fewer samples than there are ranks; give the loader drop_last=True."
            )
        if self._tensors is not None and isinstance(keys, np.ndarray) and not self._single:
            places = torch.from_numpy(keys)
            return [tensor[places] for tensor in self._tensors]
        return self._make(epoch, keys.tolist() if isinstance(keys, np.ndarray) else keys)

    def _first(self, epoch: int, keys: Sequence[object]) -> object:
        """Make a batch seeded once, and find out by it whether the dataset or the collation draws anything."""
        outside = kept()
        try:
            set_all(self._seed_of(epoch, keys[0]))
            begun = kept()
            batch = self._unseeded(epoch, keys)
            silent = unmoved(begun)
        finally:
            put_back(outside)
        self._make = self._watched if silent else self._seeded
        return batch if silent else self._make(epoch, keys)

    def _watched(self, epoch: int, keys: Sequence[object]) -> object:
        outside = kept()
        batch = self._unseeded(epoch, keys)
        if unmoved(outside):
            return batch
        put_back(outside)
        self._make = self._seeded
        return self._seeded(epoch, keys)

    def _seeded(self, epoch: int, keys: Sequence[object]) -> object:
        if get_worker_info() is not None:
            return self._made(epoch, keys, self._seed_for)
        outside = kept()
        try:
            return self._made(epoch, keys, self._seed_for)
        finally:
            put_back(outside)

    def _unseeded(self, epoch: int, keys: Sequence[object]) -> object:
        return self._made(epoch, keys, _not_seeded)

    def _made(self, epoch: int, keys: Sequence[object], seeded: Seeding) -> object:
        if self._single:
            return self._collate(self._sample(epoch, keys[0], seeded))
        if self._whole:
            seeded(epoch, keys[0])
            return self._collate(self._dataset.__getitems__(list(keys)))
        return self._collate([self._sample(epoch, key, seeded) for key in keys])

    def _sample(self, epoch: int, key: object, seeded: Seeding) -> object:
        seeded(epoch, key)
        try:
            return self._dataset[key]
        except IndexError as error:
            raise DataError(f"{sample_error(error, [key])}{_length_told(self._dataset)}") from error
        except Exception as error:
            raise sample_error(error, [key]) from error

    def _seed_for(self, epoch: int, key: object) -> None:
        set_all(self._seed_of(epoch, key))

    def _seed_of(self, epoch: int, key: object) -> int:
        return seed_of(self._seed, "sample", epoch, key if isinstance(key, int | str) else repr(key))


def sample_error(error: Exception, keys: Keys) -> EtudeError:
    """Say that samples could not be made into a batch, and why; our own errors say it themselves."""
    if isinstance(error, EtudeError):
        return error
    which = f"Sample {named(keys)}" if len(keys) == 1 else f"The batch of samples {named(keys)}"
    return DataError(f"{which} could not be loaded: {type(error).__name__}: {error}")


def _length_told(dataset: object) -> str:
    """What a dataset says of its length, for one that has less."""
    match dataset:
        case Sized():
            return f" (its __len__ says that it has {len(dataset):,} samples)"
    return ""


def named(keys: Keys, most: int = 8) -> str:
    """Name samples on one line."""
    return ", ".join(str(key) for key in keys[:most]) + (", ..." if len(keys) > most else "")


def _not_seeded(epoch: int, key: object) -> None:
    del epoch, key


def _draws_nothing(dataset: object) -> bool:
    if type(dataset) is Subset:
        return _draws_nothing(dataset.dataset)
    if type(dataset) is ConcatDataset:
        return all(map(_draws_nothing, dataset.datasets))
    return type(dataset) is TensorDataset


def _is_torchs(function: object) -> bool:
    return str(getattr(function, "__module__", "")).startswith("torch.utils.data")
