"""Files that a user names to be written: what lies at a path decides how, and only a regular file is replaced."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from etude.base.errors import StorageError
from etude.base.files import storage, whole_file
from etude.base.regular import kind_of

_DESCRIPTOR = re.compile(r"/proc/(?:self|\d+)/fd/(\d+)|/dev/fd/(\d+)")
_MOST_LINKS = 40


@contextmanager
def named_file(path: Path) -> Iterator[BinaryIO]:
    """Give a file to be written to what lies at `path`.

    A regular file appears whole or not at all. Of a link, what it leads to is written, and the link stays. A device, a
    FIFO, or a descriptor of this process (`/dev/stdout`) is written to as it is. Raises StorageError.
    """
    number = _descriptor(path)
    with storage("write", path):
        if number is not None:
            with os.fdopen(os.dup(number), "wb") as file:
                yield file
        elif is_stream(path):
            with open(path, "wb", opener=_as_it_is) as file:
                yield file
        else:
            with whole_file(Path(os.path.realpath(path)) if path.is_symlink() else path) as file:
                yield file


def write_named(path: Path, text: str) -> None:
    """Write text (UTF-8) to what lies at `path`, as `named_file` does."""
    with named_file(path) as file:
        file.write(text.encode())


def check_named(path: Path, flag: str) -> None:
    """Refuse, before anything is computed, a path that could not be written. Raises StorageError."""
    folder = Path(os.path.realpath(path)).parent
    if path.is_dir():
        raise StorageError(f"--{flag} {path} cannot be written: {path} is a folder.")
    if not folder.is_dir() and _descriptor(path) is None:
        raise StorageError(f"--{flag} {path} cannot be written: {folder} is not a folder.")


def is_stream(path: Path) -> bool:
    """Whether a device, a FIFO or a socket lies at a path, or where its links lead."""
    try:
        kind = kind_of(path.stat().st_mode)
    except OSError:
        return False
    return kind not in {None, "a folder"}


def _as_it_is(path: str, flags: int) -> int:
    """Open what is there: nothing is made, and no terminal becomes this process's own."""
    return os.open(path, flags & ~(os.O_CREAT | os.O_TRUNC) | os.O_NOCTTY)


def _descriptor(path: Path) -> int | None:
    """The descriptor of this process that a path stands for; None for any other path."""
    text = os.path.abspath(path)  # noqa: PTH100 - links are followed one by one
    for _ in range(_MOST_LINKS):
        found = _DESCRIPTOR.fullmatch(text)
        if found:
            return int(found[1] or found[2])
        try:
            text = os.path.normpath(os.path.join(os.path.dirname(text), os.readlink(text)))  # noqa: PTH115, PTH118, PTH120
        except OSError:
            return None
    return None
