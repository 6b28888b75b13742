"""A run to be done: everything that it is made from."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from etude.base.durations import Duration
from etude.base.horizon import Horizon
from etude.base.schedules.values import ScheduledValue
from etude.base.signals import BEFORE_THE_END
from etude.data.feeds.feed import Feed
from etude.train.config import TrainConfig
from etude.train.optim.slot import Slot
from etude.train.step.terms import ExtraTerm
from etude.train.structure import Fixed, Structure
from etude.train.task import Task
from etude.train.watch.record import Logger
from etude.train.world import World
from etude.train.world.config import DistributedConfig

Resume = Literal["auto", "never", "must"]


@dataclass
class Job:
    """A run to be done."""

    task: Task
    train: Feed
    val: Feed | None
    config: TrainConfig
    optimizers: Callable[[Task, Horizon], Sequence[Slot]]
    """Makes the optimizers once the model is on its device and the run's length is known."""
    folder: Path | None = None
    seed: int = 1
    stage: str = ""
    values: Sequence[ScheduledValue] = ()
    """What follows a schedule beside the optimizers' rates, in the order in which it is set and logged."""
    structure: Structure = field(default_factory=Fixed)
    """Where, by epoch, the structure of the task is replaced."""
    distributed: DistributedConfig = field(default_factory=DistributedConfig)
    """How ranks share the work."""
    horizon: Horizon | None = None
    """How long the run is, where the batches of `train` are not those of all its epochs."""
    extra_terms: Sequence[ExtraTerm] = ()
    """Terms of the loss that depend on the parameters alone, beside what the task returns."""
    term_weights: Mapping[str, float] = field(default_factory=dict)
    """Weights, by term, that take the place of the task's own; changed in place by what follows a schedule."""
    callbacks: Sequence[Any] = ()
    callback_names: Sequence[str] = ()
    """What the first of them are called, under which their states are kept."""
    components: Sequence[Any] = ()
    """Parts of the run that may have `on_...` methods without being listed as callbacks."""
    loggers: Sequence[Logger] = ()
    resume: Resume = "auto"
    requeue: Sequence[str] = BEFORE_THE_END
    """Signals after which the run saves and ends with the code that asks for it to be queued again."""
    pause: Duration | None = None
    """Save and stop there as an interrupted run does: not the end of the run, which its horizon does not know of."""
    say: Callable[[str], None] = print
    contents: Mapping[str, str] = field(default_factory=dict)
    """Hashes of what the run reads, its code among it, by what a message calls it: the same on every rank."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """The run's config, for callbacks."""
    origin: str = ""
    """The hash by which checkpoints name the config of the run; of `about`, unless it is given."""
    after: Callable[[Any, World], None] = lambda *_: None
    """What is left to do with the result once the run has ended, other than by an interruption; by all ranks of it."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """The data by split as it was given, for callbacks; the feeds, where nothing else is there."""


def as_durations(value: Duration | Sequence[Duration]) -> tuple[Duration, ...]:
    """One duration or several, as several."""
    return (value,) if isinstance(value, Duration) else tuple(value)
