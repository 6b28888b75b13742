"""Runs the trials of a sweep, some at a time, until none is left: here, and in every process that shares it."""

import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event, Thread
from time import monotonic, sleep
from typing import final

from etude.app.runs.folder import CONFIG, has_checkpoint
from etude.app.runs.pipelines import stages_in
from etude.app.stages.shared import is_held_up
from etude.app.sweep.child import SAVED, Child, command
from etude.app.sweep.plan import Plan
from etude.app.sweep.search import Pruning, Search
from etude.app.sweep.state.state import Ending, Stand, State, Trial
from etude.base.errors import ConfigError, EtudeError, StorageError
from etude.base.files import make_folder, replace_link, write_text
from etude.base.says import Say
from etude.base.signals import REQUEUE
from etude.train.interrupt import Interrupts
from etude.train.lock import is_locked

POLL_SECONDS, BEAT_SECONDS, WAIT_SECONDS = 0.1, 5.0, 1.0
BEST = "best"
ALIKE = 3
"""Failures with the same error after which "stop if alike" stops."""
PRUNED, INTERRUPTED, LOST, STOPPED = "pruned", "interrupted", "lost", "stopped"
_NUMBER = re.compile(r"\d[\d.,e+\-]*")


@dataclass(frozen=True)
class Jobs:
    """How many trials run at once, with how many threads each, and on which devices."""

    count: int = 1
    threads: int | None = None
    """None leaves it to each run."""
    devices: Sequence[str] = ()
    """Accelerators, as `CUDA_VISIBLE_DEVICES` names them, that are shared out among trials that run at once."""

    def environment(self, place: int) -> dict[str, str]:
        """That of a trial's process; `place` counts those that run at once."""
        given = {} if self.threads is None else {"OMP_NUM_THREADS": str(self.threads)}
        if self.count > 1 and len(self.devices) > 1:
            given["CUDA_VISIBLE_DEVICES"] = self.devices[place % len(self.devices)]
        return {**os.environ, **given}

    def __str__(self) -> str:
        many = "1 run at a time" if self.count == 1 else f"{self.count} runs at once"
        if self.threads is None:
            return f"{many}, as many threads as a run alone would have"
        return f"{many}, {self.threads} thread{'' if self.threads == 1 else 's'} each"


