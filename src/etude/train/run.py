"""When and where: a run, and what happens at each of its moments. What is learnt is the business of its `Learner`."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from time import perf_counter
from types import MappingProxyType
from typing import Any

from etude.base.durations import Duration
from etude.base.errors import DataError, DistributedError, DivergedError
from etude.base.progress import Progress
from etude.data.feeds.feed import Delivery, Feed
from etude.train.driver import Moments
from etude.train.end import End, Kind
from etude.train.evaluate import train
from etude.train.interrupt import Interrupts
from etude.train.learner import Group, Learner
from etude.train.memory.state import EpochLoss, State
from etude.train.rows import head
from etude.train.saving import Saves
from etude.train.step.outcome import Outcome
from etude.train.together import average, difference
from etude.train.validating import Validation
from etude.train.watch.callback import RunView
from etude.train.watch.events import Events
from etude.train.watch.pace import Pace
from etude.train.watch.record import Record
from etude.train.world import World


@dataclass
class Run:
    """One run: what the loop drives."""

    learner: Learner
    feed: Feed
    moments: Moments
    state: State
    validation: Validation
    record: Record
    saves: Saves
    events: Events
    interrupts: Interrupts
    pace: Pace
    epoch_loss: EpochLoss
    world: World
    say: Callable[[str], None]
    config: Mapping[str, Any] = field(default_factory=dict)
    """For callbacks, as is `data`, by split; nothing in either can be changed."""
    data: Mapping[str, Any] = field(default_factory=dict)
    max_skipped: int = 5
    averaging: Duration | None = None
    """How often ranks that step by themselves average their weights; what else is due waits for it."""
    checking: Duration | None = None
    """How often ranks compare their weights."""
    pause: Duration | None = None
    through: Callable[[Feed], Feed] = lambda feed: feed
    """What the batches of another structure are looked at through."""
    finished: End | None = None
    """What had ended the run when it was loaded, where nothing was left to do."""

    def __post_init__(self) -> None:
        self.learner.among.along.tell = self.tell
        self._outcome = Outcome()
        self._last: Delivery | None = None
        self._begun = perf_counter()
        self._seconds = 0.0
        self._averaged = Progress()
        """Where ranks that step by themselves last averaged their weights."""

    # -- begin and end -------------------------------------------------------------------------------------------

    def begin(self) -> End | None:
        """Prepare the first step; what ended the run, where none is left."""
        progress = self.state.progress
        self._seconds, self._begun = progress.seconds, perf_counter()
        self._averaged = progress
        train(self.learner.task, self.learner.slots, self.say)
        end = self.finished or (self._ending() if self.world.size == 1 else self._agreed())
        if end is None and progress.step == 0:
            self.validation.try_out(progress)
        self.events.fit_start()
        self.pace.restart(progress)
        return end

    def ending(self) -> End | None:
        """What ends the run after this step, or None; the same on every rank.

        Ranks ask each other only where all of them see an end, or where one has said in the step that it wants one.
        """
        if self.world.size == 1:
            return self._ending()
        if self.averaging is not None and self._averaged != self.state.progress:
            return None
        wanted = self.learner.among.along.heard.get("asked", 0) > 0
        return self._agreed() if wanted or self._reached() or self._waited() else None

    def _agreed(self) -> End | None:
        """The end that the first rank with one has."""
        found = self.world.agree(None if (end := self._ending()) is None else (end, self.interrupts.received))
        if found is None:
            return None
        end, received = found
        if end.kind is Kind.INTERRUPTED:
            self.interrupts.received = received
        return end

    def tell(self) -> dict[str, float]:
        """What this rank says to the others in each step: whether it wants an end, and the first one's clock."""
        asked = self.interrupts.received is not None or self.events.requested is not None
        now = self._seconds + perf_counter() - self._begun
        return {"asked": asked, "seconds": now if self.world.is_first else 0.0}

    def _ending(self) -> End | None:
        return self._reached() or self._interrupted() or self._asked_to_stop()

    def _reached(self) -> End | None:
        """The end of a run that is as long as it was to be."""
        for duration in self.moments.until:
            if duration.reached(self.state.progress):
                return End.at(duration)
        return None

    def _interrupted(self) -> End | None:
        """The end of a run that goes on another time."""
        if self.interrupts.received is not None:
            return End(Kind.INTERRUPTED, f"interrupted by {self.interrupts.received.name}")
        if self.pause is not None and self.pause.reached(self.state.progress):
            return End(Kind.PAUSED, f"paused at {self.pause}")
        return None

    def _asked_to_stop(self) -> End | None:
        """The end that patience or a callback asks for, once the run may end by them."""
        not_before = self.moments.not_before
        if not_before is not None and not not_before.reached(self.state.progress):
            return None
        if (end := self._waited()) is not None:
            return end
        asked = self.events.stop_reason
        return None if asked is None else End(Kind.ASKED, asked)

    def _waited(self) -> End | None:
        """The end that patience asks for."""
        waited = self.validation.stopping.reason()
        return None if waited is None else End(Kind.PATIENCE, f"early stopping: {waited}")

    def end(self, end: End) -> End:
        """Wait for the last save; tell everybody."""
        self.events.stop(end.says)
        self.saves.keeper.wait()
        self.learner.end()
        self.events.fit_end(end.says)
        return end

    def view(self) -> RunView:
        """What callbacks see."""
        return RunView(
            progress=self.state.progress,
            task=self.learner.task,
            config=self.config,
            metrics=MappingProxyType(self.record.last),
            folder=self.saves.keeper.folder,
            validation_due=self.validation.is_due,
            data=self.data,
            best_step=self.validation.stopping.best_step,
        )

    # -- one step ------------------------------------------------------------------------------------------------

    def groups(self) -> Iterator[Group]:
        """The batches of each step, from the position in State to the end of the epoch."""
        state = self.state
        if state.position is None:
            self._begin_epoch()
            self.events.epoch_start()
        found = False
        with closing(self.feed.epoch(state.progress.epoch, state.position)) as batches:  # type: ignore[type-var]
            while True:
                begun = perf_counter()
                group = list(islice(batches, self.learner.group_size(state.progress)))
                self.pace.wait(perf_counter() - begun)
                if not group:
                    break
                found = True
                yield group
                if group[-1].last:
                    return
        if not found and state.position is None:
            raise DataError("The training data holds no batch.")

    def _begin_epoch(self) -> None:
        """Let the learner take up what the epoch is made with; of another structure its data are taken up as well."""
        progress = self.state.progress
        change = self.learner.begin_epoch(progress)
        if change is None:
            return
        self.take_up_data()
        if change.anew:
            self.validation.stopping.begin_anew(progress)
            self.learner.begin_anew()
            self.say("The loss is another from here on, so the best validation is looked for anew.")

    def take_up_data(self) -> None:
        """Let the batches be those of the structure that the task has."""
        self.feed, self.validation.feed = self.through(self.learner.feed), self.learner.judged_by
        self.state.own["data"] = self.learner.memory

    def step(self, group: Group) -> tuple[Progress, Progress]:
        """Take one step; return the progress before and after it."""
        state, before = self.state, self.state.progress
        self.events.step_start()
        self._outcome = outcome = self.learner.step(group, before)
        self._judge(outcome)
        self._last = last = group[-1]
        state.position = None if last.last else last.position
        state.progress = now = self._after(before, group, outcome)
        self.learner.follow(before, now)
        self.events.step_end(outcome)
        if last.last:
            self.events.loader_exhausted()
            self.events.epoch_end()
        return self._together(before, now)

    def _together(self, before: Progress, now: Progress) -> tuple[Progress, Progress]:
        """What the step is to whoever asks what is due: where ranks step by themselves, all since they last averaged.

        Raises DistributedError where the ranks should have the same weights, and have not.
        """
        if self.averaging is not None:
            ends = now.epoch > before.epoch or any(duration.reached(now) for duration in self.moments.until)
            if not ends and not self.averaging.due(before, now):
                return now, now
            learner = self.learner
            state = learner.state_dict()
            average(self.world, learner.task, state["averaged"], state["optimizers"])
            before, self._averaged = self._averaged, now
        if (
            self.checking is not None
            and self.checking.due(before, now)
            and (told := difference(self.learner.among, self.learner.task))
        ):
            raise DistributedError(
                f"The ranks no longer have the same weights at step {now.step:,}: {told}. Is something random or "
                f"different on each, such as a callback that changes weights?"
            )
        return before, now

    def _after(self, before: Progress, group: Group, outcome: Outcome) -> Progress:
        """The progress after the step of `group`."""
        last, ended = group[-1], sum([delivery.ends for delivery in group])
        return Progress(
            step=before.step + 1,
            batch=before.batch + ended,
            epoch=before.epoch + last.last,
            samples=before.samples + sum([delivery.samples for delivery in group]),
            tokens=before.tokens + int(outcome.tokens),
            seconds=self._clock(before),
            epoch_done=0 if last.last else last.done,
            epoch_total=self._epoch_total(last),
            batch_in_epoch=0 if last.last else before.batch_in_epoch + ended,
        )

    def _clock(self, before: Progress) -> float:
        """Seconds of training so far; of several ranks by the first one's clock."""
        if self.world.size == 1:
            return self._seconds + perf_counter() - self._begun
        return self.learner.among.along.heard.get("seconds", before.seconds)

    def _epoch_total(self, last: Delivery) -> int:
        """What the epoch holds; of one that has gone on beyond what it was said to hold, more than is done of it."""
        total = self.feed.epoch_total
        return total if last.last or not total else max(total, last.done + 1)

    def _judge(self, outcome: Outcome) -> None:
        """Count a step as one that was taken, or as one that was not."""
        if not outcome.finite:
            self._skipped(in_a_row=not outcome.overflowed)
        elif outcome.moves:
            self.state.skipped_in_a_row = 0
            self.epoch_loss.add(outcome.terms)
        if outcome.without_targets:
            self._without_targets(outcome.without_targets)

    def _without_targets(self, batches: int) -> None:
        """Count batches in which no target counts, and tell of the first."""
        if not self.state.without_targets:
            self.say(
                f"Step {self.state.progress.step + 1}: no target in a batch counts. Such batches add nothing, a step "
                f"of them alone changes nothing, and they are counted as train/batches_without_targets."
            )
        self.state.without_targets += batches

    def _skipped(self, *, in_a_row: bool) -> None:
        """Count a skipped step; one that only the scale of narrow numbers made overflow is no sign of divergence."""
        state = self.state
        state.skipped += 1
        state.skipped_in_a_row += in_a_row
        step = state.progress.step + 1
        self.say(f"Step {step}: the loss or its gradient is not finite; the step is skipped ({state.skipped} so far).")
        if state.skipped_in_a_row >= self.max_skipped:
            self._diverged(state.skipped_in_a_row, step)

    def _diverged(self, count: int, step: int) -> None:
        """End the run by an error; where it has saved nothing, as it was before this step is what is kept."""
        state, keeper = self.state, self.saves.keeper
        keeper.wait()
        if keeper.last is None and keeper.folder is not None:
            state.skipped, state.skipped_in_a_row = state.skipped - 1, state.skipped_in_a_row - 1
            self.save(best=False, end=None)  # no step that was skipped changed a weight
            keeper.wait()
        since, told = self._unsound_since()
        raise DivergedError(
            f"The loss or its gradient was not finite in {count} steps in a row (to step {step}), of which the first "
            f"was step {step - count + 1}{told}; the last checkpoint before them is "
            f"{keeper.newest_before(since) or 'none'}. A lower learning rate or clip_grad may help."
        )

    def _unsound_since(self) -> tuple[int | None, str]:
        """From which step on checkpoints are none to go back to, by their validation or weights, and a clause on it."""
        judged = self.record.not_finite_since({self.validation.stopping.monitor, "val/loss"})
        broken = self.saves.broken_since
        told = "" if judged is None else f", after validations that were not finite from step {judged} on"
        told += "" if broken is None else f", after weights that were not finite from step {broken} on"
        return min(filter(None, (judged, broken)), default=None), told

    # -- log, validate, save -------------------------------------------------------------------------------------

    def log(self) -> None:
        """Write the step's own loss, every scheduled value, gradient norm and throughput."""
        state, progress, task = self.state, self.state.progress, self.learner.task
        batch = None if self._last is None else self._last.batch
        row = head(progress) | {"samples": progress.samples} | self.learner.row(self._outcome)
        optional = {
            "train/skipped_steps": state.skipped or None,
            "train/batches_without_targets": state.without_targets or None,
            "train/padding": task.padding_of(batch),
            "train/epoch_loss": self.epoch_loss.close() if state.position is None else None,
        }
        row |= {name: value for name, value in optional.items() if value is not None}
        self.record.write(row | self.pace.take(progress, task.flops_per_token(batch)))

    def validate(self, *, due: bool = True) -> bool:
        """Validate, log, and say whether it was the best so far."""
        begun = perf_counter()
        improved = self.validation.run(self.state, due=due)
        self.pace.leave_out(perf_counter() - begun)
        return improved

    def round_off(self, end: End, *, logged: bool, validated: bool) -> bool:
        """Log and validate at the end of a run where that was not due; whether it is the best so far.

        Such a validation moves no patience, and its rows are cut again when the run goes on, so that a longer run
        equals a straight one. An interrupted run only saves, and one that pauses.
        """
        if end.goes_on or (logged and validated):
            return False
        self.saves.cut = self.record.mark()
        if not logged:
            self.log()
        return not validated and self.validate(due=False)

    def save(self, *, best: bool, end: End | None) -> None:
        """Save a checkpoint; a failure is told of, and ends the run when it is one too many."""
        begun = perf_counter()
        self.state.end = end
        self.state.of_ranks = [] if self.world.size == 1 else self.world.gather(self.state.of_this_rank())
        if self.saves.save(self.learner, self.state, best=best or self.validation.feed is None):
            self.events.save(self.saves.folder(self.state.progress.step))
        self.pace.leave_out(perf_counter() - begun)
