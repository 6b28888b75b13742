"""The largest batch that fits: sizes are doubled until memory, time or the data end it, then halved between."""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
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
PARTS: Final = 16
"""Parts into which the sizes between one and its double are divided."""
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
    """Double the size of batches, from that of the config on, until one does not fit, and halve between the last two.

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
    sizes = sizes_from(begin)
    schedule = f'{{ schedule = "stairs", values = {sizes}, every = "1 epoch" }}'
    asked = [f"--train.{key}", schedule, "--train.max_duration", f"{len(sizes)} epochs", "--train.sanity_batches", "0"]
    with dry_run(load_config(config, [*overrides, *asked]), "find", say) as (job, _):
        run = prepared(job)
        memory = memory_of(run.learner.device)
        return Search(f"train.{key}", partial(_attempt, run, memory), memory).run(sizes)


def sizes_from(begin: int) -> list[int]:
    """The sizes that may be tried: the first, its doubles, and between two of these `PARTS` - 1 more.

    >>> sizes_from(32)[:18:4]
    [32, 40, 48, 56, 64]
    """
    return [(begin << number) * (PARTS + part) // PARTS for number in range(DOUBLINGS) for part in range(PARTS)]


class Search:
    """Tries sizes one after the other."""

    def __init__(self, key: str, attempt: Callable[[int, int], Tried], memory: Memory) -> None:
        self._key, self._attempt, self._memory = key, attempt, memory
        self._tried: list[Tried] = []

    def run(self, sizes: Sequence[int]) -> Largest:
        """Try every `PARTS`th of these sizes, which double, until one does not fit; then halve what lies between.

        Raises ConfigError where the first does not fit.
        """
        for place in range(0, len(sizes), PARTS):
            if (ended := self._ends(sizes[place])) is not None:
                return self._end(ended)
            if (why := self._misfit(place, sizes)) is not None:
                return self._between(_between(place - PARTS, place, sizes), sizes, why)
        return self._end("No larger one was tried.")

    def _between(self, places: Sequence[int], sizes: Sequence[int], why: str) -> Largest:
        """Halve the sizes at these places, of which those below the first that does not fit do."""
        while places:
            middle = len(places) // 2
            found = self._misfit(places[middle], sizes)
            why, places = (why, places[middle + 1 :]) if found is None else (found, places[:middle])
        return self._end(why, bounded=True)

    def _end(self, ended: str, *, bounded: bool = False) -> Largest:
        return Largest(self._key, self._tried, ended, bounded)

    def _ends(self, size: int) -> str | None:
        """Why nothing of this size or above is tried, where something other than memory ends it."""
        if not self._tried:
            return None
        last = self._tried[-1]
        if len(self._tried) > 1 and last.samples == self._tried[-2].samples:
            return f"{size:,} was not tried: the training data give no larger batch."
        if last.seconds > SECONDS:
            return f"{size:,} was not tried: a step of {last.size:,} took {last.seconds:.0f} s."
        return None

    def _misfit(self, place: int, sizes: Sequence[int]) -> str | None:
        """Why memory has no room for a size; None of one that was tried and fits. Raises ConfigError for the first."""
        size = sizes[place]
        needed, room = self._needed(size), self._memory.room()
        if room is not None and needed > SHARE * room:
            return f"{size:,} was not tried: it is expected to need {needed / 2**30:.1f} of {room / 2**30:.1f} GiB."
        try:
            self._tried.append(self._attempt(size, place))
        except ConfigError as error:
            if not self._tried or not _lacks_memory(error):
                raise
            return f"{size:,} does not fit."
        return None

    def _needed(self, size: int) -> float:
        """What a size is expected to need, by the growth of the last two; of the first two nothing is known."""
        if len(self._tried) < 2:  # noqa: PLR2004 - two points make a line
            return self._tried[-1].bytes if self._tried else 0
        before, last = self._tried[-2:]
        return last.bytes + (last.bytes - before.bytes) * (size - last.size) / (last.size - before.size)


def _between(fits: int, too_large: int, sizes: Sequence[int]) -> list[int]:
    """The places of the sizes between two, each size once."""
    found = {sizes[place]: place for place in range(too_large - 1, fits, -1) if sizes[place] > sizes[fits]}
    return sorted(found.values())


def _attempt(run: Run, memory: Memory, size: int, epoch: int) -> Tried:
    """Take some steps of a size, which is that of an epoch."""
    samples, seconds = 0, math.nan
    run.state.progress = Progress(step=run.state.progress.step, epoch=epoch)
    run.state.position = None
    memory.begin()
    with closing(run.groups()) as groups:  # type: ignore[type-var]
        for group in islice(groups, STEPS):
            begun = time.perf_counter()
            run.step(group)
            _wait_for(run.learner.device)
            seconds = time.perf_counter() - begun
            samples = max(samples, *(delivery.samples for delivery in group))
    return Tried(size, samples, seconds, memory.peak())


def _lacks_memory(error: ConfigError) -> bool:
    return "not enough memory" in str(error)


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
