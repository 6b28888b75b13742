"""What happens at each moment of a run: a step, a log line, a validation, a save."""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from hashlib import sha256
from importlib.metadata import version
from itertools import islice
from time import perf_counter
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from etude.base.durations import Duration
from etude.base.errors import ConfigError, DataError, DivergedError, StorageError
from etude.base.progress import Progress
from etude.base.schedules import Driven
from etude.data.feeds.feed import Delivery, Feed
from etude.train.averaging import Average, NoAverage
from etude.train.end import End, Kind
from etude.train.evaluate import evaluate
from etude.train.interrupt import Interrupts
from etude.train.memory.checkpoint.content import Content
from etude.train.memory.checkpoint.naming import checkpoint_folder
from etude.train.memory.keeper import Keeper
from etude.train.memory.portable import TASK_FILE, describe_task
from etude.train.memory.state import EpochLoss, State
from etude.train.optim.slot import Slot
from etude.train.rows import head, step_row
from etude.train.step.outcome import Outcome
from etude.train.step.pieces import evaluated
from etude.train.step.update import Update
from etude.train.stopping import Stopping
from etude.train.task import Task
from etude.train.values import Values
from etude.train.watch.callback import Events, RunView, read_only
from etude.train.watch.pace import Pace
from etude.train.watch.record import Record

Group = list[Delivery]


@dataclass(frozen=True)
class Moments:
    """When a run does what."""

    log: Duration
    validate: Duration
    save: Duration
    until: Sequence[Duration]
    not_before: Duration | None = None


