"""A run that goes on in a new folder from the longest run that is the same but for its length."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from etude.app.fork.kept import Kept
from etude.app.fork.start import copy_folder
from etude.app.fork.way import is_fork
from etude.app.results.removing import Removal, remove
from etude.app.results.summary import RUNNING, state
from etude.app.runs.changes import shown
from etude.app.runs.folder import has_checkpoint
from etude.app.runs.identity import Identity, identity_of, semantic_changes
from etude.base.durations import Duration
from etude.base.errors import ConfigError, StorageError
from etude.base.files import json_or_empty, read_json, replace_link, storage, whole_folder, write_bytes, write_json
from etude.base.regular import reading
from etude.base.says import Say
from etude.tasks.config import LoadedConfig
from etude.tasks.run_files import is_of_run
from etude.train.job import as_durations
from etude.train.memory.checkpoint.content import MANIFEST
from etude.train.memory.checkpoint.naming import checkpoint_step
from etude.train.memory.checkpoint.origin import take_in
from etude.train.memory.checkpoint.reader import verify
from etude.train.memory.checkpoint.store import BEST, Store
from etude.train.watch.record import METRICS, row_of

CONTINUED = "continued.json"
"""The file of a run folder that says which run it goes on from."""
CONFIG = "config.toml"
_NAMED = 4


@final
@dataclass(frozen=True)
class Source:
    """A checkpoint of another run that a run can go on from."""

    run: Path
    checkpoint: Path
    kept: Kept

    @property
    def step(self) -> int:
        """Its step."""
        return self.kept.progress.step

    @property
    def rows(self) -> bytes:
        """The rows that belong to it, those of the end of a run that ended there among them."""
        with storage("read", self.run / METRICS), reading(self.run / METRICS) as file:
            content = file.read()
        end = self.kept.rows
        for line in content[end:].splitlines(keepends=True):
            row = row_of(line)
            if row is None or row.get("step") != self.step or any(key.startswith("test/") for key in row):
                break
            end += len(line)
        return content[:end]


def continue_from_longest(loaded: LoadedConfig, folder: Path, say: Say) -> None:
    """Let a run that has saved nothing yet begin where the longest run of the same identity stands, if it should.

    That run is left as it is. It is looked for among the runs beside this one.
    """
    run = loaded.config.run
    if not run.continue_training or run.stage is not None or has_checkpoint(folder) or is_fork(folder):
        return
    wanted = identity_of(folder)
    source = None if wanted is None else _longest(folder, wanted, as_durations(loaded.config.train.max_duration), say)
    if source is None or wanted is None:
        say(f"No other run in {folder.parent} is this one but for its length{_nearest(folder)}; it begins anew.")
        return
    _take_over(source, folder, wanted)
    say(f"This run goes on from step {source.step:,} of {source.run}, which stays as it is.")


def _others(folder: Path) -> Iterator[Path]:
    """The runs beside one that nobody is training and that share no steps with a run of another config."""
    with storage("list", folder.parent):
        beside = sorted(folder.parent.iterdir())
    for other in beside:
        if other.is_symlink() or other.name == folder.name or not is_of_run(other / CONFIG):
            continue
        if has_checkpoint(other) and not is_fork(other) and state(other) != RUNNING:
            yield other


def _longest(folder: Path, wanted: Identity, until: Sequence[Duration], say: Say) -> Source | None:
    """The furthest sound checkpoint, of runs of this identity, that is not past the end."""
    runs = [other for other in _others(folder) if identity_of(other) == wanted]
    found = [source for run in runs for source in _sources(run) if _is_within(source.kept, until)]
    for source in sorted(found, key=lambda source: source.step, reverse=True):
        try:
            verify(source.checkpoint)
        except StorageError as error:
            say(f"{error} Etude looks for an earlier checkpoint.")
            continue
        return source
    return None


def _sources(run: Path) -> Iterator[Source]:
    store = Store(run / "checkpoints")
    for step in store.steps():
        try:
            yield Source(run, store.path(step), Kept.at(store.path(step)))
        except StorageError:
            continue


def _is_within(kept: Kept, until: Sequence[Duration]) -> bool:
    """Whether a run that ends there has come no further than this."""
    return all(not one.reached(kept.progress) or kept.is_exactly(one) for one in until)


def _nearest(folder: Path) -> str:
    """Which run is nearest, and by what keys it is another, as a clause; empty where there is none."""
    found = []
    for other in _others(folder):
        try:
            found.append((other, semantic_changes(other, folder)))
        except ConfigError:
            continue
    if not found:
        return ""
    other, changes = min(found, key=lambda one: len(one[1]))
    if not changes:
        return f" ({other.name} has other data or code, or no checkpoint up to its end)"
    told = [f"{change.key} was {shown(change.old)} and is {shown(change.new)}" for change in changes[:_NAMED]]
    more = f", and {len(changes) - _NAMED} more" if len(changes) > _NAMED else ""
    return f" (the nearest is {other.name}: {'; '.join(told)}{more})"


def _take_over(source: Source, folder: Path, wanted: Identity) -> None:
    """Copy rows and checkpoints, the checkpoints last and in one move."""
    best = source.kept.best_step
    kept = source.checkpoint if best is None else Store(source.run / "checkpoints").path(best)
    checkpoints = [source.checkpoint, *([kept] if best not in {None, source.step} and _is_sound(kept) else [])]
    write_bytes(folder / METRICS, source.rows)
    write_json(folder / CONTINUED, {"run": str(source.run.absolute()), "step": source.step, "identity": wanted.whole})
    take_in(folder, [str(read_json(path / MANIFEST).get("config")) for path in checkpoints])
    with whole_folder(folder / "checkpoints", "write") as part:
        for path in checkpoints:
            copy_folder(path, part / path.name)
            verify(part / path.name)
        if best is not None:
            replace_link(part / BEST, checkpoints[-1].name)


def _is_sound(checkpoint: Path) -> bool:
    try:
        verify(checkpoint)
    except StorageError:
        return False
    return True


# -- afterwards --------------------------------------------------------------------------------------------------------


def remove_continued(loaded: LoadedConfig, folder: Path, say: Say) -> None:
    """Remove the run that this one has gone on from, where that is asked for.

    Only once this one has a complete checkpoint that is further, and only a run of the same identity beside it.
    """
    told = json_or_empty(folder / CONTINUED)
    if not loaded.config.run.remove_continued or not told:
        return
    other = folder.parent / Path(str(told.get("run"))).name
    if not other.is_dir() or not _may_go(other, folder, told):
        return
    remove(Removal(other, "continued"))
    say(f"{other} is removed, since this run goes on from it (run.remove_continued).")


def _may_go(other: Path, folder: Path, told: Mapping[str, Any]) -> bool:
    """Whether a run is the one that was gone on from, and all that it has come to is kept here."""
    if other.is_symlink() or other.samefile(folder) or not is_of_run(other / CONFIG) or state(other) == RUNNING:
        return False
    found, newest = identity_of(other), Store(folder / "checkpoints").newest_before(None)
    if found is None or found.whole != told.get("identity") or newest is None:
        return False
    return checkpoint_step(newest) > max(Store(other / "checkpoints").steps(), default=0)
