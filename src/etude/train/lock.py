"""One process on a run folder at a time."""

import errno
import fcntl
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from etude.base.errors import RefusedError
from etude.base.files import make_folder, storage
from etude.train.world import refuse_ranks

_FILE, _PROBE = ".lock", ".probe-"


_held: set[Path] = set()
"""Folders that this process holds: a record lock would let it in a second time."""


class Lock:
    """An exclusive lock on a run folder while inside the `with` block.

    It is a POSIX record lock (`lockf`): not inherited by loader workers, and gone with its process however that
    ends, so that a dead process's lock needs no cleaning up. The file names its holder for whoever is refused.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._handle: int | None = None

    def __enter__(self) -> Self:
        make_folder(self._folder)
        path = self._folder / _FILE
        if self._folder.resolve() in _held:  # before the file is opened: closing it again would let the lock go
            raise self._refusal("this process itself")
        with storage("lock", path):
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.ftruncate(handle, 0)
                os.write(handle, f"process {os.getpid()} on {socket.gethostname()}".encode())
            except OSError as error:
                holder = os.read(handle, 200).decode(errors="replace").strip() or "another process"
                os.close(handle)
                if error.errno not in {errno.EACCES, errno.EAGAIN}:
                    raise
                raise self._refusal(holder) from None
        self._handle = handle
        _held.add(self._folder.resolve())
        return self

    def _refusal(self, holder: str) -> RefusedError:
        return RefusedError(
            f"The run folder {self._folder} is in use by {holder}; wait for it, stop it, or give --run.name."
        )

    def __exit__(self, *_: object) -> None:
        if self._handle is not None:
            _held.discard(self._folder.resolve())
            with suppress(OSError):
                os.ftruncate(self._handle, 0)
            os.close(self._handle)
            self._handle = None


@contextmanager
def claimed(folder: Path) -> Iterator[Path]:
    """Hold the run folder for this process, made if need be, and without what a killed process left half written.

    Raises DistributedError in one of several ranks, StorageError where nothing can be written there, RefusedError where
    another process holds it.
    """
    refuse_ranks()
    make_folder(folder)
    with storage("write in", folder):
        # Opening a file says nothing about a full disk or a folder turned read-only; writing one does.
        handle, name = tempfile.mkstemp(prefix=_PROBE, dir=folder)
        try:
            os.write(handle, b"etude")
        finally:
            os.close(handle)
            Path(name).unlink()
    with Lock(folder):
        for path in filter(_is_left_over, folder.glob(".*")):
            with suppress(OSError):
                path.unlink()
        yield folder


def _is_left_over(path: Path) -> bool:
    return path.name.startswith(_PROBE) or path.name.endswith(".tmp")