@final
class Worker:
    """One process's share of a sweep."""

    def __init__(
        self,
        plan: Plan,
        open_state: Callable[[], State],
        search: Search,
        pruning: Pruning,
        *,
        jobs: Jobs,
        say: Say,
        starts: Callable[[Path], Sequence[str]] = command,
    ) -> None:
        self._plan, self._open_state = plan, open_state
        self._search, self._pruning = search, pruning
        self._jobs, self._say, self._starts = jobs, say, starts
        self._state = open_state()
        self._children: list[Child] = []
        self._stopped = ""
        """Why no further trial is begun."""
        self._wrong: EtudeError | None = None
        """What is wrong with the sweep as a whole."""
        self._next_claim = self._next_look = 0.0
        self._found_none = False
        """Whether there was nothing to begin when this was last looked for."""
        self._told: set[str] = set()

    def run(self) -> None:
        """Run trials until none is left, or something ends the sweep.

        Raises Interrupted once the trials have saved after a signal, ConfigError where no run logs the metric.
        """
        with Interrupts(self._plan.requeue) as interrupts, _beating(self._open_state, self._say):
            try:
                while self._turn(interrupts):
                    sleep(POLL_SECONDS)
            except BaseException as error:
                self._leave(at_once=isinstance(error, KeyboardInterrupt))
                raise
        self._state.close()
        ending = interrupts.ending(None)
        if ending is not None:
            raise ending
        if self._wrong is not None:
            raise self._wrong

    def _leave(self, *, at_once: bool) -> None:
        """End the processes of this one; they save, unless it has to be at once."""
        for child in self._children:
            if at_once:
                child.kill()
            else:
                child.stop(STOPPED)

    def _turn(self, interrupts: Interrupts) -> bool:
        """Look after what runs, and begin what can; whether there is more to do."""
        if interrupts.received is not None:
            self._stop(INTERRUPTED)
        for child in list(self._children):
            self._attend(child, interrupted=interrupts.received is not None)
        self._look_for_lost()
        if not self._stopped:
            self._begin()
        return bool(self._children) or not self._is_over()

    # -- beginning -----------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Start as many trials as there is room for."""
        while len(self._children) < self._jobs.count and monotonic() >= self._next_claim:
            trial = self._state.claim(self._can_start) or self._search.next(self._state)
            if trial is None:
                self._next_claim, self._found_none = monotonic() + WAIT_SECONDS, True
                break
            self._start(trial, self._plan.folder / trial.name)

    def _can_start(self, trial: Trial) -> bool:
        """Whether no other process is at work in the folder of a trial, nor at a stage that it has come to."""
        folder = self._plan.folder / trial.name
        if is_locked(folder):
            self._tell_once(f"{folder} is in use by another process: its run begins after that.")
            return False
        return not is_held_up(folder)

    def _start(self, trial: Trial, folder: Path) -> None:
        try:
            composed = self._plan.composed(trial.name, trial.values)
        except ConfigError as error:
            self._end(trial, Ending(Stand.FAILED, code=error.exit_code, error=str(error)))
            return
        make_folder(folder)
        write_text(folder / CONFIG, composed.toml())
        goes_on = "resumed" if has_checkpoint(folder) or stages_in(folder) else "started"
        self._say(f"{trial.name}: {goes_on}.")
        place = min({*range(self._jobs.count)} - {child.place for child in self._children})
        words, environment = self._starts(folder / CONFIG), self._jobs.environment(place)
        self._children.append(Child(trial, folder, self._plan.judge, words, environment, place))

    # -- looking after -------------------------------------------------------------------------------------------------

    def _attend(self, child: Child, *, interrupted: bool) -> None:
        code = child.ended()
        if code is None and child.look():
            self._judge(child)
        if child.measured.is_unknown:
            self._refuse_metric(child)
        if code is not None:
            self._children.remove(child)
            self._state.report(child.trial.name, child.measured.values)
            self._end(child.trial, self._ending(child, code, interrupted=interrupted))

    def _judge(self, child: Child) -> None:
        """Keep what a trial has measured, and prune it where it does worse than others did."""
        self._state.report(child.trial.name, child.measured.values)
        if not child.trial.kept and not child.stopping and self._pruning.prunes(self._state, child.trial.name):
            child.stop(PRUNED)

    def _refuse_metric(self, child: Child) -> None:
        if self._wrong is None:
            logged = ", ".join(sorted(child.measured.logged))
            self._wrong = ConfigError(
                f'sweep.metric is "{self._plan.metric}", which the runs do not log; they log {logged}.'
            )
        self._stop(STOPPED)

    def _ending(self, child: Child, code: int, *, interrupted: bool) -> Ending:
        """What a trial is given back with."""
        value, step = child.measured.best(self._plan.goal)
        made = Ending(Stand.DONE, value, step, child.seconds)
        if code == 0 and value is None:
            wrong = self._plan.judge.missing(child.folder)
            return replace(made, state=Stand.FAILED, code=1, error=wrong)
        if code == 0:
            return made
        if code in SAVED and child.stopping == PRUNED:
            return replace(made, state=Stand.PRUNED)
        if code in SAVED and (child.stopping or interrupted):
            return replace(made, state=Stand.WAITING)
        if code == REQUEUE:
            return replace(made, state=Stand.WAITING, why=child.error(code))
        return replace(made, state=Stand.FAILED, code=code, error=child.error(code))

    def _end(self, trial: Trial, ending: Ending) -> None:
        """Give a trial back, and say what came of it."""
        if not self._state.end(trial.name, ending):
            self._say(f"{trial.name}: another process has taken it over.")
            return
        trials = self._state.trials()
        self._say(f"{self._counts(trials)} {trial.name}: {told(ending, self._plan.metric)}")
        if ending.state is Stand.DONE:
            link_best(self._plan, trials)
        if ending.state is Stand.FAILED:
            self._consider_failures(trials)

    def _counts(self, trials: Sequence[Trial]) -> str:
        ended = sum(trial.state in {Stand.DONE, Stand.FAILED, Stand.PRUNED} for trial in trials)
        wanted = self._search.wanted or sum(trial.state is not Stand.DROPPED for trial in trials)
        return f"[{ended}/{wanted}]"

    def _consider_failures(self, trials: Sequence[Trial]) -> None:
        """Stop where the config says so."""
        match self._plan.config.on_failure:
            case "stop":
                self._stop(STOPPED, "A run failed, so no further one is begun (sweep.on_failure).")
            case "stop if alike" if are_alike(trials):
                self._stop(STOPPED, f"{ALIKE} runs failed alike, so no further one is begun (sweep.on_failure).")

    # -- ending --------------------------------------------------------------------------------------------------------

    def _stop(self, why: str, says: str = "") -> None:
        """Begin no further trial; those that run save and end."""
        if not self._stopped:
            self._stopped = why
            if says:
                self._say(says)
        for child in self._children:
            child.stop(why)

    def _look_for_lost(self) -> None:
        """End what another process has taken over, as it may where this one was held up for long."""
        if monotonic() < self._next_look or not self._children:
            return
        self._next_look = monotonic() + BEAT_SECONDS
        owned = self._state.owned()
        for child in self._children:
            if child.trial.name not in owned:
                child.stop(LOST)

    def _is_over(self) -> bool:
        """Whether nothing is left to do: no trial waits, and none runs elsewhere that may have to be taken over."""
        if self._stopped:
            return True
        if not self._found_none:
            return False
        self._found_none = False
        trials = self._state.trials()
        left = [trial for trial in trials if trial.state in {Stand.RUNNING, Stand.WAITING}]
        for owner in {str(trial.owner) for trial in left if trial.owner is not None}:
            self._tell_once(f"Waiting for the runs of {owner}; Ctrl-C leaves them to it.")
        return not left and len(trials) >= (self._search.wanted or 0)

    def _tell_once(self, sentence: str) -> None:
        if sentence not in self._told:
            self._told.add(sentence)
            self._say(sentence)


