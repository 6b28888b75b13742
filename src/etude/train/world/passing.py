"""A pass outside of training that the ranks which a launcher has started share: a validation, a test, a prediction."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from etude.base.errors import ConfigError
from etude.train.world.config import DistributedConfig
from etude.train.world.joining import is_training, joined
from etude.train.world.place import find_place
from etude.train.world.protocol import ALONE, World


@contextmanager
def passing(config: DistributedConfig | None = None) -> Iterator[World]:
    """Join the ranks for a pass, in which all of them take part; the world of one for a process that is alone.

    Inside of a training, as in a callback, each rank does the pass by itself: not all of them may have come to it.
    Inside of another pass it is that one's world. Raises ConfigError where the config wants no ranks.
    """
    config = config or DistributedConfig()
    refuse_none(config)
    if is_training():
        yield ALONE
        return
    with joined(timeout=float(config.timeout.amount), trains=False) as here:
        yield ALONE if here is None else here.world


def refuse_none(config: DistributedConfig) -> None:
    """Raise ConfigError where ranks have been started of what is to have none."""
    if config.strategy == "none" and (place := find_place(os.environ)) is not None:
        raise ConfigError(
            f'distributed.strategy is "none", but {place.size} ranks have been started; start one, or take "ddp".'
        )


def refuse_parts(task: nn.Module) -> None:
    """Raise ConfigError for a task that is being trained sharded, of which this process holds a part alone."""
    if any(hasattr(weight, "to_local") for weight in task.parameters()):
        name = type(task).__name__
        raise ConfigError(
            f"This {name} is being trained sharded (distributed.strategy): each rank holds a part of its "
            f"weights alone until that has ended. Test, validate or predict then; where an error has ended the "
            f'training, load the task, as in {name}.load("RUN/checkpoints/best").'
        )
