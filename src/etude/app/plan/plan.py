"""The plan of a run: every scheduled value, and the steps of its evaluations, saves, log lines and end, untrained."""

import dataclasses
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from etude.app.plan.turns import DENSE, grid, thinned, turns
from etude.app.plan.walk import Course, walk
from etude.app.running import build_job
from etude.app.runs.folder import CONFIG, compare
from etude.base.config.loading import Loaded
from etude.base.durations import Duration
from etude.base.errors import ConfigError, RefusedError
from etude.base.horizon import Horizon
from etude.tasks.config import Config
from etude.tasks.own import task_type
from etude.train.fit import as_durations
from etude.train.fit import prepare as prepare_run
from etude.train.interrupt import Interrupts
from etude.train.length import horizon as horizon_of
from etude.train.memory.checkpoint.naming import checkpoint_step
from etude.train.memory.checkpoint.store import LAST, Store
from etude.train.rows import head
from etude.train.run import Run
from etude.train.step.outcome import Outcome
from etude.train.watch.callback import Events

MOST = 1_000_000
"""Steps that are listed of one kind of moment."""
SHOWN = 300
"""Epochs' ends, and moments of a kind, that have a row of their own in a long run."""
NOT_SCHEDULED = ("train/loss", "train/grad_norm")
PREFIX = "train/"
VALIDATE, SAVE, LOG = "validate", "save", "log"

Say = Callable[[str], None]


@dataclass(frozen=True)
class Row:
    """One step as it will be: the values that it is taken with, and what follows it."""

    step: int
    """Counted from 1, as in `metrics.jsonl`."""
    epoch: float
    """Where the run stands after it, as it is logged."""
    samples: int
    tokens: int
    values: Mapping[str, float]
    """By the name that each is logged under, such as `train/learning_rate`."""
    events: tuple[str, ...] = ()
    """Which of `log`, `validate` and `save` follow it."""


@dataclass(frozen=True)
class Plan:
    """What a run will do."""

    run: str
    """Its name."""
    steps: int
    """The last step of the plan."""
    epochs: float
    tokens: int
    reason: str | None
    """Why the run ends with that step; None where only the plan does."""
    estimated: tuple[str, ...]
    """Which of `steps`, `epochs` and `tokens` were not counted, but taken to be like those of an epoch before."""
    horizon: Horizon
    """What the schedules that reach to the end of the run are bound to."""
    rows: tuple[Row, ...]
    """Every step of a short run; of a long one a thousand, and all at which something changes or happens."""
    moments: Mapping[str, tuple[int, ...]]
    """The steps after which the run validates, saves and logs, by `validate`, `save` and `log`."""
    turns: tuple[int, ...]
    """Steps at which a value takes another course: the end of a warm-up, a stair."""
    following: tuple[str, ...]
    """Names of values that fall by the results of validations; their plan holds no fall."""
    notes: tuple[str, ...]
    """What else is to be known, in sentences."""

    @property
    def names(self) -> tuple[str, ...]:
        """The scheduled values, as they are logged."""
        return tuple(self.rows[0].values)


def plan(loaded: Loaded[Config], *, steps: int | None = None, say: Say = lambda _: None) -> Plan:
    """Plan the run of this config, or the first `steps` of it; what is read and built is told to `say`.

    Data are read and every part is built as in training, in a folder that is removed afterwards. Raises what training
    would raise before its first step.
    """
    if steps is not None and steps < 1:
        raise ConfigError(f"--steps must be at least 1, but is {steps}.")
    standing = list(_standing(loaded))
    with tempfile.TemporaryDirectory(prefix="etude-plan-") as temporary:
        apart = _apart(loaded, Path(temporary))
        with apart.naming_places():
            folder = apart.config.folder
            folder.mkdir(parents=True)
            job = build_job(apart, folder, lambda text: None if text.startswith("Run folder") else say(text))
            job.folder, job.callbacks, job.loggers = None, (), ()
            try:
                run = prepare_run(job, Interrupts())
                run.events = Events(())  # no epoch begins, whoever may listen
                until = as_durations(job.config.max_duration)
                horizon = horizon_of(until, run.feed, job.config.accumulate)
                clocked = all(duration.unit == "seconds" for duration in until)
                course = walk(run, most=steps, epochs=1 if clocked and steps is None else None)
                return _Writer(loaded, run, course, horizon, steps).plan(standing)
            finally:
                job.train.close()


