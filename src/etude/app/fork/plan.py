"""What a fork is to be: of which run, from which step on, and with which changes."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import count
from math import ceil
from pathlib import Path

from etude.app.fork.about import as_json, read_about
from etude.app.fork.kept import Kept
from etude.app.runs.changes import Change, changes_between
from etude.app.runs.folder import CONFIG
from etude.base.config.reading import read
from etude.base.durations import Duration
from etude.base.errors import ConfigError, RefusedError, StorageError
from etude.base.progress import Progress
from etude.tasks.config import LoadedConfig, load_config
from etude.train.job import as_durations
from etude.train.lock import refuse_links_out
from etude.train.memory.checkpoint.store import Store


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
        raise StorageError(f"{run} is not a run folder: it has no {CONFIG}.")
    refuse_links_out(run)
    if "task" not in read(run / CONFIG).data:
        raise ConfigError(
            f"The run in {run} was trained from Python, so its data and task are not in its config; start the script "
            f"again with another run_dir."
        )
    parent = run.resolve()
    home = {"run.dir": str(parent.parent), "run.name": parent.name}
    before = load_config(parent / CONFIG, home)
    newest = newest_kept(parent)
    until = _resolved(duration, newest, run)
    _refuse_past_its_length(before, until, run)
    _refuse_past_its_end(newest, until, run)
    after = _named(parent, duration, before, overrides)
    return Plan(parent, duration, until, before, after, changed(before, after), newest.progress)


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


# -- how far the parent has come -----------------------------------------------------------------------------------


def newest_kept(parent: Path) -> Kept:
    """What the parent's newest readable checkpoint keeps."""
    store = Store(parent / "checkpoints")
    for step in reversed(store.steps()):
        try:
            return Kept.at(store.path(step))
        except StorageError:
            continue
    return Kept()


def _resolved(at: Duration, newest: Kept, run: Path) -> Duration:
    """A share of the run as steps; any other duration as it is."""
    if at.unit != "percent":
        return at
    if not newest.horizon:
        raise ConfigError(f"--at is {at}, but {run} has no checkpoint that holds its length; give --at in steps.")
    return Duration(ceil(at.amount * Fraction(newest.horizon) / 100), "steps")


def _refuse_past_its_length(before: LoadedConfig, until: Duration, run: Path) -> None:
    limits = [limit for limit in as_durations(before.config.train.max_duration) if limit.unit == until.unit]
    first = min(limits, key=lambda limit: limit.amount, default=until)
    if first.amount < until.amount:
        raise RefusedError(f"{run} ends at {first}, before {until}; give an earlier --at, or train it further.")


def _refuse_past_its_end(newest: Kept, until: Duration, run: Path) -> None:
    end = newest.end
    if end is not None and not end.goes_on and not newest.has_come_to(until):
        raise RefusedError(
            f"{run} ended at step {newest.progress.step:,} ({end.says}), before {until}: a fork has nothing to share. "
            f"Give an earlier --at, or train it further."
        )


# -- where the fork lies -------------------------------------------------------------------------------------------


def is_empty(folder: Path) -> bool:
    """Whether nothing lies where a fork should."""
    return not folder.exists() or not any(folder.iterdir())


def _named(parent: Path, at: Duration, before: LoadedConfig, overrides: Sequence[str]) -> LoadedConfig:
    """The fork's config: beside its parent, under the name given or the first that is free or is this very fork."""
    is_named = any(word.partition("=")[0] == "--run.name" for word in overrides)
    for name in [parent.name] if is_named else _names(parent.name, at):
        home = [f"--run.dir={parent.parent}", f"--run.name={name}"]
        after = load_config(parent / CONFIG, [*home, *overrides])
        if not _is_taken(after, parent, at, changed(before, after)):
            return after
    raise RefusedError(
        f"{after.config.folder} exists, and is not this fork; give another --run.name (etude train resumes "
        f"an existing run)."
    )


def _names(parent: str, at: Duration) -> Iterator[str]:
    """What a fork may be called after its parent and its moment."""
    moment = re.sub(r"[^0-9A-Za-z.]+", "-", str(at).replace("%", "percent"))
    name = f"{parent}-fork-{at.amount if at.unit == 'steps' else moment}"
    yield name
    yield from (f"{name}-{number}" for number in count(2))


def _is_taken(after: LoadedConfig, parent: Path, at: Duration, changes: Sequence[Change]) -> bool:
    """Whether something else than this very fork lies where it should."""
    folder = after.config.folder
    try:
        if is_empty(folder):
            return False
        found = read_about(folder)
    except (OSError, StorageError):
        return True
    return (found.parent, found.at, found.changes) != (str(parent), str(at), as_json(changes))
