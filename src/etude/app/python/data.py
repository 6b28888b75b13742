"""A user's data as the feeds of a trainer: limits, batch sizes, and the one fixed set of `overfit`."""

from collections.abc import Iterator
from typing import Any, final

from torch.utils.data import DataLoader, Dataset

from etude.base.errors import ConfigError
from etude.base.says import Say
from etude.base.schedules import ScheduleSection, smallest
from etude.base.schedules.values import ScheduledValue
from etude.data.feeds.adopt import DEFAULT_BATCH_SIZE, adopt
from etude.data.feeds.feed import Feed, Limit
from etude.data.feeds.foreign import is_feed
from etude.data.order.plan import ALONE, Share
from etude.train.config import TrainConfig
from etude.train.job import as_durations
from etude.train.length import expect
from etude.train.world import World


@final
class TrainerData:
    """Makes feeds of DataLoaders, Datasets, iterables of batches and Etude's own sources."""

    def __init__(self, config: TrainConfig, *, seed: int, say: Say) -> None:
        self._config = config
        self._seed = seed
        self._say = say
        self._given = "batch_size" in config.model_fields_set and config.batch_size is not None
        self._share = ALONE
        """Which part of every training batch this process takes."""
        self._fixed: object = None
        """What was trained on, where `overfit` makes it the one set for everything."""

    def among(self, world: World) -> None:
        """Let training batches be this rank's part of them."""
        self._share = Share(world.rank, world.size)

    @property
    def schedule(self) -> ScheduleSection | None:
        """The schedule of the batch size, where it is one."""
        match self._config.batch_size:
            case ScheduleSection() as schedule:
                return schedule
        return None

    def scheduled_values(self, feed: Feed) -> list[ScheduledValue]:
        """What the batches of an epoch are planned by: the batch size, where it is a schedule.

        The feed is told what to expect of it.
        """
        schedule = self.schedule
        if schedule is None:
            return []
        if not feed.resizable:
            raise ConfigError("train.batch_size is a schedule, which needs a Dataset whose samples can be asked for.")

        def resize(size: float) -> None:
            feed.resize(int(size))  # what a whole schedule gives is whole

        values = [ScheduledValue("train.batch_size", schedule, resize, when="epoch", whole=True)]
        expect(feed, values, as_durations(self._config.max_duration), self._config.accumulate)
        return values

    def train(self, data: object) -> Feed:
        """The training data; with `overfit` its first batches, unshuffled."""
        config = self._config
        self._refuse_budget(data)
        if config.overfit is not None:
            self._fixed = data
            return self._adopted(data, shuffle=False, limit=config.overfit, size=self._size(), share=self._share)
        self._fixed = None
        shuffle = None if isinstance(data, DataLoader) else True
        return self._adopted(
            data, shuffle=shuffle, limit=config.limit_train, size=self._size(), training=True, share=self._share
        )

    def validation(self, data: object) -> Feed | None:
        """Data to validate on in the course of a run, again and again; None where there is none."""
        if data is None and self._config.overfit is None:
            return None
        _refuse_iterator(data)
        return self.evaluation(data, self._config.limit_val)

    def evaluation(self, data: object, limit: Limit = 1.0) -> Feed:
        """Data to validate or test on, in its own order; with `overfit` the set that was trained on, if any was."""
        config = self._config
        if self._fixed is not None:
            return self._adopted(self._fixed, shuffle=False, limit=config.overfit or 1.0, size=self._size())
        if config.overfit is not None:
            limit = config.overfit
        if _holds_samples(data):
            return self._adopted(data, shuffle=False, limit=limit, size=self._evaluation_size())
        self._refuse_size(data)
        return self._adopted(data, shuffle=False, limit=limit, size=None)

    def prediction(self, data: object) -> Feed:
        """Data to predict for: all of it, in its own order."""
        size = self._evaluation_size() if _holds_samples(data) else None
        return self._adopted(data, shuffle=False, limit=1.0, size=size)

    def _refuse_budget(self, data: object) -> None:
        if self._config.batch_tokens is not None and not is_feed(data):
            raise ConfigError(
                "train.batch_tokens needs data whose lengths Etude knows, which a DataLoader, a Dataset or an "
                "iterable does not tell; leave it out, and let the loader make such batches."
            )

    def _refuse_size(self, data: object) -> None:
        """Refuse a size beside batches that are made already."""
        size = self._config.eval_batch_size
        if size is not None and not is_feed(data):
            raise ConfigError(
                f"train.eval_batch_size is {size}, but the data is a {type(data).__name__}, "
                f"which has batches of its own; leave eval_batch_size out, or give the Dataset."
            )

    def _size(self) -> int | None:
        if not self._given:
            return None
        size: Any = self._config.batch_size  # a number or a schedule, as was checked
        return smallest(size) or DEFAULT_BATCH_SIZE

    def _evaluation_size(self) -> int | None:
        return self._config.eval_batch_size or self._size()

    def _adopted(
        self,
        data: object,
        *,
        shuffle: bool | None,
        limit: Limit,
        size: int | None,
        training: bool = False,
        share: Share = ALONE,
    ) -> Feed:
        return adopt(
            data,
            seed=self._seed,
            shuffle=shuffle,
            batch_size=size,
            notice=self._say,
            limit=limit,
            training=training,
            rank=share.rank,
            world=share.world,
        )


def _refuse_iterator(data: object) -> None:
    match data:
        case Iterator():
            raise ConfigError(
                f"The validation data is a {type(data).__name__}, which can be read only once, but every validation "
                f"reads it; give a list, a DataLoader, or a function that returns a new iterator."
            )


def _holds_samples(data: object) -> bool:
    match data:
        case DataLoader():
            return False
        case Dataset():
            return True
    return _is_indexed(data)


def _is_indexed(data: object) -> bool:
    """Whether samples can be asked for by number, and by that alone."""
    if not (hasattr(data, "__getitem__") and hasattr(data, "__len__")):
        return False
    return hasattr(data, "__getitems__") or not hasattr(data, "__iter__")
