"""The plan of a run: every scheduled value, and the steps of its evaluations, saves, log lines and end, untrained."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from etude.app.dry_run import dry_run
from etude.app.plan.notes import growth, notes_of, standing
from etude.app.plan.turns import DENSE, grid, thinned, turns
from etude.app.plan.walk import Course, walk
from etude.base.durations import Duration
from etude.base.errors import ConfigError
from etude.base.horizon import Horizon
from etude.base.progress import Progress
from etude.base.says import Say, unheard
from etude.tasks.config import Config, LoadedConfig
from etude.tasks.own import task_type
from etude.train.fit import as_durations
from etude.train.fit import prepare as prepare_run
from etude.train.interrupt import Interrupts
from etude.train.learner import Learner
from etude.train.length import horizon as horizon_of
from etude.train.optim.slot import Slot
from etude.train.rows import head
from etude.train.run import Run
from etude.train.step.outcome import Outcome
from etude.train.watch.events import Events

MOST = 1_000_000
"""Steps that are listed of one kind of moment."""
SHOWN = 300
"""Epochs' ends, and moments of a kind, that have a row of their own in a long run."""
NOT_SCHEDULED = ("train/loss", "train/grad_norm")
PREFIX = "train/"
VALIDATE, SAVE, LOG = "validate", "save", "log"


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


def plan(loaded: LoadedConfig, *, steps: int | None = None, say: Say = unheard) -> Plan:
    """Plan the run of this config, or the first `steps` of it; what is read and built is told to `say`.

    Data are read and every part is built as in training, in a folder that is removed afterwards. Raises what training
    would raise before its first step.
    """
    if steps is not None and steps < 1:
        raise ConfigError(f"--steps must be at least 1, but is {steps}.")
    notes = list(standing(loaded))
    with dry_run(_bare(loaded), "plan", say) as (job, _):
        notes += growth(job.structure)
        run = prepare_run(job, Interrupts())
        run.events = Events(())  # no epoch begins, whoever may listen
        until = as_durations(job.config.max_duration)
        horizon = job.horizon or horizon_of(until, run.feed, job.config.accumulate)
        course = walk(run, most=steps, epochs=_epochs(until) if steps is None else None)
        return _Writer(loaded.config, run, course, horizon, steps).plan(notes)


def _epochs(until: Sequence[Duration]) -> int | None:
    """How many epochs to plan of a run: one, where the clock alone bounds it."""
    return 1 if all(duration.unit == "seconds" for duration in until) else None


def _bare(loaded: LoadedConfig) -> LoadedConfig:
    """The same run with nothing that a plan has no use for."""
    data, train = loaded.config.data, loaded.config.train
    sections: dict[str, object] = {
        "data": data.without_workers(),
        "train": train.model_copy(update={"device": "cpu", "compile": False}),
    }
    return dataclasses.replace(loaded, config=loaded.config.model_copy(update=sections))


