"""What a fork is to be: of which run, from which step on, and with which changes."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import count
from math import ceil
from pathlib import Path
from typing import Any

from etude.app.runs.changes import Change, changes_between
from etude.app.runs.folder import CONFIG
from etude.base.config.reading import read
from etude.base.durations import Duration
from etude.base.errors import ConfigError, RefusedError, StorageError
from etude.base.progress import Progress
from etude.tasks.config import LoadedConfig, load_config
from etude.train.end import End
from etude.train.job import as_durations
from etude.train.memory.checkpoint.content import STATE_JSON
from etude.train.memory.checkpoint.store import Store

FORK = "fork.json"
"""What a fork's folder says about where it comes from."""


@dataclass(frozen=True)
class Plan:
    """A fork that is asked for."""

    parent: Path
    at: Duration
    until: Duration
    """`at` as a length that needs no length of the run: a share of it is in steps."""
    before: LoadedConfig
    """The parent's config."""
    after: LoadedConfig
    """The fork's."""
    changes: Sequence[Change]
    reached: Progress
    """How far the parent's newest checkpoint has come."""

    @property
    def folder(self) -> Path:
        """The fork's run folder."""
        return self.after.config.folder


def plan_fork(run: Path, at: str, overrides: Sequence[str]) -> Plan:
    """Compose the fork of a run; nothing is written.

    Raises StorageError where there is no run, ConfigError for a moment or a value that cannot be, RefusedError where
    the run ended before that moment or the fork's folder is taken.
    """
    duration = read_moment(at)
    if not (run / CONFIG).is_file():
        raise StorageError(f"{run} is no run folder: it has no {CONFIG}.")
    if "task" not in read(run / CONFIG).data:
        raise ConfigError(
            f"The run in {run} was trained from Python, so its data and task are not in its config; start the script "
            f"again with another run_dir."
        )
    parent = run.resolve()
    home = {"run.dir": str(parent.parent), "run.name": parent.name}
    before = load_config(parent / CONFIG, home)
    newest = newest_state(parent)
    until = _resolved(duration, newest, run)
    _refuse_what_never_came(before, until, newest, run)
    after = _named(parent, duration, before, overrides)
    return Plan(parent, duration, until, before, after, changed(before, after), progress_of(newest))


def read_moment(text: str) -> Duration:
    """The moment of a fork. Raises ConfigError for what is none, and for a time."""
    try:
        duration = Duration.parse(text)
    except ValueError as error:
        raise ConfigError(f"--at {error}, but is {text!r}.") from None
    if duration.unit == "seconds":
        raise ConfigError(
            f"--at must not be a time, but is {duration}: give it in steps, epochs, samples, tokens or %."
        )
    return duration


def changed(before: LoadedConfig, after: LoadedConfig) -> list[Change]:
    """The keys at which a fork's config differs from its parent's, its name and place left out."""
    changes = changes_between(before.data, after.data, type(after.config))
    return [change for change in changes if not change.meaning.place]


def read_fork(folder: Path) -> dict[str, Any]:
    """What a fork's folder says about where it comes from. Raises StorageError where that is damaged."""
    path = folder / FORK
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        Duration.parse(found["until"])
        dict(found["changes"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise StorageError(f"{path} is damaged: {type(error).__name__}: {error}.") from error
    return dict(found)


# -- how far the parent has come -----------------------------------------------------------------------------------


def newest_state(parent: Path) -> Mapping[str, Any]:
    """The plain state of the parent's newest readable checkpoint; empty where there is none."""
    store = Store(parent / "checkpoints")
    for step in reversed(store.steps()):
        try:
            return plain_state(store.path(step))
        except StorageError:
            continue
    return {}


def plain_state(checkpoint: Path) -> Mapping[str, Any]:
    """What a checkpoint's state says in plain numbers; raises StorageError where it cannot be read."""
    path = checkpoint / STATE_JSON
    try:
        state: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        progress_of(state)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise StorageError(f"{path} is damaged ({type(error).__name__}: {error}).") from error
    return state


def progress_of(state: Mapping[str, Any]) -> Progress:
    """The progress in a plain state; that of a run's begin where there is none."""
    return Progress(**state["progress"]) if state else Progress()


def _resolved(at: Duration, newest: Mapping[str, Any], run: Path) -> Duration:
    """A share of the run as steps; any other duration as it is."""
    if at.unit != "percent":
        return at
    horizon = newest.get("horizon")
    if not horizon:
        raise ConfigError(f"--at is {at}, but {run} has no checkpoint that tells how long it is; give --at in steps.")
    return Duration(ceil(at.amount * Fraction(horizon) / 100), "steps")


def _refuse_what_never_came(before: LoadedConfig, until: Duration, newest: Mapping[str, Any], run: Path) -> None:
    limits = [limit for limit in as_durations(before.config.train.max_duration) if limit.unit == until.unit]
    first = min(limits, key=lambda limit: limit.amount, default=until)
    if first.amount < until.amount:
        raise RefusedError(f"{run} ends at {first}, before {until}; give an earlier --at, or train it further.")
    progress, end = progress_of(newest), End.read(newest)
    if end is not None and not end.goes_on and not until.reached(progress):
        raise RefusedError(
            f"{run} ended at step {progress.step:,} ({end.says}), before {until}: there is nothing that a fork "
            f"could share. Give an earlier --at, or train it further."
        )


# -- where the fork lies -------------------------------------------------------------------------------------------


def _named(parent: Path, at: Duration, before: LoadedConfig, overrides: Sequence[str]) -> LoadedConfig:
    """The fork's config: beside its parent, under the name given or the first that is free or is this very fork."""

    def composed(name: str) -> LoadedConfig:
        return load_config(parent / CONFIG, [f"--run.dir={parent.parent}", f"--run.name={name}", *overrides])

    if any(word.partition("=")[0] == "--run.name" for word in overrides):
        after = composed(parent.name)
        if _is_taken(after, parent, at, changed(before, after)):
            raise RefusedError(
                f"{after.config.folder} is there already, and is not this fork; give another --run.name (etude train "
                f"goes on with a run that is there)."
            )
        return after
    amount = str(at.amount) if at.unit == "steps" else re.sub(r"[^0-9A-Za-z.]+", "-", str(at).replace("%", "percent"))
    for number in count(1):
        after = composed(f"{parent.name}-fork-{amount}" + (f"-{number}" if number > 1 else ""))
        if not _is_taken(after, parent, at, changed(before, after)):
            return after
    raise AssertionError


def _is_taken(after: LoadedConfig, parent: Path, at: Duration, changes: Sequence[Change]) -> bool:
    """Whether something else than this very fork lies where it should."""
    folder = after.config.folder
    try:
        if not folder.exists() or not any(folder.iterdir()):
            return False
        found = read_fork(folder)
    except (OSError, StorageError):
        return True
    return [found.get("parent"), found.get("at"), found["changes"]] != [str(parent), str(at), as_json(changes)]


def as_json(changes: Sequence[Change]) -> dict[str, list[object]]:
    """Changes by key: what it was, and what it is; null stands for a key that is not set."""
    return {change.key: [change.old, change.new] for change in changes}
