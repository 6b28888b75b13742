"""How a run's batches are made, as `[train]` says: how large, in which order, and of how much of a split."""

from etude.base.says import Say
from etude.base.schedules import ScheduleSection, smallest
from etude.data.feeds.adopt import DEFAULT_BATCH_SIZE
from etude.data.feeds.batching import Batching
from etude.data.feeds.feed import Limit
from etude.train.config import TrainConfig

_UNTOLD_TOKENS = 1 << 16
"""What holds the longest sample until a function of the user's has said how many tokens a batch has."""


def training_batching(train: TrainConfig, seed: int, *, workers: int, varying: bool, notice: Say) -> Batching:
    """How training batches are made; `varying` says that their size may change within an epoch.

    Of a scheduled size it begins with the smallest, and is resized before an epoch.
    """
    tokens = None if train.batch_tokens is None else smallest(train.batch_tokens) or _UNTOLD_TOKENS
    return Batching(
        seed=seed,
        batch_size=_rows(train) if tokens is None else None,
        batch_tokens=tokens,
        shuffle=train.overfit is None,
        workers=workers,
        pin_memory=True,
        limit=train.limit_train if train.overfit is None else train.overfit,
        varying=varying,
        notice=notice,
    )


def evaluation_batching(train: TrainConfig, seed: int, split: str, *, notice: Say) -> Batching:
    """How batches of a split are made that are only evaluated: of `eval_batch_size`, or as training begins with."""
    tokens = None if train.batch_tokens is None else smallest(train.batch_tokens)
    by_tokens = train.eval_batch_size is None and tokens is not None
    limits: dict[str, Limit] = {"val": train.limit_val, "test": train.limit_test}
    return Batching(
        seed=seed,
        batch_size=None if by_tokens else train.eval_batch_size or _rows(train),
        batch_tokens=tokens if by_tokens else None,
        evaluation=True,
        limit=limits.get(split, 1.0),
        notice=notice,
    )


def size_schedule(train: TrainConfig) -> dict[str, ScheduleSection]:
    """The size of training batches, by its key, where a schedule drives it."""
    key, size = "train.batch_size", train.batch_size
    if train.batch_tokens is not None:
        key, size = "train.batch_tokens", train.batch_tokens
    return {key: size} if isinstance(size, ScheduleSection) else {}


def _rows(train: TrainConfig) -> int:
    return (train.batch_size and smallest(train.batch_size)) or DEFAULT_BATCH_SIZE
