"""From a job to a run that can begin: its parts made and bound to its length."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import partial
from itertools import zip_longest
from typing import Any

from etude.base.durations import Duration
from etude.base.errors import ConfigError
from etude.base.horizon import Horizon
from etude.base.schedules import Driven, ScheduleSection, bind_whole
from etude.base.schedules.values import ScheduledValue
from etude.data.feeds.feed import Feed
from etude.train.averaging import Average, NoAverage
from etude.train.compiling import compile_task
from etude.train.components import components
from etude.train.device import choose_device
from etude.train.interrupt import Interrupts
from etude.train.job import Job, as_durations
from etude.train.length import horizon as horizon_of
from etude.train.memory.keeper import FolderKeeper, Keeper, MemoryKeeper
from etude.train.memory.state import Generators, Part, State
from etude.train.optim.build import model_width
from etude.train.optim.freezing import constant_patterns, freeze, thawing
from etude.train.optim.slot import Slot
from etude.train.step.hiddens import Hiddens, NoHiddens, hiddens_of
from etude.train.step.noise import noise_of
from etude.train.step.pieces import in_pieces
from etude.train.step.precision import Precision
from etude.train.step.update import Update
from etude.train.stopping import Stopping
from etude.train.task import Task
from etude.train.training import Moments, Training
from etude.train.values import Values
from etude.train.watch.callback import Events, read_only
from etude.train.watch.record import Record


def prepare(job: Job, interrupts: Interrupts) -> Training:
    """Everything the run is made of, before its first step and before any checkpoint is read."""
    config, task = job.config, job.task
    until = _until(job)
    if not callable(getattr(task, "training_step", None)):
        raise ConfigError(f"{type(task).__name__} needs a training_step(batch), which returns the loss.")
    device = choose_device(config.device)
    task.to(device)
    freeze(task, constant_patterns(config.freeze), "train.freeze")
    if config.compile:
        compile_task(task, job.say)
    hiddens = hiddens_of(task, tbptt=config.tbptt_steps is not None, carry=config.carry_hiddens, device=device)
    feed = in_pieces(job.train, task, config.tbptt_steps)
    horizon = horizon_of(until, feed, config.accumulate)
    slots = job.optimizers(task, horizon)
    for slot in slots:
        slot.drop_gradients()  # what a script computed before is no part of the run
    noise, noisy = noise_of(task, config.parameter_noise, seed=job.seed, stage=job.stage)
    keeper: Keeper = MemoryKeeper()
    if job.folder is not None:
        keeper = FolderKeeper(job.folder, keep_last=config.keep_last, keep_best=config.keep_best)
    length = partial(_length, until=until, horizon=horizon, feed=feed)
    patience = length("patience", config.patience) if isinstance(config.patience, Duration) else config.patience
    if patience is not None and job.val is None:
        job.say("train.patience waits for validations, and there is no validation data: the run will not stop early.")
    stopping = Stopping(config.monitor, patience=patience, min_delta=config.min_delta, mode=config.mode)
    average = Average(task, config.ema_decay) if config.ema_decay is not None else NoAverage()
    precision = Precision(config.precision, device)
    update = Update(
        task,
        slots,
        device=device,
        precision=precision,
        clip_grad=config.clip_grad,
        seed=job.seed,
        stage=job.stage,
        say=job.say,
        hiddens=hiddens,
        noise=noise,
        extra_terms=job.extra_terms,
        term_weights=job.term_weights,
    )
    parts = _parts(job, stopping, precision, hiddens)
    accumulate = bind_whole(config.accumulate, horizon, key="train.accumulate")
    scheduled = [*job.values, *noisy, *_thawing(task, config.freeze, slots), *_accumulation(config.accumulate)]
    values = Values(scheduled, horizon, model_width(task))
    driven = _driven(job, slots, values)
    parts |= {f"schedule {name}": schedule for name, schedule in driven.items()}
    training = Training(
        task=task,
        feed=feed,
        validation=job.val,
        moments=Moments(
            log=length("log_every", config.log_every),
            validate=length("eval_every", config.eval_every),
            save=length("save_every", config.save_every),
            until=[length("max_duration", duration) for duration in until],
            not_before=None if config.min_duration is None else length("min_duration", config.min_duration),
        ),
        update=update,
        slots=slots,
        accumulate=accumulate,
        values=values,
        driven=driven,
        state=State(parts=parts),
        stopping=stopping,
        average=average,
        record=Record(job.folder, job.loggers, job.say),
        keeper=keeper,
        interrupts=interrupts,
        device=device,
        say=job.say,
        seed=job.seed,
        sanity_batches=config.sanity_batches,
        max_skipped=config.max_skipped_steps,
        max_failed_saves=config.max_failed_saves,
        config=job.about,
        data=read_only({"train": job.train, "val": job.val, **job.data}),
        horizon_steps=horizon.steps,
        pause=job.pause,
        tbptt_steps=config.tbptt_steps,
        carry_hiddens=config.carry_hiddens,
    )
    parts_of_run = components(
        task,
        training.data,
        slots=slots,
        schedules=[value.schedule for value in values.all],
        others=[*job.components, *job.loggers],
    )
    training.events = Events(job.callbacks, parts_of_run, training.view, seed=job.seed)
    training.state.parts["stop"] = training.events
    update.events = training.events
    return training


def _callback_parts(job: Job) -> dict[str, Part]:
    """The callbacks with a memory: each under its table's name, or its class and which of that class it is."""
    parts: dict[str, Part] = {}
    for name, callback in zip_longest(job.callback_names, job.callbacks):
        if callable(getattr(callback, "state_dict", None)) and callable(getattr(callback, "load_state_dict", None)):
            kind = name or type(callback).__name__
            same = sum(key.rpartition("#")[0] == f"callback {kind} " for key in parts)
            parts[f"callback {kind} #{same + 1}"] = callback
    return parts


