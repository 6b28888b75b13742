"""How a run's batches are made, as `[train]` says: how large, in which order, and of how much of a split."""

from collections.abc import Mapping
from typing import TypedDict

from etude.base.says import Say
from etude.base.schedules import ScheduleSection, smallest
from etude.data.feeds.adopt import DEFAULT_BATCH_SIZE
from etude.data.feeds.batching import Batching
from etude.data.feeds.feed import Limit
from etude.tasks.config import Config
from etude.train.config import TrainConfig

_UNTOLD_TOKENS = 1 << 16
"""What holds the longest sample until a function of the user's has said how many tokens a batch has."""


class Size(TypedDict):
    """What a feed takes: one of them is None."""

    batch_size: int | None
    batch_tokens: int | None


def training_size(train: TrainConfig) -> Size:
    """The size of training batches; of a schedule the smallest that it comes to, which is resized before an epoch."""
    if train.batch_tokens is not None:
        return {"batch_size": None, "batch_tokens": smallest(train.batch_tokens) or _UNTOLD_TOKENS}
    return {"batch_size": _rows(train), "batch_tokens": None}


def evaluation_size(train: TrainConfig) -> Size:
    """The size of batches that are only evaluated: `eval_batch_size`, or what training begins with."""
    tokens = None if train.batch_tokens is None else smallest(train.batch_tokens)
    if train.eval_batch_size is None and tokens is not None:
        return {"batch_size": None, "batch_tokens": tokens}
    return {"batch_size": train.eval_batch_size or _rows(train), "batch_tokens": None}


def training(config: Config, workers: int, say: Say, *, varying: bool = False) -> Batching:
    """Training batches, in an order computed from the seed; with `train.overfit`, one fixed set of them.

    Their size may change within an epoch where a schedule drives it, or where what a batch holds is `varying`.
    """
    train = config.train
    overfits = train.overfit is not None
    return Batching(
        seed=config.run.drawn_from,
        **training_size(train),
        shuffle=not overfits,
        workers=workers,
        pin_memory=True,
        limit=train.overfit if overfits else train.limit_train,
        varying=varying or bool(size_schedule(train)),
        rank=config.share.rank,
        world=config.share.world,
        notice=say,
    )


def evaluating(config: Config, split: str, say: Say) -> Batching:
    """Batches of every sample of a split once, in a fixed order."""
    train = config.train
    limits: dict[str, Limit] = {"val": train.limit_val, "test": train.limit_test}
    limit = limits.get(split, 1.0)
    return Batching(seed=config.run.seed, **evaluation_size(train), evaluation=True, limit=limit, notice=say)


def scheduled(values: Mapping[str, object]) -> dict[str, ScheduleSection]:
    """Those of some values by key that follow a schedule."""
    return {key: value for key, value in values.items() if isinstance(value, ScheduleSection)}


def size_schedule(train: TrainConfig) -> dict[str, ScheduleSection]:
    """The size of training batches, by its key, where a schedule drives it."""
    if train.batch_tokens is not None:
        return scheduled({"train.batch_tokens": train.batch_tokens})
    return scheduled({"train.batch_size": train.batch_size})


def _rows(train: TrainConfig) -> int:
    return (train.batch_size and smallest(train.batch_size)) or DEFAULT_BATCH_SIZE
