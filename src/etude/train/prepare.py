"""From a job to a run that can begin: its parts made and bound to its length."""

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from fractions import Fraction
from itertools import zip_longest
from typing import NamedTuple

import torch

from etude.base.durations import Duration
from etude.base.errors import ConfigError, DataError
from etude.base.horizon import Horizon
from etude.base.schedules import bind_whole
from etude.data.feeds.feed import Feed
from etude.train.assembly import Assembly, Seen, ready
from etude.train.device import choose_device
from etude.train.driver import Moments
from etude.train.interrupt import Interrupts
from etude.train.job import Job, as_durations
from etude.train.learner import Learner
from etude.train.length import horizon as horizon_of
from etude.train.memory.checkpoint.origin import config_hash
from etude.train.memory.checkpoint.store import ONE_WRITER
from etude.train.memory.checkpoint.writers import LeadingWriter
from etude.train.memory.keeper import FolderKeeper, Keeper, MemoryKeeper, NoKeeper, PartKeeper
from etude.train.memory.state import EpochLoss, Generators, Part, State
from etude.train.run import Run
from etude.train.same import sharded
from etude.train.saving import Saves
from etude.train.step.pieces import InTime, in_pieces
from etude.train.step.precision import Precision
from etude.train.step.ranks import Among
from etude.train.stopping import Stopping
from etude.train.validating import Validation
from etude.train.warming import long_warm_ups
from etude.train.watch.callback import RunView, read_only
from etude.train.watch.events import Events
from etude.train.watch.pace import Pace
from etude.train.watch.record import Record
from etude.train.world import ALONE, World


class Length(NamedTuple):
    """How long a run is, and what it is counted by."""

    until: Sequence[Duration]
    feed: Feed
    horizon: Horizon

    def of(self, key: str, duration: Duration) -> Duration:
        """A share of the run ("5 %") as a length; a fraction of an epoch is refused where an epoch has none known."""
        if duration.unit == "epochs" and duration.amount.denominator != 1 and not self.feed.epoch_total:
            raise ConfigError(
                f"train.{key} is {duration}, but the length of an epoch is unknown; give {key} in "
                f"steps, batches, samples, tokens, minutes or whole epochs."
            )
        return self._of_share(key, duration) if duration.unit == "percent" else duration

    def _of_share(self, key: str, duration: Duration) -> Duration:
        if self.horizon.steps is not None:  # counted through, as a share of an epoch would not be
            return Duration(duration.amount * Fraction(self.horizon.steps) / 100, "steps")
        if self.until[0].unit == "epochs":
            raise ConfigError(
                f"train.{key} is {duration}, but the length of the run is unknown; give {key} in steps, "
                f"batches, samples, tokens, minutes or whole epochs."
            )
        return duration.of(self.until[0])


def prepare(job: Job, interrupts: Interrupts, world: World = ALONE) -> Run:
    """Everything the run is made of, before its first step and before any checkpoint is read."""
    until = _until(job)
    device = _ready(job)
    among = _among(job, world, device)
    feed = in_pieces(job.train, job.task, job.config.tbptt_steps, world)
    _refuse_empty(feed)
    length = Length(until, feed, job.horizon or horizon_of(until, feed, job.config.accumulate))
    moments, stopping = _moments(job, length), _stopping(job, length)
    _tell_of_warm_ups(job, length)
    seen = Seen(read_only(job.about), read_only({"train": job.train, "val": job.val, **job.data}))

    def view() -> RunView:  # taken when something happens, and nothing does before the run is there
        return run.view()

    events = Events(job.callbacks, (), view, seed=job.seed, say=job.say)
    learner = _learner(job, events, device, length, seen, among)
    _tell_of_validations(job, learner)
    folder = job.folder if world.is_first else None
    record = Record(folder, job.loggers if world.is_first else (), job.say)
    validation = Validation(
        learner, job.val, stopping=stopping, record=record, events=events, tried=job.config.sanity_batches, say=job.say
    )
    epoch_loss = EpochLoss()
    own: dict[str, Part] = {"stopping": stopping, "generators": Generators(), "stop": events, "epoch loss": epoch_loss}
    run = Run(
        learner=learner,
        feed=learner.feed,
        moments=moments,
        state=State(
            until=tuple(map(str, moments.until)),
            horizon=length.horizon.steps,
            own=own | {"data": job.train.memory} | _callback_parts(job),
            learnt=learner.parts,
        ),
        validation=validation,
        record=record,
        saves=Saves(
            _keeper(job, among),
            record,
            stopping,
            origin=job.origin or config_hash(job.about),
            metrics=lambda: validation.metrics,
            most_failed=job.config.max_failed_saves,
            say=job.say,
        ),
        events=events,
        interrupts=interrupts,
        pace=Pace(device, learner.precision.dtype),
        epoch_loss=epoch_loss,
        world=world,
        say=job.say,
        config=seen.config,
        data=seen.data,
        max_skipped=job.config.max_skipped_steps,
        pause=job.pause,
        averaging=length.of("average_every", job.distributed.average_every) if among.locally else None,
        checking=job.distributed.check_every if world.size > 1 else None,
    )
    return run