def _until(job: Job) -> tuple[Duration, ...]:
    """What bounds the run; what of it follows the clock is said."""
    config = job.config
    until = as_durations(config.max_duration)
    if any(duration.unit == "percent" for duration in until):
        raise ConfigError("train.max_duration must not be a share of the run, whose length it is.")
    clocked = [str(d) for d in (*until, config.eval_every, config.save_every) if d.unit == "seconds"]
    if clocked:
        job.say(
            f"{', '.join(clocked)}: what follows the clock is outside the promise that a repeated run has equal bits."
        )
    return until


def _parts(job: Job, stopping: Stopping, precision: Precision, hiddens: Hiddens | NoHiddens) -> dict[str, Part]:
    """What has a memory besides weights, optimizers and schedules."""
    parts: dict[str, Part] = {"stopping": stopping, "precision": precision, "generators": Generators()}
    if isinstance(hiddens, Hiddens):
        parts["hiddens"] = hiddens
    parts |= _callback_parts(job)
    return parts


def _thawing(task: Task, frozen: Any, slots: Sequence[Slot]) -> list[ScheduledValue]:
    """What freezes and thaws parameters by schedule."""
    values = thawing(task, frozen, "train.freeze") if isinstance(frozen, Mapping) else []
    for slot in slots:
        values += thawing(task, slot.freezes, "optimizer.groups")
    return values


def _accumulation(spec: int | ScheduleSection) -> list[ScheduledValue]:
    """The batches of a step, where a schedule gives their number: taken as a group is formed, and logged."""
    return [ScheduledValue("train.accumulate", spec, lambda _: None, whole=True)] if not isinstance(spec, int) else []


def _driven(job: Job, slots: Sequence[Slot], values: Values) -> dict[str, Driven]:
    """The schedules that follow validations; that there are none to follow is said."""
    driven = {name: schedule for slot in slots for name, schedule in slot.driven().items()}
    driven |= values.driven
    if driven and job.val is None:
        job.say("A schedule waits for validations, and there is no validation data: it will not lower its value.")
    return driven


def _length(key: str, duration: Duration, *, until: Sequence[Duration], horizon: Horizon, feed: Feed) -> Duration:
    """A share of the run ("5 %") as a length; a fraction of an epoch is refused where an epoch has no known length."""
    if duration.unit == "epochs" and duration.amount.denominator != 1 and not feed.epoch_total:
        raise ConfigError(
            f"train.{key} is {duration}, but the training data does not say how long an epoch is; give {key} in "
            f"steps, batches, samples, tokens, minutes or whole epochs."
        )
    if duration.unit != "percent":
        return duration
    if horizon.steps is not None:  # counted through, as a share of an epoch would not be
        return Duration(duration.amount * Fraction(horizon.steps) / 100, "steps")
    if until[0].unit == "epochs":
        raise ConfigError(
            f"train.{key} is {duration}, but the length of the run is not known ahead; give {key} in steps, batches, "
            f"samples, tokens, minutes or whole epochs."
        )
    return duration.of(until[0])