class _Writer:
    """Writes down what a course means for a run."""

    def __init__(self, loaded: Loaded[Config], run: Run, course: Course, horizon: Horizon, most: int | None) -> None:
        self._loaded = loaded
        self._run = run
        self._course = course
        self._horizon = horizon
        self._most = most
        self._cut: list[str] = []
        self._known: dict[int, dict[str, float]] = {}

    def plan(self, notes: Sequence[str]) -> Plan:
        """The plan."""
        course = self._course
        moments = self._moments()
        turning = turns(self.values, course.steps)
        end = course.at(course.steps)
        return Plan(
            run=self._loaded.config.run.name,
            steps=course.steps,
            epochs=end.epochs,
            tokens=end.tokens,
            reason=course.reason,
            estimated=tuple(self._estimated()),
            horizon=self._horizon,
            rows=tuple(self._rows(turning, moments)),
            moments=moments,
            turns=tuple(turning),
            following=tuple(self._following()),
            notes=(*notes, *self._notes()),
        )

    def values(self, step: int) -> dict[str, float]:
        """What step number `step` is taken with, set and read as in training."""
        if step not in self._known:
            learner, before = self._run.learner, self._course.at(step - 1)
            learner.values.look(self._course.epoch_of(step).start, before)
            for slot in learner.slots:
                slot.steps = before.step
                slot.set_rates(before)
                if slot.is_frozen:
                    raise ConfigError(
                        f"Every parameter of the optimizer {slot.name!r} is frozen at step {step:,}, so there is "
                        f"nothing to learn; leave one of them trainable."
                    )
            row = learner.row(Outcome())
            self._known[step] = {name: value for name, value in row.items() if name not in NOT_SCHEDULED}
        return self._known[step]

    def _moments(self) -> dict[str, tuple[int, ...]]:
        """Log lines, validations and saves, as the loop comes to them."""
        when, course = self._run.moments, self._course
        end = () if course.reason is None else (course.steps,)
        ends = list(islice(course.ends_of_epochs(), MOST))
        found = {LOG: (*self._due(when.log, LOG), *ends, *end), VALIDATE: (), SAVE: (*self._due(when.save, SAVE), *end)}
        if self._run.validation.feed is not None:
            found[VALIDATE] = (*self._due(when.validate, VALIDATE), *end)
        return {name: tuple(sorted(set(steps))) for name, steps in found.items()}

    def _due(self, every: Duration, name: str) -> list[int]:
        steps = list(islice(self._course.moments(every), MOST))
        if len(steps) == MOST and steps[-1] != self._course.steps:
            self._cut.append(f"Of {name}, only the first {MOST:,} steps are listed.")
        return steps

    def _rows(self, turning: Sequence[int], moments: Mapping[str, Sequence[int]]) -> Iterator[Row]:
        last = self._course.steps
        steps = {*grid(last), *turning, *(step - 1 for step in turning if step > 1)}
        if last > DENSE:
            steps.update(thinned(list(self._course.ends_of_epochs()), SHOWN))
            for name in (VALIDATE, SAVE):
                steps.update(thinned(moments[name], SHOWN))
        sets = {name: set(found) for name, found in moments.items()}
        for step in sorted(steps):
            after = self._course.at(step)
            events = tuple(name for name in (LOG, VALIDATE, SAVE) if step in sets[name])
            yield Row(step, head(after)["epoch"], after.samples, after.tokens, self.values(step), events)

    def _following(self) -> Iterator[str]:
        """The values that would change if validations went badly."""
        names = [
            *self._run.learner.values.driven,
            *(key for slot in self._run.learner.slots for key in _driven_keys(slot.driven())),
        ]
        return (name for name in self.values(1) if any(_is_called(name, one) for one in names))

    def _estimated(self) -> Iterator[str]:
        """What is not known for sure of the run's length."""
        config, course = self._loaded.config, self._course
        seen = course.looked == course.steps
        own = task_type(config).counts_all_targets(config)
        counted = course.counted and own and config.train.tbptt_steps is None
        tokens = seen and counted
        batches = seen or self._run.feed.exact
        known = {"steps": True, "seconds": True, "tokens": tokens}
        until = self._run.moments.until
        steps = course.reason is None or all(known.get(duration.unit, batches) for duration in until)
        sure = {"steps": steps, "epochs": steps and batches, "tokens": steps and tokens}
        return (name for name, is_sure in sure.items() if not is_sure)

    def _notes(self) -> Iterator[str]:
        run, train = self._run, self._loaded.config.train
        clock = [duration for duration in run.moments.until if duration.unit == "seconds"]
        if clock:
            told = " or ".join(str(duration) for duration in clock)
            alone = len(clock) == len(run.moments.until)
            how = (
                "alone bounds the run, which has no length that a plan could know"
                if alone
                else "may end the run earlier than the plan"
            )
            more = "; --steps N plans further than the first epoch" if alone and self._most is None else ""
            yield f"train.max_duration = {told}, by the clock, {how}{more}."
        when = run.moments
        for key, every in (("log_every", when.log), ("eval_every", when.validate), ("save_every", when.save)):
            if every.unit == "seconds":
                yield f"train.{key} = {every} follows the clock: no such moment is in the plan."
        if train.patience is not None and run.validation.feed is not None:
            waits = f"{train.patience} validations" if isinstance(train.patience, int) else f"{train.patience}"
            least = "" if train.min_duration is None else f", though not before {train.min_duration}"
            yield f"The run ends earlier where {train.monitor} has not improved for {waits}{least}."
        if run.validation.feed is not None:
            yield "A validation that is the best so far saves too."
        yield from self._cut


