"""From a task, its data and options to a finished run: everything is put together here, continued, and taken apart."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from torch import nn

from etude.base.durations import Duration
from etude.base.errors import ConfigError, EtudeError, RefusedError, StorageError
from etude.base.horizon import Horizon
from etude.base.progress import Progress
from etude.base.schedules import Driven, bind_whole
from etude.data.feed import Feed
from etude.train.averaging import Average, NoAverage
from etude.train.callback import Events
from etude.train.checkpoint import read, read_weights
from etude.train.checkpoint.naming import checkpoint_step
from etude.train.config import TrainConfig
from etude.train.horizon import horizon as horizon_of
from etude.train.interrupt import Interrupted, Interrupts
from etude.train.keeper import FolderKeeper, Keeper, MemoryKeeper
from etude.train.live import Live
from etude.train.loop import train
from etude.train.optim.build import freeze
from etude.train.optim.slot import Slot
from etude.train.precision import Precision, choose_device
from etude.train.record import Logger, Record, Row
from etude.train.state import Generators, Part, State
from etude.train.step import Update
from etude.train.stopping import Stopping
from etude.train.task import Task
from etude.train.training import Moments, Training

Resume = Literal["auto", "never", "must"]
Module = TypeVar("Module", bound=nn.Module)


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
    live: Callable[[Horizon], Sequence[Live]] = lambda _: ()
    batch_size: Any = None
    """A schedule of the batch size, where it is one; the feed takes it up by `resize`."""
    callbacks: Sequence[Any] = ()
    components: Sequence[Any] = ()
    """Parts of the run that may have `on_...` methods without being listed as callbacks."""
    loggers: Sequence[Logger] = ()
    resume: Resume = "auto"
    say: Callable[[str], None] = print
    about: Mapping[str, Any] = field(default_factory=dict)
    """The run's config, for callbacks."""


@dataclass
class Result:
    """How a run ended."""

    reason: str
    progress: Progress
    metrics: Mapping[str, float]
    """What the last validation measured."""
    best: Path | None
    last: Path | None
    history: Sequence[Row] = field(repr=False)
    """Every row logged, as in `metrics.jsonl`."""
    best_weights: Mapping[str, Any] | None = field(default=None, repr=False)
    """Without a run folder: the best weights, in memory."""
    skipped: int = 0
    """Steps whose loss or gradient was not finite."""
    best_step: int | None = None
    """The step of the best validation; None where there was none."""

    def load_best(self, task: Module) -> Module:
        """Give `task`, a task or the plain module that `etude.fit` trained, the best weights.

        They are the averaged ones, where an average was kept. Raises StorageError where the run kept none.
        """
        weights = self.best_weights if self.best is None else read_weights(self.best, averaged=True)
        if weights is None:
            raise StorageError("This run kept no weights: it ended before its first save.")
        own = weights if isinstance(task, Task) else task.state_dict()
        task.load_state_dict({name: value for name, value in weights.items() if name in own or name[:5] != "loss."})
        return task


def _of_validation(logged: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in logged.items() if name.startswith("val/")}


def as_durations(value: Duration | Sequence[Duration]) -> tuple[Duration, ...]:
    """One duration or several, as several."""
    return (value,) if isinstance(value, Duration) else tuple(value)


def fit(job: Job) -> Result:
    """Do the run: begin it, or go on with it where its newest sound checkpoint stands.

    Raises Interrupted (a SystemExit) after the save that follows SIGTERM or Ctrl-C.
    """
    with ExitStack() as stack:
        interrupts = stack.enter_context(Interrupts())
        training = prepare(job, interrupts)
        stack.callback(training.keeper.close)
        stack.callback(training.record.close)
        stack.callback(job.train.close)
        if job.val is not None:
            stack.callback(job.val.close)
        try:
            training.state.parts["generators"].seed(job.seed)  # type: ignore[attr-defined]
            if job.folder is not None:
                _continue(job, training)
            reason = train(training)
        except BaseException as error:
            training.events.exception(error)
            raise
        result = Result(
            reason=reason,
            progress=training.state.progress,
            metrics=training.metrics or _of_validation(training.record.last),
            best=training.keeper.best,
            last=training.keeper.last,
            history=training.record.rows,
            best_weights=getattr(training.keeper, "best_weights", None),
            skipped=training.state.skipped,
            best_step=training.stopping.best_step,
        )
    if interrupts.received is not None and reason.startswith("interrupted"):
        raise Interrupted(interrupts.received, result)
    return result


