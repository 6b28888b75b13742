"""Folders of a cache that one process at a time prepares."""

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from etude.base.files import storage
from etude.base.says import Say


@contextlib.contextmanager
def locked(place: Path, notice: Say) -> Iterator[None]:
    """Hold the lock of `place`, which ends with this process however it ends; `notice` hears of having to wait."""
    import fcntl

    path = place.with_name(f"{place.name}.lock")
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
