"""The largest batch that fits: sizes are doubled until memory, time or the data end it."""

import math
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import Final, NamedTuple

import torch

from etude.app.dry_run import dry_run
from etude.app.find.memory import Memory, memory_of
from etude.app.find.prepared import prepared
from etude.base.errors import ConfigError
from etude.base.progress import Progress
from etude.base.says import Say, unheard
from etude.base.schedules.binding import smallest
from etude.tasks.config import load_config
from etude.train.config import TrainConfig
from etude.train.run import Run

DOUBLINGS: Final = 24
STEPS: Final = 2
"""Steps of each size; the first is slow, the last is timed."""
SECONDS: Final = 20.0
"""A size whose step takes longer is the last that is tried."""
SHARE: Final = 0.9
"""Of the memory that there is, how much a size may be expected to need."""


class Tried(NamedTuple):
    """A size that fits."""

    size: int
    """What `train.batch_size`, or `train.batch_tokens`, was."""
    samples: int
    """Those of the batch, which the data may hold no more of."""
    seconds: float
    """How long a step took."""
    bytes: int
    """The most memory so far."""


@dataclass(frozen=True)
class Largest:
    """The largest size that fits."""

    key: str
    """`train.batch_size`, or `train.batch_tokens`."""
    tried: Sequence[Tried]
    ended: str
    """Why no larger one was tried, or that one did not fit, as a sentence."""
    bounded: bool
    """Whether memory is what ended it."""

    @property
    def size(self) -> int:
        """The largest size that fits."""
        return self.tried[-1].size


def key_of(train: TrainConfig) -> str:
    """The key that says how large batches are."""
    return "batch_size" if train.batch_tokens is None else "batch_tokens"


def largest(config: str, overrides: Sequence[str] = (), *, say: Say = unheard) -> Largest:
    """Double the size of batches, from that of the config on, until one does not fit.

    Each takes two steps of the run in every other regard; weights, gradients and optimizer are there. On a CPU, where
    too large a batch would end the process, a size is only tried where the growth of the sizes before leaves it room.
    The first batches of an epoch are taken, which need not be the longest. Raises ConfigError where the config's own
    size does not fit, or is a schedule without a least value.
    """
    loaded = load_config(config, overrides)
    train = loaded.config.train
    key = key_of(train)
    begin = smallest(getattr(train, key))
    if begin is None:
        raise ConfigError(f"train.{key} is a function whose values are not known ahead: give a number.")
    sizes = [begin << number for number in range(DOUBLINGS)]
    schedule = f'{{ schedule = "stairs", values = {sizes}, every = "1 epoch" }}'
    asked = [f"--train.{key}", schedule, "--train.max_duration", f"{DOUBLINGS} epochs", "--train.sanity_batches", "0"]
    with dry_run(load_config(config, [*overrides, *asked]), "find", say) as (job, _):
        run = prepared(job)
        return _Doubling(f"train.{key}", run, memory_of(run.learner.device)).search(sizes)


class _Doubling:
    """Tries sizes one after the other, an epoch each."""

    def __init__(self, key: str, run: Run, memory: Memory) -> None:
        self._key, self._run, self._memory = key, run, memory
        self._tried: list[Tried] = []

    def search(self, sizes: Sequence[int]) -> Largest:
        """Try them until one does not fit."""
        for epoch, size in enumerate(sizes):
            if (why := self._stops(size)) is not None:
                return why
            try:
                self._tried.append(self._try(size, epoch))
            except ConfigError as error:
                if not self._tried or not _lacks_memory(error):
                    raise
                return self._end(f"{size:,} does not fit.", bounded=True)
        return self._end("No larger one was tried.")

    def _end(self, ended: str, *, bounded: bool = False) -> Largest:
        return Largest(self._key, self._tried, ended, bounded)

    def _stops(self, size: int) -> Largest | None:
        """Why a size is not tried, where it is not."""
        if not self._tried:
            return None
        last = self._tried[-1]
        if len(self._tried) > 1 and last.samples == self._tried[-2].samples:
            return self._end(f"{size:,} was not tried: the training data give no larger batch.")
        if last.seconds > SECONDS:
            return self._end(f"{size:,} was not tried: a step of {last.size:,} took {last.seconds:.0f} s.")
        needed, room = self._needed(), self._memory.room()
        if room is not None and needed > SHARE * room:
            return self._end(
                f"{size:,} was not tried: it is expected to need {needed / 2**30:.1f} of {room / 2**30:.1f} GiB.",
                bounded=True,
            )
        return None

    def _needed(self) -> int:
        """What the next size is expected to need: twice as much more as the last one over the one before."""
        if len(self._tried) == 1:
            return self._tried[-1].bytes
        before, last = self._tried[-2:]
        return last.bytes + 2 * (last.bytes - before.bytes)

    def _try(self, size: int, epoch: int) -> Tried:
        """Take some steps of a size, which is that of an epoch."""
        run, samples, seconds = self._run, 0, math.nan
        run.state.progress = Progress(step=run.state.progress.step, epoch=epoch)
        run.state.position = None
        self._memory.begin()
        with closing(run.groups()) as groups:  # type: ignore[type-var]
            for group in islice(groups, STEPS):
                begun = time.perf_counter()
                run.step(group)
                _wait_for(run.learner.device)
                seconds = time.perf_counter() - begun
                samples = max(samples, *(delivery.samples for delivery in group))
        return Tried(size, samples, seconds, self._memory.peak())


def _lacks_memory(error: ConfigError) -> bool:
    return "not enough memory" in str(error)


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