def _refuse_empty(feed: Feed) -> None:
    """Raise DataError for training data without a batch; a feed that can say more of it does."""
    if feed.batches == 0:
        with closing(feed.epoch(0)) as batches:  # type: ignore[type-var]
            first = next(batches, None)
        if first is None:
            raise DataError("The training data holds no batch: it is empty, or less than one batch with drop_last.")


def _until(job: Job) -> tuple[Duration, ...]:
    """What bounds the run; what of it follows the clock is said."""
    config = job.config
    until = as_durations(config.max_duration)
    if any(duration.unit == "percent" for duration in until):
        raise ConfigError("train.max_duration must not be a share of the run, whose length it is.")
    _tell_of_clock((*until, config.eval_every, config.save_every), job.say)
    return until


def _tell_of_clock(durations: Sequence[Duration], say: Callable[[str], None]) -> None:
    """Say which durations follow the clock."""
    clocked = [str(duration) for duration in durations if duration.unit == "seconds"]
    if clocked:
        say(f"{', '.join(clocked)}: a run that depends on the clock is not deterministic.")


def _ready(job: Job) -> torch.device:
    """Bring the task to its device; which that is."""
    if not job.task.can_learn:
        raise ConfigError(f"{type(job.task).__name__} needs a training_step(batch), which returns the loss.")
    device = choose_device(job.config.device)
    ready(job.task, job.config, device, job.say, job.structure.names(), distributed=job.distributed)
    return device


def _moments(job: Job, length: Length) -> Moments:
    """When the run does what."""
    config = job.config
    return Moments(
        log=length.of("log_every", config.log_every),
        validate=length.of("eval_every", config.eval_every),
        save=length.of("save_every", config.save_every),
        until=[length.of("max_duration", duration) for duration in length.until],
        not_before=None if config.min_duration is None else length.of("min_duration", config.min_duration),
    )


def _stopping(job: Job, length: Length) -> Stopping:
    """Which validation is the best, and when patience ends; that it waits in vain is said."""
    config = job.config
    patience = config.patience
    if isinstance(patience, Duration):
        patience = length.of("patience", patience)
    if patience is not None and job.val is None:
        job.say("train.patience has no effect: there is no validation data, so the run will not stop early.")
    return Stopping(config.monitor, patience=patience, min_delta=config.min_delta, mode=config.mode)


def _tell_of_warm_ups(job: Job, length: Length) -> None:
    """Say that the run ends before a warm-up does."""
    for told in long_warm_ups(job.about, length.horizon):
        job.say(told)


def _among(job: Job, world: World, device: torch.device) -> Among:
    """The ranks that the run is done among; the task is sharded over them where the config says so."""
    locally = world.size > 1 and job.distributed.reduce == "local"
    return Among(world, sharding=sharded(job, world, device), locally=locally)


def _tell_of_validations(job: Job, learner: Learner) -> None:
    """Say that a schedule waits for validations that do not come."""
    if job.val is None and learner.driven():
        job.say("A schedule follows validations, but there is no validation data: its value will not change.")


def _learner(job: Job, events: Events, device: torch.device, length: Length, seen: Seen, among: Among) -> Learner:
    """What learns."""
    config = job.config
    precision = Precision(config.precision, device)
    assembly = Assembly(
        config=config,
        horizon=length.horizon,
        device=device,
        precision=precision,
        events=events,
        seen=seen,
        others=[*job.components, *job.loggers],
        elsewhere=job.structure.names(),
        among=among,
        distributed=job.distributed,
        seed=job.seed,
        stage=job.stage,
        say=job.say,
    )
    return Learner(
        job,
        assembly,
        group_size=bind_whole(config.accumulate, length.horizon, key="train.accumulate"),
        in_time=InTime(config.tbptt_steps, config.carry_hiddens),
        structure=job.structure,
    )


def _keeper(job: Job, among: Among) -> Keeper:
    """Where checkpoints go: into the run's folder, by the first rank or, of sharded weights, by all of them."""
    world, folder = among.world, job.folder
    together = among.sharding.is_sharded and world.gather(folder is not None)[0]
    if not world.is_first:
        return PartKeeper(world.post) if together else NoKeeper()
    if folder is None:
        return MemoryKeeper()
    writers = LeadingWriter(world.post) if together else ONE_WRITER
    return FolderKeeper(folder, keep_last=job.config.keep_last, keep_best=job.config.keep_best, writers=writers)


def _callback_parts(job: Job) -> dict[str, Part]:
    """The callbacks with a memory: each under its table's name, or its class and which of that class it is."""
    parts: dict[str, Part] = {}
    counts: Counter[str] = Counter()
    for name, callback in zip_longest(job.callback_names, job.callbacks):
        if isinstance(callback, Part):
            kind = name or type(callback).__name__
            counts[kind] += 1
            parts[f"callback {kind} #{counts[kind]}"] = callback
    return parts
