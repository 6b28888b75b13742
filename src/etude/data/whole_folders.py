"""Folders of a cache that are written whole or not at all, by one process at a time."""

import contextlib
import errno
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from etude.base.files import fsync_folder, storage

Notice = Callable[[str], None]


@contextlib.contextmanager
def whole_folder(place: Path, what: str) -> Iterator[Path]:
    """Give an empty folder to be filled, and move it to `place` where that has gone well; what was there goes.

    Whoever looks finds all of it or nothing, also after a kill; errors of the disk speak of `what` was being done.
    """
    part = place.with_suffix(".part")
    with storage(what, place):
        remove(part)
        part.mkdir()
        try:
            yield part
            fsync_folder(part)
            remove(place)
            part.rename(place)
            fsync_folder(place.parent)
        finally:
            remove(part)


@contextlib.contextmanager
def locked(place: Path, notice: Notice) -> Iterator[None]:
    """Hold the lock of `place`, which ends with this process however it ends; `notice` hears of having to wait."""
    import fcntl

    path = place.with_suffix(".lock")
    with storage("lock", path), path.open("ab") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            notice("Another process is preparing the same data: waiting for it.")
            fcntl.lockf(file, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in {errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS}:
                raise
            notice(f"{path.parent} cannot be locked: no other process must prepare the same data now.")
        yield


def remove(path: Path) -> None:
    """Remove a folder with all it holds, a link or a file, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