def _driven_keys(driven: Iterable[str]) -> Iterator[str]:
    """What the schedules of an optimizer drive: the last word of their names, as it is logged."""
    for name in driven:
        key = name.rpartition(" ")[2]
        yield "learning_rate" if key == "lr" else key


def _is_called(logged: str, name: str) -> bool:
    return logged == PREFIX + name or logged.startswith(f"{PREFIX}{name}/")


def _apart(loaded: Loaded[Config], folder: Path) -> Loaded[Config]:
    """The same run in another place, with nothing that a plan has no use for."""
    config = loaded.config
    sections: dict[str, Any] = {
        "run": config.run.model_copy(update={"dir": folder}),
        "data": config.data.without_workers(),
        "train": config.train.model_copy(update={"device": "cpu", "compile": False}),
    }
    data = {**loaded.data, "run": {**loaded.data["run"], "dir": str(folder)}}
    return dataclasses.replace(loaded, config=config.model_copy(update=sections), data=data)


def _standing(loaded: Loaded[Config]) -> Iterator[str]:
    """Where the run of this config stands, if it was begun."""
    yield from getattr(loaded, "notes", ())
    folder = loaded.config.folder
    if not (folder / CONFIG).is_file():
        return
    last = Store(folder / "checkpoints").link(LAST)
    if last is None:
        yield f"{folder} is there, and has saved nothing yet."
        return
    yield f"{folder} stands at step {checkpoint_step(last):,}; the plan is that of the config from its first step."
    try:
        yield from compare(loaded, folder)
    except RefusedError as error:
        yield f"It cannot go on with this config: {error}"