class _Writer:
    """Writes down what a course means for a run."""

    def __init__(self, config: Config, run: Run, course: Course, horizon: Horizon, most: int | None) -> None:
        self._config = config
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
            run=self._config.run.name,
            steps=course.steps,
            epochs=end.epochs,
            tokens=end.tokens,
            reason=course.reason,
            estimated=tuple(name for name, is_sure in self._sure().items() if not is_sure),
            horizon=self._horizon,
            rows=tuple(self._rows(turning, moments)),
            moments=moments,
            turns=tuple(turning),
            following=tuple(self._following()),
            notes=(*notes, *notes_of(self._run, self._config.train, self._most), *self._cut),
        )

    def values(self, step: int) -> dict[str, float]:
        """What step number `step` is taken with, set and read as in training."""
        if step not in self._known:
            self._known[step] = self._looked_up(step)
        return self._known[step]

    def _looked_up(self, step: int) -> dict[str, float]:
        learner, before = self._run.learner, self._course.at(step - 1)
        learner.values.look(self._course.epoch_of(step).start, before)
        for slot in learner.slots:
            _set(slot, before)
        row = learner.row(Outcome())
        return {name: value for name, value in row.items() if name not in NOT_SCHEDULED}

    def _moments(self) -> dict[str, tuple[int, ...]]:
        """Log lines, validations and saves, as the loop comes to them."""
        when, course = self._run.moments, self._course
        end = () if course.reason is None else (course.steps,)
        ends = islice(course.ends_of_epochs(), MOST)
        found: dict[str, set[int]] = {
            LOG: {*self._due(when.log, LOG), *ends, *end},
            VALIDATE: set(),
            SAVE: {*self._due(when.save, SAVE), *end},
        }
        if self._run.validation.feed is not None:
            found[VALIDATE] = {*self._due(when.validate, VALIDATE), *end}
        return {name: tuple(sorted(steps)) for name, steps in found.items()}

    def _due(self, every: Duration, name: str) -> list[int]:
        steps = list(islice(self._course.moments(every), MOST))
        if len(steps) == MOST and steps[-1] != self._course.steps:
            self._cut.append(f"Of {name}, only the first {MOST:,} steps are listed.")
        return steps

    def _rows(self, turning: Sequence[int], moments: Mapping[str, Sequence[int]]) -> Iterator[Row]:
        """What is told of the steps that have a row."""
        sets = {name: frozenset(moments[name]) for name in (LOG, VALIDATE, SAVE)}
        return (self._row(step, sets) for step in sorted(self._steps_of_rows(turning, moments)))

    def _row(self, step: int, moments: Mapping[str, frozenset[int]]) -> Row:
        after = self._course.at(step)
        events = tuple(name for name, steps in moments.items() if step in steps)
        return Row(step, head(after)["epoch"], after.samples, after.tokens, self.values(step), events)

    def _steps_of_rows(self, turning: Sequence[int], moments: Mapping[str, Sequence[int]]) -> set[int]:
        """The steps that have a row: all of a short run."""
        last = self._course.steps
        steps = {*grid(last), *turning, *(step - 1 for step in turning if step > 1)}
        if last > DENSE:
            ends = list(self._course.ends_of_epochs())
            steps.update(*(thinned(one, SHOWN) for one in (ends, moments[VALIDATE], moments[SAVE])))
        return steps

    def _following(self) -> Iterator[str]:
        """The values that would change if validations went badly."""
        driven = list(_driven(self._run.learner))
        return (name for name in self.values(1) if _is_one_of(name, driven))

    def _sure(self) -> dict[str, bool]:
        """Which lengths of the run are known for sure."""
        course = self._course
        seen = course.looked == course.steps
        batches = seen or self._run.feed.exact
        tokens = seen and self._counts_targets()
        steps = course.reason is None or self._ends_where_known(batches=batches, tokens=tokens)
        return {"steps": steps, "epochs": steps and batches, "tokens": steps and tokens}

    def _ends_where_known(self, *, batches: bool, tokens: bool) -> bool:
        """Whether the step is known with which each length of the run is reached."""
        known = {"steps": True, "seconds": True, "tokens": tokens}
        return all(known.get(duration.unit, batches) for duration in self._run.moments.until)

    def _counts_targets(self) -> bool:
        """Whether the targets that were counted are those that the loss counts."""
        config = self._config
        own = task_type(config).counts_all_targets(config)
        return self._course.counted and own and config.train.tbptt_steps is None


def _set(slot: Slot, before: Progress) -> None:
    """Give an optimizer the rates of the step that comes at `before`."""
    slot.steps = before.step
    slot.set_rates(before)
    if slot.is_frozen:
        raise ConfigError(
            f"Every parameter of the optimizer {slot.name!r} is frozen at step {before.step + 1:,}, so there is "
            f"nothing to learn; leave one of them trainable."
        )


def _driven(learner: Learner) -> Iterator[str]:
    """What schedules drive that follow validations."""
    yield from learner.values.driven
    for slot in learner.slots:
        yield from map(_key_of, slot.driven())


def _key_of(driven: str) -> str:
    """What a schedule of an optimizer drives: the last word of its name, as it is logged."""
    key = driven.rpartition(" ")[2]
    return "learning_rate" if key == "lr" else key


def _is_one_of(logged: str, names: Iterable[str]) -> bool:
    """Whether a logged value is one of those, or a part of one."""
    return any(f"{logged}/".startswith(f"{PREFIX}{name}/") for name in names)
