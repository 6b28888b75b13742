"""One process on a run folder at a time."""

import contextlib
import fcntl
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from etude.base.errors import RefusedError
from etude.base.files import make_folder, storage

_FILE = ".lock"


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
        with storage("write", path):
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.read(handle, 200).decode(errors="replace").strip() or "another process"
            os.close(handle)
            raise RefusedError(
                f"The run folder {self._folder} is in use by {holder}; wait for it, stop it, or give --run.name."
            ) from None
        os.ftruncate(handle, 0)
        os.write(handle, f"process {os.getpid()} on {socket.gethostname()}".encode())
        self._handle = handle
        return self

    def __exit__(self, *_: object) -> None:
        if self._handle is not None:
            with contextlib.suppress(OSError):
                os.ftruncate(self._handle, 0)
            os.close(self._handle)
            self._handle = None


@contextmanager
def claimed(folder: Path) -> Iterator[Path]:
    """Hold the run folder for this process, made if need be.

    Raises StorageError where nothing can be written there, RefusedError where another process holds it.
    """
    make_folder(folder)
    with storage("write in", folder):
        # Opening a file says nothing about a full disk or a folder turned read-only; writing one does.
        handle, name = tempfile.mkstemp(prefix=".probe-", dir=folder)
        try:
            os.write(handle, b"etude")
        finally:
            os.close(handle)
            Path(name).unlink()
    with Lock(folder):
        yield folder
