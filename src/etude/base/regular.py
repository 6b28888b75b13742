"""The door through which files are opened that somebody else may have put there: only regular ones, and never waiting.

Opening a FIFO waits for whoever opens its other end, and a device may never end: both are refused in a sentence.
"""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a folder",
    stat.S_IFLNK: "a link",
}


_TELLING = {errno.ELOOP, errno.ENXIO, errno.EISDIR}
"""A link that is not followed; a FIFO that nobody reads, or a device with nothing behind it; a folder."""


class NotRegular(OSError):  # noqa: N818 - an OSError among OSErrors, such as FileNotFoundError
    """What was opened is no regular file; its `strerror` is a clause that says what it is."""

    def __init__(self, kind: str) -> None:
        super().__init__(f"it must be a regular file, but is {kind}")
        self.strerror = str(self)


def kind_of(mode: int) -> str | None:
    """What a file is, by its `st_mode`, where it is no regular one: `a FIFO`, `a device`; None for a regular one."""
    return None if stat.S_ISREG(mode) else _KINDS.get(stat.S_IFMT(mode), "something else")


def open_regular(path: str | Path, flags: int = os.O_RDONLY, *, links: bool = True) -> int:
    """Open a regular file, and give its descriptor; without `links`, the path itself must be no link.

    It never waits, whatever lies at `path`. Raises NotRegular, or any other OSError.
    """
    flags |= os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY | (0 if links else os.O_NOFOLLOW)
    handle = _opened(Path(path), flags)
    kind = kind_of(os.fstat(handle).st_mode)
    if kind is not None:
        os.close(handle)
        raise NotRegular(kind)
    return handle


def _opened(path: Path, flags: int) -> int:
    try:
        return os.open(path, flags, 0o666)
    except OSError as error:
        if error.errno not in _TELLING:
            raise
        kind = kind_of((path.lstat() if flags & os.O_NOFOLLOW else path.stat()).st_mode)
        if kind is None:
            raise
        raise NotRegular(kind) from None


def reading(path: Path, *, links: bool = True) -> BinaryIO:
    """A regular file, open to be read. Raises NotRegular, or any other OSError."""
    return os.fdopen(open_regular(path, links=links), "rb")


def read_regular(path: Path, largest: int, *, links: bool = True) -> bytes:
    """All of a regular file of at most so many bytes. Raises NotRegular, or any other OSError."""
    with reading(path, links=links) as file:
        content = file.read(largest + 1)
    if len(content) > largest:
        raise OSError(f"it has more than {largest:,} bytes, too many for what it should be")
    return content