class _beating:  # noqa: N801 - a context manager, as a function would be
    """Gives signs of life inside the block, from a thread with a connection of its own."""

    def __init__(self, open_state: Callable[[], State], say: Say) -> None:
        self._open_state, self._say = open_state, say
        self._over = Event()
        self._thread = Thread(target=self._beat, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _beat(self) -> None:
        state: State | None = None
        while not self._over.wait(BEAT_SECONDS):
            try:
                state = state or self._open_state()
                state.beat()
            except EtudeError as error:
                self._say(f"{error} The sweep goes on, and tries again.")
        if state is not None:
            state.close()


def at_step(step: int | None) -> str:
    """When a value was measured, as the end of a clause; nothing of one that belongs to no step."""
    return "" if step is None else f" at step {step:,}"


def told(ending: Ending, metric: str) -> str:
    """What came of a trial, as a line."""
    value = "" if ending.value is None else f"{metric} {ending.value:.4g}{at_step(ending.step)}"
    seconds = f"({ending.seconds:.0f} s)"
    match ending.state:
        case Stand.FAILED:
            return f"FAILED {seconds}: {ending.error}"
        case Stand.WAITING:
            return f"{ending.why.removesuffix('.') or 'saved, to be resumed'} {seconds}."
        case Stand.PRUNED:
            return f"pruned, {value} {seconds}."
    return f"{value} {seconds}."


def are_alike(trials: Sequence[Trial]) -> bool:
    """Whether several trials failed with the same error, numbers and names aside."""
    errors = Counter(
        _NUMBER.sub("#", (trial.error or "").replace(trial.name, "")) for trial in trials if trial.state is Stand.FAILED
    )
    return max(errors.values(), default=0) >= ALIKE


def best_of(trials: Sequence[Trial], goal: str) -> Trial | None:
    """The best of those that are done."""
    done = [trial for trial in trials if trial.state is Stand.DONE and trial.value is not None]
    sign = 1.0 if goal == "min" else -1.0
    return min(done, key=lambda trial: (sign * (trial.value or 0.0), trial.number), default=None)


def link_best(plan: Plan, trials: Sequence[Trial]) -> None:
    """Let `best` in the folder of the sweep lead to its best run."""
    best = best_of(trials, plan.goal)
    if best is not None and (plan.folder / best.name).is_dir():
        with suppress(StorageError):  # another process may be setting it, under the same number on its machine
            replace_link(plan.folder / BEST, best.name)
