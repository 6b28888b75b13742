"""The folder of a run's checkpoints: written beside their place, published by a rename, the oldest removed last."""

import os
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from etude.base.errors import StorageError
from etude.base.files import fsync_folder, make_folder, replace_link, storage
from etude.train.checkpoint.content import Content
from etude.train.checkpoint.reader import verify

BEST, LAST = "best", "last"
_PREFIX, _PARTIAL, _DOOMED = "step-", ".partial-", ".doomed-"
_DIGITS = 8


class Store:
    """A folder of checkpoints.

    A save is copied at once and written by one thread beside training; the next save waits for the one before, so
    that writing never overlaps itself. A complete checkpoint is removed only after a newer one is durable.
    """

    def __init__(self, folder: Path, *, keep_last: int = 2, keep_best: int = 1) -> None:
        self.folder = folder
        self._keep_last, self._keep_best = keep_last, keep_best
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[Path] | None = None

    def prepare(self) -> None:
        """Make the folder and remove what an interrupted save or removal left."""
        make_folder(self.folder)
        for path in self.folder.iterdir():
            if path.name.startswith((_PARTIAL, _DOOMED)) or path.name.endswith(".tmp"):
                with suppress(OSError):
                    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()

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

    def link(self, name: str) -> Path | None:
        """The folder that `best` or `last` points to, or None."""
        path = self.folder / name
        return path.resolve() if path.is_symlink() and path.exists() else None

    def path(self, step: int) -> Path:
        """Where the checkpoint of `step` lies."""
        return self.folder / f"{_PREFIX}{step:0{_DIGITS}d}"

    def steps(self) -> list[int]:
        """Steps with a published checkpoint, oldest first."""
        if not self.folder.is_dir():
            return []
        names = (path.name.removeprefix(_PREFIX) for path in self.folder.glob(f"{_PREFIX}*"))
        return sorted(int(name) for name in names if name.isdigit())

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
            raise StorageError(f"No checkpoint in {self.folder} is sound. {problems[0]}")
        return None

    def drop_after(self, step: int) -> None:
        """Remove what is newer than `step`: damaged folders that a resumed run will write again."""
        for later in self.steps():
            if later > step:
                self._remove(self.path(later))

    def _write(self, content: Content, *, best: bool, ranking: dict[int, float]) -> Path:
        place = self.path(content.step)
        partial = self.folder / f"{_PARTIAL}{place.name}"
        with storage("write the checkpoint", place):
            if partial.exists():
                shutil.rmtree(partial)
            partial.mkdir()
            try:
                content.write(partial)
            except BaseException:
                shutil.rmtree(partial, ignore_errors=True)
                raise
            self._publish(partial, place)
        replace_link(self.folder / LAST, place.name)
        if best:
            replace_link(self.folder / BEST, place.name)
        self._remove_old(ranking)
        return place

    def _publish(self, partial: Path, place: Path) -> None:
        if place.exists():
            try:
                verify(place)
            except StorageError:
                self._remove(place)
            else:  # a run is a function of its config: what lies there is the same, and is never taken away
                shutil.rmtree(partial)
                return
        partial.rename(place)
        fsync_folder(self.folder)

    def _remove_old(self, ranking: dict[int, float]) -> None:
        steps = self.steps()
        kept = set(steps[-self._keep_last :])
        kept.update(sorted((s for s in steps if s in ranking), key=lambda s: (ranking[s], s))[: self._keep_best])
        for name in (BEST, LAST):
            if (target := self.link(name)) is not None:
                kept.add(int(target.name.removeprefix(_PREFIX)))
        for step in steps:
            if step not in kept:
                self._remove(self.path(step))

    def _remove(self, folder: Path) -> None:
        """Take the folder out of sight in one move before its files go, so that no half of it is ever seen."""
        doomed = self.folder / f"{_DOOMED}{folder.name}-{os.getpid()}"
        with suppress(OSError):
            folder.rename(doomed)
            shutil.rmtree(doomed)


def checkpoint_step(folder: Path) -> int:
    """The step a published checkpoint folder is of."""
    return int(folder.resolve().name.removeprefix(_PREFIX))
