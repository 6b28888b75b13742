"""The state of a sweep: its trials, who runs which, and what came of them. Every change is one transaction."""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import wraps
from time import monotonic, sleep
from typing import Any, Concatenate, ParamSpec, TypeVar, final

from etude.app.sweep.state.database import Database, LostError, Row, Transaction
from etude.app.sweep.state.owner import Owner, read_owner


class Stand(StrEnum):
    """How a trial stands."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    PRUNED = "pruned"
    DROPPED = "dropped"
    """It was waiting when its combination left the space."""
    INTERRUPTED = "interrupted"
    """It was running when its process went, and is taken up by the next; this is told, and never stored."""


@dataclass(frozen=True)
class Trial:
    """A combination, and what came of it."""

    name: str
    number: int
    values: Mapping[str, Any]
    state: Stand = Stand.WAITING
    owner: Owner | None = None
    beat: int = 0
    kept: bool = False
    """Whether it was asked for after it had been pruned, and is not pruned again."""
    value: float | None = None
    step: int | None = None
    seconds: float = 0.0
    code: int | None = None
    """What its process ended with, where it failed."""
    error: str | None = None
    remarks: Mapping[str, Any] = field(default_factory=dict)
    """What the search notes of it."""
    reported: Mapping[int, float | None] = field(default_factory=dict)
    """The metric by the number of the validation, counted from 1."""


AWAY_SECONDS, POLL_SECONDS = 60.0, 0.5
"""How long a database that was lost is waited for, and how often it is asked."""

P = ParamSpec("P")
T = TypeVar("T")


def _again(method: "Callable[Concatenate[State, P], T]") -> "Callable[Concatenate[State, P], T]":
    """Do what a method does again where the database was lost in it, as long as it may come back."""

    @wraps(method)
    def done(state: "State", /, *given: P.args, **named: P.kwargs) -> T:
        until = monotonic() + AWAY_SECONDS
        while True:
            try:
                return method(state, *given, **named)
            except LostError:
                if monotonic() >= until:
                    raise
                state.forget_silence()
                sleep(POLL_SECONDS)

    return done


_COLUMNS = "name, number, combination, state, owner, beat, kept, value, step, seconds, code, error, remarks"


@final
class State:
    """What all processes of a sweep share."""

    def __init__(self, database: Database, sweep: str, owner: Owner, dead_after: float) -> None:
        self._database, self._sweep, self._owner = database, sweep, owner
        self._dead_after = dead_after
        self._seen: dict[str, tuple[str, int, float]] = {}
        """Of each trial that another runs: who, its last beat, and when that was first seen, by this process's clock.

        No two clocks are ever compared, so they may differ.
        """
        self._taken: set[str] = set()
        """The trials of this process; another that is in its name was taken when the database was lost."""
        self._ending: tuple[str, Ending] | None = None
        """What was given back last."""

    def forget_silence(self) -> None:
        """Count the time anew in which no other process has given a sign of life: none could while all had no state."""
        self._seen.clear()

    def close(self) -> None:
        """Let the database go."""
        self._database.close()

    # -- the sweep itself ----------------------------------------------------------------------------------------------

    @_again
    def noted(self, name: str) -> Any:
        """Something noted of the sweep; None where it is not."""
        with self._database.transaction() as act:
            found = act.rows("SELECT value FROM etude_sweep WHERE sweep = ? AND name = ?", self._sweep, name)
        return json.loads(found[0][0]) if found else None

    @_again
    def note(self, name: str, value: object) -> None:
        """Note something of the sweep, unless it is noted already."""
        with self._database.transaction() as act:
            act.run(
                "INSERT INTO etude_sweep (sweep, name, value) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
                self._sweep,
                name,
                json.dumps(value),
            )

    # -- trials --------------------------------------------------------------------------------------------------------

    @_again
    def trials(self) -> list[Trial]:
        """All of them, in order, with what they reported."""
        with self._database.transaction() as act:
            reported: dict[str, dict[int, float | None]] = {}
            for trial, number, value in act.rows(
                "SELECT trial, number, value FROM etude_value WHERE sweep = ? ORDER BY trial, number", self._sweep
            ):
                reported.setdefault(trial, {})[number] = value
            found = act.rows(f"SELECT {_COLUMNS} FROM etude_trial WHERE sweep = ? ORDER BY number", self._sweep)  # noqa: S608 - constants
        return [_trial(row, reported.get(row[0], {})) for row in found]

    @_again
    def settle(self, combinations: Mapping[str, Mapping[str, Any]]) -> int:
        """Add the combinations, by name, that are new; those that left wait no more. How many are new."""
        with self._database.transaction() as act:
            known = self._states(act)
            new = [name for name in combinations if name not in known]
            number = self._next_number(act)
            for place, name in enumerate(new):
                self._insert(act, name, number + place, combinations[name])
            for name, state in known.items():
                if state == Stand.WAITING and name not in combinations:
                    self._set_state(act, name, Stand.DROPPED)
                if state == Stand.DROPPED and name in combinations:
                    self._set_state(act, name, Stand.WAITING)
        return len(new)

    @_again
    def add(self, name: str, number: int, values: Mapping[str, Any], remarks: Mapping[str, Any]) -> bool:
        """Add a trial that a search has chosen, as this process's; False where another has that number."""
        with self._database.transaction() as act:
            if self._next_number(act) != number:
                return False
            self._insert(act, name, number, values)
            taken = self._take(act, name, remarks)
        self._taken.add(name)
        return taken

    @_again
    def retry(self, states: Collection[Stand]) -> int:
        """Let trials that ended in one of these states wait again; how many there are."""
        with self._database.transaction() as act:
            count = 0
            for state in states:
                count += act.run(
                    "UPDATE etude_trial SET state = ?, kept = ?, error = NULL, code = NULL "
                    "WHERE sweep = ? AND state = ?",
                    Stand.WAITING,
                    int(state == Stand.PRUNED),
                    self._sweep,
                    state,
                )
        return count

    def claim(self, can_start: Callable[[Trial], bool] = lambda _: True) -> Trial | None:
        """Take the first trial that waits or that a dead process has left, and that can start; None without one."""
        for trial in self.trials():
            if self._is_free(trial) and can_start(trial) and self._claim(trial):
                self._taken.add(trial.name)
                return trial
        return None

    @_again
    def beat(self) -> None:
        """Give a sign of life for every trial of this process."""
        with self._database.transaction() as act:
            act.run("UPDATE etude_trial SET beat = beat + 1 WHERE sweep = ? AND owner = ?", self._sweep, self._me)

    @_again
    def owned(self) -> set[str]:
        """The trials that are still this process's."""
        with self._database.transaction() as act:
            found = act.rows("SELECT name FROM etude_trial WHERE sweep = ? AND owner = ?", self._sweep, self._me)
        return {row[0] for row in found}

    @_again
    def report(self, name: str, reported: Mapping[int, tuple[int | None, float | None]]) -> None:
        """Keep what a trial measured: by the number of the validation, the step, where it is of one, and the value."""
        with self._database.transaction() as act:
            act.run("DELETE FROM etude_value WHERE sweep = ? AND trial = ?", self._sweep, name)
            for number, (step, value) in reported.items():
                act.run(
                    "INSERT INTO etude_value (sweep, trial, number, step, value) VALUES (?, ?, ?, ?, ?)",
                    self._sweep,
                    name,
                    number,
                    step or 0,
                    value,
                )

    @_again
    def remark(self, name: str, remarks: Mapping[str, Any]) -> None:
        """Note what the search has to remember of a trial."""
        with self._database.transaction() as act:
            act.run(
                "UPDATE etude_trial SET remarks = ? WHERE sweep = ? AND name = ?",
                json.dumps(remarks),
                self._sweep,
                name,
            )

    @_again
    def end(self, name: str, ending: "Ending") -> bool:
        """Give a trial of this process back with what came of it; False where it is no longer this process's."""
        with self._database.transaction() as act:
            if name in self._taken and (name, ending) == self._ending and self._states(act).get(name) == ending.state:
                self._taken.discard(name)
                return True  # it was done when the database was lost
            self._ending = name, ending
            changed = act.run(
                "UPDATE etude_trial SET state = ?, owner = NULL, value = ?, step = ?, code = ?, error = ?, "
                "seconds = seconds + ? WHERE sweep = ? AND name = ? AND owner = ?",
                ending.state,
                ending.value,
                ending.step,
                ending.code,
                ending.error,
                ending.seconds,
                self._sweep,
                name,
                self._me,
            )
        self._taken.discard(name)
        return changed == 1

    # -- inside of a transaction ---------------------------------------------------------------------------------------

    @property
    def _me(self) -> str:
        return self._owner.text()

    def _states(self, act: Transaction) -> dict[str, str]:
        return dict(act.rows("SELECT name, state FROM etude_trial WHERE sweep = ?", self._sweep))  # type: ignore[arg-type]

    def _next_number(self, act: Transaction) -> int:
        found = act.rows("SELECT COALESCE(MAX(number), -1) + 1 FROM etude_trial WHERE sweep = ?", self._sweep)
        return int(found[0][0])

    def _insert(self, act: Transaction, name: str, number: int, values: Mapping[str, Any]) -> None:
        act.run(
            "INSERT INTO etude_trial (sweep, name, number, combination, state, remarks) VALUES (?, ?, ?, ?, ?, ?)",
            self._sweep,
            name,
            number,
            json.dumps(values),
            Stand.WAITING,
            "{}",
        )

    def _set_state(self, act: Transaction, name: str, state: Stand) -> None:
        act.run("UPDATE etude_trial SET state = ? WHERE sweep = ? AND name = ?", state, self._sweep, name)

    def _take(self, act: Transaction, name: str, remarks: Mapping[str, Any]) -> bool:
        changed = act.run(
            "UPDATE etude_trial SET state = ?, owner = ?, remarks = ? WHERE sweep = ? AND name = ? AND state = ?",
            Stand.RUNNING,
            self._me,
            json.dumps(remarks),
            self._sweep,
            name,
            Stand.WAITING,
        )
        return changed == 1

    @_again
    def _claim(self, trial: Trial) -> bool:
        """Take a trial if it still stands as it was seen."""
        owner = None if trial.owner is None else trial.owner.text()
        with self._database.transaction() as act:
            changed = act.run(
                "UPDATE etude_trial SET state = ?, owner = ?, beat = beat + 1 "
                "WHERE sweep = ? AND name = ? AND state = ? AND COALESCE(owner, '') = ? AND beat = ?",
                Stand.RUNNING,
                self._me,
                self._sweep,
                trial.name,
                trial.state,
                owner or "",
                trial.beat,
            )
        return changed == 1

    def _is_free(self, trial: Trial) -> bool:
        if trial.state is Stand.WAITING:
            return True
        if trial.state is not Stand.RUNNING or trial.owner is None:
            return False
        if trial.owner == self._owner:
            return trial.name not in self._taken
        return trial.owner.is_dead or self._is_silent(trial.name, trial.owner.mark, trial.beat)

    def _is_silent(self, name: str, mark: str, beat: int) -> bool:
        """Whether this process has waited long enough for a sign of life."""
        before = self._seen.get(name)
        if before is None or before[:2] != (mark, beat):
            self._seen[name] = (mark, beat, monotonic())
            return False
        return monotonic() - before[2] >= self._dead_after


@dataclass(frozen=True)
class Ending:
    """How a trial is given back."""

    state: Stand
    value: float | None = None
    step: int | None = None
    seconds: float = 0.0
    code: int | None = None
    error: str | None = None
    why: str = ""
    """Why it waits, where it has given its place to others."""


def _trial(row: Row, reported: Mapping[int, float | None]) -> Trial:
    name, number, values, state, owner, beat, kept, value, step, seconds, code, error, remarks = row
    return Trial(
        name,
        number,
        json.loads(values),
        Stand(state),
        None if owner is None else read_owner(owner),
        beat,
        bool(kept),
        value,
        step,
        seconds,
        code,
        error,
        json.loads(remarks or "{}"),
        reported,
    )


def as_it_stands(trial: Trial) -> Trial:
    """A trial as it is told of: one whose process is known to be gone does not run."""
    is_left = trial.state is Stand.RUNNING and trial.owner is not None and trial.owner.is_dead
    return replace(trial, state=Stand.INTERRUPTED, owner=None) if is_left else trial


def counted(trials: Sequence[Trial]) -> dict[Stand, int]:
    """How many trials stand how."""
    return {state: sum(trial.state is state for trial in trials) for state in Stand}