@dataclass
class Training:
    """Everything that one run is made of."""

    task: Task
    feed: Feed
    validation: Feed | None
    moments: Moments
    update: Update
    slots: Sequence[Slot]
    accumulate: Callable[[Progress], int]
    values: Values
    state: State
    stopping: Stopping
    average: Average | NoAverage
    record: Record
    keeper: Keeper
    interrupts: Interrupts
    device: torch.device
    say: Callable[[str], None]
    seed: int = 1
    sanity_batches: int = 2
    max_skipped: int = 5
    max_failed_saves: int = 3
    events: Events = field(default_factory=lambda: Events(()))
    config: Mapping[str, Any] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    """What the last validation measured."""
    driven: Mapping[str, Driven] = field(default_factory=dict)
    """The schedules that follow validation results."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """The data by split, for callbacks."""
    tbptt_steps: int | None = None
    carry_hiddens: bool = False
    horizon_steps: float | None = None
    """The length of the run that its schedules are bound to."""
    finished: End | None = None
    """Why there was nothing left to do when the run was loaded."""
    pause: Duration | None = None

    def __post_init__(self) -> None:
        self._outcome = Outcome()
        self._epoch_loss = EpochLoss()
        self.state.parts["epoch loss"] = self._epoch_loss
        self.state.parts |= self.values.parts()
        self._begun = perf_counter()
        self._seconds = 0.0
        self._pace = Pace(self.device, self.update.dtype)
        self._failed_saves = 0
        self._cut: int | None = None
        self._batch: Any = None
        self._validation_due = True
        self._seen = read_only(self.config)

    # -- begin and end -------------------------------------------------------------------------------------------

    def begin(self) -> End | None:
        """Prepare the first step; what ended the run, where none is left."""
        progress = self.state.progress
        self._seconds, self._begun = progress.seconds, perf_counter()
        self.task.train()
        end = self.finished or self.ending()
        if end is None and progress.step == 0:
            self._sanity_check()
        self.events.fit_start()
        self._pace.restart(progress)
        return end

    def end(self, end: End) -> End:
        """Wait for the last save; tell everybody."""
        self.events.stop(end.says)
        self.keeper.wait()
        self.events.fit_end(end.says)
        return end

    def _sanity_check(self) -> None:
        if self.validation is None or self.sanity_batches == 0:
            return
        metrics = self._evaluate(islice(self.validation.epoch(0), self.sanity_batches), Events(()))
        self._check_monitor(metrics)
        for schedule in self.driven.values():
            schedule.check(metrics)

    def _check_monitor(self, metrics: Mapping[str, float]) -> None:
        """Refuse a metric that nothing gives; one of training is known once a step was logged."""
        monitor, logged = self.stopping.monitor, self.record.last
        by_epoch = {"val/epoch_loss"} if "val/loss" in metrics else set()
        by_training = monitor.startswith("train/") and ("train/loss" not in logged or monitor == "train/epoch_loss")
        known = {*metrics, *by_epoch, *(name for name in logged if name.startswith("train/"))}
        if monitor in known and self.stopping.unknown is not None:
            raise self.stopping.unknown
        if monitor not in known and not by_training:
            raise ConfigError(
                f"train.monitor is {monitor!r}, which this run does not log; it logs {', '.join(sorted(known))}."
            )

    def view(self) -> RunView:
        """What callbacks see."""
        return RunView(
            progress=self.state.progress,
            task=self.task,
            config=self._seen,
            metrics=MappingProxyType(self.record.last),
            folder=self.keeper.folder,
            validation_due=self._validation_due,
            data=self.data,
            best_step=self.stopping.best_step,
        )

    # -- one step ------------------------------------------------------------------------------------------------

    def groups(self) -> Iterator[Group]:
        """The batches of each step, from the position in State to the end of the epoch."""
        state = self.state
        if state.position is None:
            self.values.begin_epoch(state.progress)
            self.update.hiddens.forget()
            self.events.epoch_start()
        found = False
        with closing(self.feed.epoch(state.progress.epoch, state.position)) as batches:  # type: ignore[type-var]
            while True:
                begun = perf_counter()
                group = list(islice(batches, self.accumulate(state.progress)))
                self._pace.wait(perf_counter() - begun)
                if not group:
                    break
                found = True
                yield group
                if group[-1].last:
                    return
        if not found and state.position is None:
            raise DataError("The training data holds no batch.")

    def step(self, group: Group) -> tuple[Progress, Progress]:
        """Take one step; return the progress before and after it."""
        state, before = self.state, self.state.progress
        self.events.step_start()
        self.values.set(before)
        last = group[-1]
        firsts = [delivery.piece == 0 for delivery in group]
        outcome = self.update([delivery.batch for delivery in group], before, firsts, ends=last.ends)
        self._outcome = outcome
        if outcome.finite:
            self.average.update()
            state.skipped_in_a_row = 0
            self._epoch_loss.add(outcome.terms)
        else:
            self._skipped(in_a_row=not outcome.overflowed)
        state.position = None if last.last else last.position
        tokens = outcome.tokens
        state.progress = now = Progress(
            step=before.step + 1,
            batch=before.batch + sum([delivery.ends for delivery in group]),
            epoch=before.epoch + last.last,
            samples=before.samples + sum([delivery.samples for delivery in group]),
            tokens=before.tokens + int(tokens),
            seconds=self._seconds + perf_counter() - self._begun,
            epoch_done=0 if last.last else last.done,
            epoch_total=self.feed.epoch_total,
        )
        self._batch = last.batch
        for slot in self.slots:
            slot.follow(before, now)
        self.events.step_end(outcome)
        if last.last:
            self.events.loader_exhausted()
            self.events.epoch_end()
        return before, now

    def _skipped(self, *, in_a_row: bool) -> None:
        """Count a skipped step; one that only the scale of narrow numbers made overflow is no sign of divergence."""
        state = self.state
        state.skipped += 1
        state.skipped_in_a_row += in_a_row
        step = state.progress.step + 1
        self.say(f"Step {step}: the loss or its gradient is not finite; the step is skipped ({state.skipped} so far).")
        count = state.skipped_in_a_row
        if count >= self.max_skipped:
            self.keeper.wait()
            if self.keeper.last is None and self.keeper.folder is not None:
                state.skipped, state.skipped_in_a_row = state.skipped - 1, state.skipped_in_a_row - 1
                self.save(best=False, end=None)  # as before this step: no step that was skipped changed a weight
                self.keeper.wait()
            last = self.keeper.last
            raise DivergedError(
                f"The loss or its gradient was not finite in {count} steps in a row (to step {step}); "
                f"the last finite checkpoint is {last or 'none'}. A lower learning rate or clip_grad may help."
            )

    # -- log, validate, save -------------------------------------------------------------------------------------

    def log(self) -> None:
        """Write the step's own loss, every scheduled value, gradient norm and throughput."""
        state, progress = self.state, self.state.progress
        row = head(progress) | {"samples": progress.samples}
        row |= step_row(self._outcome, self.update.scalars.read(), self.slots, self.values)
        if state.skipped:
            row["train/skipped_steps"] = state.skipped
        padding = getattr(self._batch, "padding", None)
        if padding is not None:
            row["train/padding"] = padding
        if state.position is None:
            epoch_loss = self._epoch_loss.close()
            if epoch_loss is not None:
                row["train/epoch_loss"] = epoch_loss
        self.record.write(row | self._pace.take(progress, self.task.flops_per_token(self._batch)))

    def _evaluate(self, deliveries: Any, events: Events) -> dict[str, float]:
        self.task.progress = self.state.progress
        step, deliveries = evaluated(
            self.task, self.task.validation_step, deliveries, steps=self.tbptt_steps, carry=self.carry_hiddens
        )
        with self.average.applied():
            return evaluate(
                self.task,
                deliveries,
                step,
                prefix="val",
                device=self.device,
                seed=self.seed,
                weigh=self.update.weigh,
                before=events.validation_batch_start,
                after=events.validation_batch_end,
            )

    def validate(self, *, due: bool = True) -> bool:
        """Validate, log, and say whether it was the best so far."""
        if self.validation is None:
            return False
        begun = perf_counter()
        self._validation_due = due
        self.events.validation_start()
        self.metrics = metrics = self._evaluate(self.validation.epoch(0), self.events)
        if self.state.position is None and "val/loss" in metrics:
            metrics["val/epoch_loss"] = metrics["val/loss"]
        row = head(self.state.progress) | metrics | {"time/validation_seconds": perf_counter() - begun}
        self.record.write(row)
        self._check_monitor(metrics)
        improved, value = self._judge(metrics, due=due)
        if due:
            for slot in self.slots:
                slot.follow_validation(value)
            for schedule in self.driven.values():
                schedule.follow_validation(metrics, self.state.progress)
        self.events.validation_end(MappingProxyType(metrics))
        self._pace.leave_out(perf_counter() - begun)
        return improved

    def _judge(self, metrics: Mapping[str, float], *, due: bool) -> tuple[bool, float]:
        """Whether the validation was the best so far, and what it is judged by."""
        monitor = self.stopping.monitor
        if monitor.endswith("/epoch_loss") and self.state.position is not None:
            return False, math.nan  # an epoch's loss judges at epochs' ends alone
        value = metrics.get(monitor, self.record.last.get(monitor, math.nan))
        return self.stopping.record(value, self.state.progress, due=due), value

    def round_off(self, end: End, *, logged: bool, validated: bool) -> bool:
        """Log and validate at the end of a run where that was not due; whether it is the best so far.

        Such a validation moves no patience, and its rows are cut again when the run goes on, so that a longer run
        equals a straight one. An interrupted run only saves, and one that pauses.
        """
        if end.goes_on or (logged and validated):
            return False
        self._cut = self.record.size()
        if not logged:
            self.log()
        return not validated and self.validate(due=False)

    def ending(self) -> End | None:
        """What ends the run after this step, or None."""
        progress, moments = self.state.progress, self.moments
        for duration in moments.until:
            if duration.reached(progress):
                return End(Kind.LENGTH, f"max_duration reached: {duration}")
        if self.interrupts.received is not None:
            return End(Kind.INTERRUPTED, f"interrupted by {self.interrupts.received.name}")
        if self.pause is not None and self.pause.reached(progress):
            return End(Kind.PAUSED, f"paused at {self.pause}")
        if moments.not_before is not None and not moments.not_before.reached(progress):
            return None
        if (waited := self.stopping.reason()) is not None:
            return End(Kind.PATIENCE, f"early stopping: {waited}")
        asked = self.events.stop_reason
        return None if asked is None else End(Kind.ASKED, asked)

    def save(self, *, best: bool, end: End | None) -> None:
        """Save a checkpoint; a failure is told of, and ends the run when it is one too many."""
        begun = perf_counter()
        self._finish_save(final=False)
        try:
            size = self.record.size()
        except StorageError as error:  # a checkpoint counts no row that is not durable
            self._save_failed(error, final=end is not None)
            return
        ended = None if end is None else {**end.state_dict(), "until": [str(d) for d in self.moments.until]}
        content = self._capture(ended, size if self._cut is None else self._cut)
        self.keeper.save(content, best=best or self.validation is None, ranking=self.stopping.ranking)
        if end is not None:
            self._finish_save(final=True)
        folder = self.keeper.folder
        self.events.save(folder and checkpoint_folder(folder, self.state.progress.step))
        self._pace.leave_out(perf_counter() - begun)

    def _finish_save(self, *, final: bool) -> None:
        """Wait for the save that is being written; a failed one is told of."""
        try:
            if self.keeper.wait():
                self._failed_saves = 0
        except StorageError as error:
            self._save_failed(error, final=final)

    def _save_failed(self, error: StorageError, *, final: bool) -> None:
        self._failed_saves += 1
        if final or self._failed_saves >= self.max_failed_saves:
            raise error
        self.say(f"{error} Training goes on and tries again at the next save.")

    def _capture(self, ended: Mapping[str, Any] | None, rows: int) -> Content:
        """The run as it stands; `rows` are the bytes of the record that belong to it."""
        state = self.state.state_dict()
        state["record"] = {"bytes": rows}
        state["ended"] = ended
        state["horizon"] = self.horizon_steps
        return Content.capture(
            self.state.progress.step,
            model=self.task.state_dict(),
            averaged=self.average.weights(),
            optimizers={slot.name: slot.state_dict() for slot in self.slots},
            state=state,
            extra={TASK_FILE: describe_task(self.task)},
            about={
                "config": sha256(json.dumps(dict(self.config), sort_keys=True, default=str).encode()).hexdigest(),
                "versions": {"etude": version("etude"), "torch": torch.__version__, "numpy": np.__version__},
                "metrics": {key: value for key, value in self.metrics.items() if math.isfinite(value)},
            },
        )
