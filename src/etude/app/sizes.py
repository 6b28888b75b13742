"""How many samples or tokens the batches of a feed begin with; a schedule resizes them before the first epoch."""

from typing import TypedDict

from etude.base.schedules import smallest
from etude.data.feeds.adopt import DEFAULT_BATCH_SIZE
from etude.train.config import TrainConfig

_UNTOLD_TOKENS = 1 << 16
"""What holds the longest sample until a function of the user's has said how many tokens a batch has."""


class Size(TypedDict):
    """What a feed takes: one of them is None."""

    batch_size: int | None
    batch_tokens: int | None


def training_size(train: TrainConfig) -> Size:
    """The size of training batches; of a schedule the smallest that it comes to."""
    if train.batch_tokens is not None:
        return {"batch_size": None, "batch_tokens": smallest(train.batch_tokens) or _UNTOLD_TOKENS}
    return {"batch_size": _rows(train), "batch_tokens": None}


def evaluation_size(train: TrainConfig) -> Size:
    """The size of batches that are only evaluated: `eval_batch_size`, or what training begins with."""
    tokens = None if train.batch_tokens is None else smallest(train.batch_tokens)
    if train.eval_batch_size is None and tokens is not None:
        return {"batch_size": None, "batch_tokens": tokens}
    return {"batch_size": train.eval_batch_size or _rows(train), "batch_tokens": None}


def _rows(train: TrainConfig) -> int:
    return (train.batch_size and smallest(train.batch_size)) or DEFAULT_BATCH_SIZE
