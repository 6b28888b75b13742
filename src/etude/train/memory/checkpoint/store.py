"""The folder of a run's checkpoints: written beside their place, published by a rename, the oldest removed last."""

import os
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from itertools import chain, count, filterfalse
from pathlib import Path
from secrets import token_hex

from etude.base.errors import StorageError
from etude.base.files import fsync_folder, json_or_empty, make_folder, replace_link, storage
from etude.train.memory.checkpoint.content import MANIFEST, Content
from etude.train.memory.checkpoint.naming import PARTIAL, PREFIX, step_name, step_of
from etude.train.memory.checkpoint.reader import verify
from etude.train.memory.checkpoint.writers import OneWriter, Writers

BEST, LAST = "best", "last"
_DOOMED, _TEMPORARY, _DAMAGED = ".doomed-", ".tmp", "damaged-"
ONE_WRITER = OneWriter()


class Store:
    """A folder of checkpoints.

    A save is copied at once and written by one thread beside training; the next save waits for the one before, so
    that writing never overlaps itself. A complete checkpoint is removed only after a newer one is durable.
    """

    def __init__(self, folder: Path, *, keep_last: int = 2, keep_best: int = 1, writers: Writers = ONE_WRITER) -> None:
        self.folder = folder
        self.writers = writers
        self._keep_last, self._keep_best = keep_last, keep_best
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[Path] | None = None

    # -- what is there -------------------------------------------------------------------------------------------

    def link(self, name: str) -> Path | None:
        """The checkpoint folder that `best` or `last` points to; None where there is none, or none of this folder."""
        path = self.folder / name
        try:
            target = path.readlink()
        except OSError:
            return self._copied(path)
        if str(target) != target.name or step_of(target) is None:
            return None
        found = self.folder.resolve() / target.name
        return found if found.is_dir() else None

    def _copied(self, path: Path) -> Path | None:
        """The checkpoint of which a folder in the place of a link is a copy, as it is where links are followed."""
        step = json_or_empty(path / MANIFEST).get("step")
        found = self.folder.resolve() / step_name(step) if isinstance(step, int) and step >= 0 else None
        return found if found is not None and found.is_dir() else None

    def path(self, step: int) -> Path:
        """Where the checkpoint of `step` lies."""
        return self.folder / step_name(step)

    def steps(self) -> list[int]:
        """Steps with a published checkpoint, oldest first."""
        found = map(step_of, self.folder.glob(f"{PREFIX}*")) if self.folder.is_dir() else ()
        return sorted(step for step in found if step is not None)

    def newest_sound(self, complain: Callable[[str], None]) -> Path | None:
        """The newest checkpoint that verifies, telling of every damaged one that was passed over.

        Raises StorageError where there are checkpoints and none is sound.
        """
        problems = []
        for step in reversed(self.steps()):
            try:
                verify(self.path(step))
            except StorageError as error:
                problems.append(str(error))
                complain(f"{error} Falling back to an earlier checkpoint.")
                continue
            return self.path(step)
        if problems:
            raise StorageError(f"No checkpoint in {self.folder} is intact. {problems[0]}")
        return None

    def newest_before(self, step: int | None) -> Path | None:
        """The newest intact checkpoint of a step before `step` (None: of any); None where there is none."""
        for there in reversed(self.steps()):
            with suppress(StorageError):
                if step is None or there < step:
                    verify(self.path(there))
                    return self.path(there)
        return None

    # -- before a run goes on ------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Make the folder and remove what an interrupted save or removal left."""
        make_folder(self.folder)
        for path in filter(_is_left_over, self.folder.iterdir()):
            with suppress(OSError):
                _delete(path)
        for name in (BEST, LAST):
            self._make_a_link(name)

    def _make_a_link(self, name: str) -> None:
        """Put a link in the place of a folder that a copy has made of it; what is no such copy is set aside."""
        path, found = self.folder / name, self.link(name)
        if path.is_symlink() or not path.is_dir():
            return
        if found is None:
            self._set_aside(path)
        else:
            self._remove(path)
            replace_link(path, found.name)

    def settle(
        self, step: int, *, best: int | None, ranking: Mapping[int, float], complain: Callable[[str], None]
    ) -> None:
        """Finish what a killed save left to do: a run that goes on from `step` finds the folder as if it had not been.

        Folders newer than `step` (damaged ones, since `step` is the newest sound one) are set aside, `last` and `best`
        point where they belong, and what `keep_last` and `keep_best` leave out is removed. Where the best checkpoint
        is no longer sound, the best of the sound ones takes its place, and that is told.
        """
        for later in self.steps():
            if later > step:
                complain(f"{self.path(later)} is kept as {self._set_aside(self.path(later)).name}.")
        self._point(LAST, step)
        self._point(BEST, self._best(step, best, ranking, complain))
        self._remove_old(ranking)

    def _best(
        self, step: int, best: int | None, ranking: Mapping[int, float], complain: Callable[[str], None]
    ) -> int | None:
        """The step that `best` should point to; None as long as nothing was validated."""
        if best is None or best == step:
            return best
        for candidate in (best, *self._ranked(ranking, but=best)):
            try:
                verify(self.path(candidate))
            except StorageError as error:
                complain(f"The best checkpoint is lost: {error} The best of the others replaces it.")
                if self.path(candidate).is_dir():
                    self._set_aside(self.path(candidate))
                continue
            return candidate
        return step

    def _ranked(self, ranking: Mapping[int, float], but: int | None = None) -> list[int]:
        """The validated steps with a checkpoint, best first, and of equals the earlier first."""
        validated = [step for step in self.steps() if step in ranking and step != but]
        return sorted(validated, key=ranking.__getitem__)

    def _point(self, name: str, step: int | None) -> None:
        link = self.folder / name
        if step is None:
            if link.is_symlink():
                with storage("remove the link", link):
                    link.unlink()
        elif self.link(name) != self.folder.resolve() / step_name(step):
            replace_link(link, step_name(step))

    # -- saving --------------------------------------------------------------------------------------------------

    def save(
        self, content: Content, *, best: bool, ranking: Mapping[int, float] | None = None, wait: bool = False
    ) -> None:
        """Begin to write `content`; with `best`, let `best` point to it.

        `ranking` gives the steps in order of merit (smaller is better), for `keep_best`. The failure of the save
        before is raised here or by `wait()`, as a StorageError.
        """
        self.wait()
        self._pending = self._writer.submit(self._write, content, best=best, ranking=dict(ranking or {}))
        if wait:
            self.wait()

    def wait(self) -> Path | None:
        """Wait for the save that is being written, and raise what went wrong with it."""
        pending, self._pending = self._pending, None
        return pending.result() if pending is not None else None

    def close(self) -> None:
        """Wait, and end the writing thread."""
        try:
            self.wait()
        finally:
            self._writer.shutdown()

    def _write(self, content: Content, *, best: bool, ranking: Mapping[int, float]) -> Path:
        place = self.path(content.step)
        with self.writers.led():
            with storage("write the checkpoint", place, needs=content.bytes):
                self._make(content, place)
            replace_link(self.folder / LAST, place.name)
            if best:
                replace_link(self.folder / BEST, place.name)
            self._remove_old(ranking)
        return place

    def _make(self, content: Content, place: Path) -> None:
        """Write a checkpoint beside its place, and publish it once it is whole."""
        partial = self._partial(place)
        if partial.exists():
            shutil.rmtree(partial)
        partial.mkdir()
        try:
            content.complete(partial, self.writers.write(partial, content))
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        self._publish(partial, place)

    def _partial(self, place: Path) -> Path:
        """Where a save is written: of several writers nowhere where one that was taken for dead may still write."""
        ending = f"-{token_hex(4)}" if self.writers.count > 1 else ""
        return self.folder / f"{PARTIAL}{place.name}{ending}"

    def _publish(self, partial: Path, place: Path) -> None:
        if place.exists():
            try:
                verify(place)
            except StorageError:
                self._set_aside(place)
            else:  # a run is a function of its config: what lies there is the same, and is never taken away
                shutil.rmtree(partial)
                return
        partial.rename(place)
        fsync_folder(self.folder)

    def _remove_old(self, ranking: Mapping[int, float]) -> None:
        steps = self.steps()
        kept = {*steps[-self._keep_last :], *self._ranked(ranking)[: self._keep_best]}
        kept |= set(map(self._linked, (BEST, LAST)))
        for step in filterfalse(kept.__contains__, steps):
            self._remove(self.path(step))

    def _linked(self, name: str) -> int:
        """The step that a link points to; -1, which is none, where it points to no checkpoint."""
        target = self.link(name)
        step = None if target is None else step_of(target)
        return -1 if step is None else step

    def _set_aside(self, folder: Path) -> Path:
        """Keep what cannot be read under a name that is no checkpoint's: whoever has lost something may look there."""
        names = (f"{_DAMAGED}{folder.name}{ending}" for ending in chain([""], map("-{}".format, count(2))))
        place = next(place for name in names if not (place := self.folder / name).exists())
        with storage("set aside", folder):
            folder.rename(place)
        return place

    def _remove(self, folder: Path) -> None:
        """Take the folder out of sight in one move before its files go, so that no half of it is ever seen."""
        doomed = self.folder / f"{_DOOMED}{folder.name}-{os.getpid()}"
        with suppress(OSError):
            folder.rename(doomed)
            shutil.rmtree(doomed)


def _is_left_over(path: Path) -> bool:
    """Whether it is what an interrupted save or removal leaves."""
    return path.name.startswith((PARTIAL, _DOOMED)) or path.name.endswith(_TEMPORARY)


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
