"""Removing runs, and checkpoints of runs that lost: what is to go, how large it is, and one safe way for it to go."""

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import final

from etude.app.results.found import DOOMED, half_removed, runs_in
from etude.app.results.summary import (
    CHECKPOINTS,
    CONFIG,
    FAILED,
    FINISHED,
    REMOVED,
    what_checkpoints_tell,
)
from etude.app.results.values import Values
from etude.app.results.where import MISSING
from etude.app.runs.pipelines import stages_in
from etude.base.errors import RefusedError, StorageError
from etude.base.files import json_or_empty, storage, write_json
from etude.base.regular import reading
from etude.tasks.run_files import is_of_run
from etude.train.lock import Lock, is_locked

DATA = "data.json"
JUDGED_ON = ("task.type", "data.val", "train.limit_val", "train.overfit")
"""What two runs have alike whose metrics can be compared, beside the metric and the content of the data."""


@final
@dataclass(frozen=True)
class Removal:
    """Something that is to go."""

    folder: Path
    """The run folder."""
    why: str
    states: bool = False
    """Whether its checkpoints alone are meant."""

    @property
    def target(self) -> Path:
        """What is removed."""
        return self.folder / CHECKPOINTS if self.states else self.folder

    @property
    def bytes(self) -> int:
        """How large that is; no link is followed."""
        left = half_removed(self.folder) if self.states else []
        return sum(map(size_of, [self.target, *left]))


def size_of(path: Path) -> int:
    """The bytes of a file, or of all files in a folder; what cannot be looked at counts nothing."""
    total = 0
    for at, _, names in os.walk(path, followlinks=False):
        for name in names:
            with suppress(OSError):
                total += Path(at, name).lstat().st_size
    return total


def whole_runs(places: Iterable[Path]) -> list[Removal]:
    """The removal of whole runs. Raises RefusedError for what is none, is a link, or is in use."""
    found = [Removal(place, _why(place)) for place in places]
    for one in found:
        _refuse_in_use(one.folder)
    return found


def _why(place: Path) -> str:
    """How it stands with a run folder, or with what is left of one. Raises RefusedError for anything else."""
    if place.is_symlink():
        raise RefusedError(f"{place} is a link, which is not followed: give the run folder that it leads to.")
    if place.is_dir() and place.name.startswith(DOOMED):
        return "removal was interrupted"
    if not place.is_dir() or (place / CONFIG).is_symlink() or not _is_run(place):
        raise RefusedError(
            f"{place} is not a run folder, so it is not removed: a run has config.toml and more beside it."
        )
    return Values.of(place.name, place).summary.state


def _is_run(folder: Path) -> bool:
    """Whether a folder is a run's: what lies beside its config says so, or the config itself, as a failed trial's."""
    if is_of_run(folder / CONFIG):
        return True
    run = Values.of(folder.name, folder).config.get("run")
    place = {"dir": str(folder.absolute().parent), "name": folder.name}
    return isinstance(run, Mapping) and place.items() <= run.items()


def _refuse_in_use(folder: Path) -> None:
    """Raise RefusedError where a process has a run, or one inside it."""
    stages = [folder / name for name in stages_in(folder)]
    for path in [*stages, *(path for _, path in runs_in(folder))]:
        if is_locked(path):
            raise RefusedError(f"{path} is running, so {folder} is not removed; stop it first.")


def failed_runs(folder: Path) -> list[Removal]:
    """The failed runs in a folder, and what is left of runs whose removal was interrupted."""
    left = [Removal(path, "removal was interrupted") for path in half_removed(folder)]
    found = (path for path in _own_runs(folder) if Values.of(path.name, path).summary.state == FAILED)
    return [*left, *(Removal(path, FAILED) for path in found if _is_run(path) and not _holds_runs(path))]


def _own_runs(folder: Path) -> Iterator[Path]:
    """The runs below a folder, without such as a link leads to."""
    return (path for _, path in runs_in(folder) if not path.is_symlink() and path != folder)


def _holds_runs(folder: Path) -> bool:
    """Whether there are runs inside a run, which are not failed for its sake."""
    return any(path != folder for _, path in runs_in(folder))


# -- checkpoints of runs that lost -------------------------------------------------------------------------------------


def lost_states(folder: Path) -> tuple[list[Removal], list[str]]:
    """The checkpoints of runs that lost, and notes on those that are kept though they did.

    A run has lost where it is finished and another of the folder is better by the same metric on the same data.
    """
    runs = [Values.of(str(path.relative_to(folder)), path) for path in _own_runs(folder)]
    configs = {run.summary.name: _text(run.folder / CONFIG) for run in runs}
    removals, notes = [], []
    for run, best in _beaten(runs):
        if run.summary.state != FINISHED or not _has_states(run.folder):
            continue
        if user := _user_of(run, configs):
            notes.append(f"{run.folder} keeps its checkpoints: {user} begins from it.")
            continue
        told = f"{run.summary.monitor} {run.summary.best:.4g}, {best.summary.name} has {best.summary.best:.4g}"
        removals.append(Removal(run.folder, told, states=True))
    return removals, notes


def _beaten(runs: Iterable[Values]) -> Iterator[tuple[Values, Values]]:
    """Each run that another is better than, of those that are judged alike, with the best of them."""
    alike: dict[str, list[Values]] = {}
    for run in runs:
        if run.summary.best is not None and run.mode is not None:
            alike.setdefault(repr(_judgement(run)), []).append(run)
    for judged in alike.values():
        best = min(judged, key=Values.merit)
        yield from ((run, best) for run in judged if run.merit() > best.merit())


def _has_states(folder: Path) -> bool:
    return (folder / CHECKPOINTS).is_dir() or bool(half_removed(folder))


def _judgement(run: Values) -> Sequence[object]:
    data = json_or_empty(run.folder / DATA).get("val")
    asked = [value for key in JUDGED_ON if (value := run(key)) is not MISSING]
    return [run.summary.monitor, run.mode, data, asked]


def _user_of(run: Values, configs: Mapping[str, str]) -> str | None:
    """The name of a run whose config names this one's folder; None where none does."""
    named = f"{run.folder.resolve()}/"
    return next((name for name, text in configs.items() if name != run.summary.name and named in text), None)


def _text(path: Path) -> str:
    with suppress(OSError), reading(path) as file:
        return file.read().decode(errors="replace").replace('"', "/")
    return ""


# -- the removal itself ------------------------------------------------------------------------------------------------


def remove(one: Removal) -> None:
    """Remove it: out of sight in one move first, so that no half of it is ever taken for a run.

    Raises RefusedError where a process has taken the run meanwhile, StorageError where it cannot be removed.
    """
    if one.folder.name.startswith(DOOMED):
        _delete(one.folder)
        return
    with Lock(one.folder):
        left = half_removed(one.folder) if one.states else []
        if one.states:
            write_json(one.folder / REMOVED, what_checkpoints_tell(one.folder))
        doomed = _out_of_sight(one.target) if one.target.is_dir() else None
    for path in (*left, doomed):
        if path is not None:
            _delete(path)


def _out_of_sight(path: Path) -> Path:
    """Give a folder a name that no run has, and no checkpoints."""
    if path.is_symlink():
        raise StorageError(f"{path} is a link, which is not followed.")
    doomed = path.with_name(f"{DOOMED}{path.name}-{os.getpid()}")
    with storage("remove", path):
        path.rename(doomed)
    return doomed


def _delete(path: Path) -> None:
    """Remove a folder and all in it; links in it go, and what they lead to stays."""
    with storage("remove all of", path):
        shutil.rmtree(path)
