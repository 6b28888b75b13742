"""How a run's batches are made, as `[train]` says: how large, in which order, and of how much of a split."""

from typing import TypedDict

from etude.base.schedules import ScheduleSection, smallest
from etude.data.feeds.adopt import DEFAULT_BATCH_SIZE
from etude.data.feeds.feed import Limit
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


def training_limit(train: TrainConfig) -> Limit:
    """How much of the training data an epoch takes."""
    return train.limit_train if train.overfit is None else train.overfit


def evaluation_limit(train: TrainConfig, split: str) -> Limit:
    """How much of a split is evaluated."""
    limits: dict[str, Limit] = {"val": train.limit_val, "test": train.limit_test}
    return limits.get(split, 1.0)


def size_schedule(train: TrainConfig) -> dict[str, ScheduleSection]:
    """The size of training batches, by its key, where a schedule drives it."""
    key, size = "train.batch_size", train.batch_size
    if train.batch_tokens is not None:
        key, size = "train.batch_tokens", train.batch_tokens
    return {key: size} if isinstance(size, ScheduleSection) else {}


def _rows(train: TrainConfig) -> int:
    return (train.batch_size and smallest(train.batch_size)) or DEFAULT_BATCH_SIZE