def prepare(job: Job, interrupts: Interrupts) -> Training:
    """Everything the run is made of, before its first step and before any checkpoint is read."""
    config, task = job.config, job.task
    if not callable(getattr(task, "training_step", None)):
        raise ConfigError(f"{type(task).__name__} needs a training_step(batch), which returns the loss.")
    device = choose_device(config.device)
    task.to(device)
    freeze(task, config.freeze, "train.freeze")
    until = as_durations(config.max_duration)
    if any(duration.unit == "percent" for duration in until):
        raise ConfigError("train.max_duration must not be a share of the run, whose length it is.")
    clocked = [str(d) for d in (*until, config.eval_every, config.save_every) if d.unit == "seconds"]
    if clocked:
        job.say(
            f"{', '.join(clocked)}: what follows the clock is outside the promise that a repeated run has equal bits."
        )
    horizon = horizon_of(until, job.train, config.accumulate)
    slots = job.optimizers(task, horizon)
    keeper: Keeper = MemoryKeeper()
    if job.folder is not None:
        keeper = FolderKeeper(job.folder, keep_last=config.keep_last, keep_best=config.keep_best)
    length = partial(_length, until=until, horizon=horizon, feed=job.train)
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
    )
    parts: dict[str, Part] = {"stopping": stopping, "precision": precision, "generators": Generators()}
    for index, callback in enumerate(job.callbacks):
        if hasattr(callback, "state_dict") and hasattr(callback, "load_state_dict"):
            parts[f"callback {index} {type(callback).__name__}"] = callback
    accumulate = bind_whole(config.accumulate, horizon, key="train.accumulate")
    live = [*job.live(horizon)]
    if not isinstance(config.accumulate, int):
        live.append(Live("accumulate", accumulate, lambda _: None))
    driven = {name: schedule for slot in slots for name, schedule in slot.driven().items()}
    driven |= {value.name: value.schedule for value in live if isinstance(value.schedule, Driven)}
    parts |= {f"schedule {name}": schedule for name, schedule in driven.items()}
    training = Training(
        task=task,
        feed=job.train,
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
        live=live,
        driven=driven,
        sizes=None if job.batch_size is None else bind_whole(job.batch_size, horizon, key="train.batch_size"),
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
        horizon_steps=horizon.steps,
    )
    training.events = Events(job.callbacks, job.components, training.view)
    update.events = training.events
    return training


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


def _continue(job: Job, training: Training) -> None:
    """Load the newest sound checkpoint, if there is one, and open the record where it stood."""
    keeper = training.keeper
    assert isinstance(keeper, FolderKeeper)
    keeper.store.prepare()
    found = keeper.store.newest_sound(job.say)
    if found is None:
        if job.resume == "must":
            raise RefusedError(f"There is nothing to resume in {job.folder}: it holds no checkpoint.")
        training.record.open(cut=0)
        return
    if job.resume == "never":
        raise RefusedError(f"{job.folder} already holds a run; give another folder, or resume it.")
    state, weights, averaged = read(found)
    load_weights(job.task, weights, found)
    try:
        for slot in training.slots:
            slot.load_state_dict(state["optimizers"][slot.name])
        training.state.load_state_dict(state)
        training.average.load(averaged, {"updates": training.state.progress.step - training.state.skipped})
        _tell_of_another_length(training, state.get("horizon"), job.say)
        finished = _is_finished(training, state["ended"])
        cut = None if finished else int(state["record"]["bytes"])
    except EtudeError:
        raise
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise StorageError(f"The state in {found} does not fit this run ({type(error).__name__}: {error}).") from error
    training.record.open(cut=cut)
    step, stopping = checkpoint_step(found), training.stopping
    best = step if training.validation is None else stopping.best_step
    keeper.store.settle(step, best=best, ranking=stopping.ranking, complain=job.say)
    progress = training.state.progress
    job.say(
        f"Nothing to do: the run is finished ({training.finished})."
        if finished
        else f"Going on from step {progress.step:,} (epoch {progress.epochs:.2f}) of {found.name}."
    )
    training.events.load(found)


def _tell_of_another_length(training: Training, before: float | None, say: Callable[[str], None]) -> None:
    """Say how the schedules change when the run has become longer or shorter since its checkpoint."""
    now = training.horizon_steps
    if before is None or now is None or before == now:
        return
    changes = []
    for slot in training.slots:
        old = slot.learning_rate
        slot.set_rates(training.state.progress)
        changes.append(f"{old:.3g} to {slot.learning_rate:.3g}")
    say(
        f"The run is now {now:,.0f} steps long instead of {before:,.0f}, and schedules that reach to its end follow: "
        f"the learning rate goes from {', '.join(changes)} at step {training.state.progress.step + 1:,}."
    )


def _is_finished(training: Training, ended: Mapping[str, Any] | None) -> bool:
    """Whether the run had ended, and nothing since gives it more to do."""
    reason = training.reason()
    if reason is None and ended is not None and not ended["reason"].startswith("interrupted"):
        same = ended["until"] == [str(duration) for duration in training.moments.until]
        by_length = ended["reason"].startswith("max_duration")
        reason = ended["reason"] if same and not by_length and not ended["reason"].startswith("early") else None
    training.finished = reason
    return reason is not None


def load_weights(task: Task, weights: Mapping[str, Any], source: Path) -> None:
    """Give `task` the weights read from `source`, or refuse naming the first differences; never a part of them."""
    own = task.state_dict()
    problems = [f"{name} is missing" for name in own if name not in weights]
    problems += [f"{name} has no place in the model" for name in weights if name not in own]
    problems += [
        f"{name} has shape {tuple(weights[name].shape)} instead of {tuple(value.shape)}"
        for name, value in own.items()
        if name in weights and weights[name].shape != value.shape
    ]
    if problems:
        more = f", and {len(problems) - 3} more" if len(problems) > 3 else ""  # noqa: PLR2004
        raise RefusedError(f"The weights in {source} do not fit this model: {'; '.join(problems[:3])}{more}.")
    task.load_state_dict(dict(weights))
