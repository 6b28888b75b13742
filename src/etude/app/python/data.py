"""A user's data as the feeds of a trainer: limits, batch sizes, and the one fixed set of `overfit`."""

from collections.abc import Callable
from typing import Any

from torch.utils.data import DataLoader, Dataset

from etude.base.errors import ConfigError
from etude.base.schedules import ScheduleSection, smallest
from etude.base.schedules.values import ScheduledValue
from etude.data.feeds.adopt import DEFAULT_BATCH_SIZE, adopt
from etude.data.feeds.feed import Feed, Limit
from etude.data.feeds.foreign import is_feed
from etude.train.config import TrainConfig
from etude.train.job import as_durations
from etude.train.length import expect


class TrainerData:
    """Makes feeds of DataLoaders, Datasets, iterables of batches and Etude's own sources."""

    def __init__(self, config: TrainConfig, *, seed: int, say: Callable[[str], None]) -> None:
        self._config = config
        self._seed = seed
        self._say = say
        self._given = "batch_size" in config.model_fields_set and config.batch_size is not None
        self._fixed: Any = None

    @property
    def schedule(self) -> ScheduleSection | None:
        """The schedule of the batch size, where it is one."""
        size = self._config.batch_size
        return size if isinstance(size, ScheduleSection) else None

    def scheduled_values(self, feed: Feed) -> list[ScheduledValue]:
        """What the batches of an epoch are planned by: the batch size, where it is a schedule.

        The feed is told what to expect of it.
        """
        schedule = self.schedule
        if schedule is None:
            return []
        if not feed.resizable:
            raise ConfigError("train.batch_size is a schedule, which needs a Dataset whose samples can be asked for.")
        resize: Callable[[Any], None] = feed.resize  # what a whole schedule gives is whole
        values = [ScheduledValue("train.batch_size", schedule, resize, when="epoch", whole=True)]
        expect(feed, values, as_durations(self._config.max_duration), self._config.accumulate)
        return values

    def train(self, data: Any) -> Feed:
        """The training data; with `overfit` its first batches, unshuffled."""
        config = self._config
        if config.batch_tokens is not None and not is_feed(data):
            raise ConfigError(
                "train.batch_tokens needs data whose lengths Etude knows, which a DataLoader, a Dataset or an "
                "iterable does not tell; leave it out, and let the loader make such batches."
            )
        self._fixed = data if config.overfit is not None else None
        if config.overfit is not None:
            return self._adopted(data, shuffle=False, limit=config.overfit, size=self._size())
        shuffle = None if isinstance(data, DataLoader) else True
        return self._adopted(data, shuffle=shuffle, limit=config.limit_train, size=self._size())

    def evaluation(self, data: Any, limit: Limit = 1.0) -> Feed:
        """Data to validate or test on, in its own order; with `overfit` the set that was trained on, if any was."""
        config = self._config
        if self._fixed is not None:
            return self.train(self._fixed)
        limit = limit if config.overfit is None else config.overfit
        if not _holds_samples(data):
            if config.eval_batch_size is not None and not is_feed(data):
                raise ConfigError(
                    f"train.eval_batch_size is {config.eval_batch_size}, but the data is a {type(data).__name__}, "
                    f"which has batches of its own; leave eval_batch_size out, or give the Dataset."
                )
            return self._adopted(data, shuffle=False, limit=limit, size=None)
        return self._adopted(data, shuffle=False, limit=limit, size=config.eval_batch_size or self._size())

    def prediction(self, data: Any) -> Feed:
        """Data to predict for: all of it, in its own order."""
        size = self._config.eval_batch_size or self._size()
        return self._adopted(data, shuffle=False, limit=1.0, size=size if _holds_samples(data) else None)

    def _size(self) -> int | None:
        if not self._given:
            return None
        size: Any = self._config.batch_size  # a number or a schedule, as was checked
        return smallest(size) or DEFAULT_BATCH_SIZE

    def _adopted(self, data: Any, *, shuffle: bool | None, limit: Limit, size: int | None) -> Feed:
        return adopt(data, seed=self._seed, shuffle=shuffle, batch_size=size, notice=self._say, limit=limit)


def _holds_samples(data: Any) -> bool:
    if isinstance(data, DataLoader):
        return False
    indexed = hasattr(data, "__getitem__") and hasattr(data, "__len__")
    return isinstance(data, Dataset) or (indexed and (hasattr(data, "__getitems__") or not hasattr(data, "__iter__")))
