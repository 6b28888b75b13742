"""One process on a run folder at a time."""

import errno
import fcntl
import os
import socket
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Self

from etude.base.errors import ConfigError, DataError, RefusedError, StorageError
from etude.base.files import make_folder, remove, storage
from etude.base.regular import open_regular, reading
from etude.train.world import refuse_ranks

_FILE, _PROBE = ".lock", ".probe-"
_FLOCK = "hhqqi4x"
"""C's struct flock as Linux lays it out: kind, whence, start, length, process."""
_BUSY = {errno.EACCES, errno.EAGAIN}
OWN = (
    _FILE,
    "config.toml",
    "environment.json",
    "data.json",
    "metrics.jsonl",
    "skipped.jsonl",
    "fork.json",
    "checkpoints",
    "tokenizers",
    "outputs",
    "code",
    "shared",
    ".cache",
)
"""What a run reads and writes in its folder."""
OF_LOGGERS = ("tensorboard", "mlflow", "wandb")
"""Folders in it whose content is a logger's own: wandb, for one, links files of a user's there."""

_WANTED = ("metrics.jsonl", "checkpoints", "skipped.jsonl", "fork.json", "pipeline.json")
"""What is left of a run that was refused, where it had come so far."""

_held: set[int] = set()
"""Descriptors of the locks that this process holds."""


def _let_go_in_child() -> None:
    """Close what a forked process was born with: a loader worker that outlives its run must not keep the folder."""
    for handle in _held:
        with suppress(OSError):
            os.close(handle)
    _held.clear()


os.register_at_fork(after_in_child=_let_go_in_child)


class Lock:
    """An exclusive lock on a run folder while inside the `with` block.

    It belongs to the file as it was opened here, so that no other code of the process can let it go by opening and
    closing the file; forked workers do not keep it; and it is gone with its process however that ends, so that a dead
    process's lock needs no cleaning up. The file names its holder for whoever is refused.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._handle: int | None = None

    def __enter__(self) -> Self:
        make_folder(self._folder)
        path = self._folder / _FILE
        with storage("lock", path):
            handle = open_regular(path, os.O_RDWR | os.O_CREAT, links=False)
            try:
                self._take(handle)
            except BaseException:
                os.close(handle)
                raise
        self._handle = handle
        _held.add(handle)
        return self

    def _take(self, handle: int) -> None:
        """Lock the file and name the holder in it. Raises RefusedError where another has it."""
        try:
            _lock(handle)
        except OSError as error:
            if error.errno not in _BUSY:
                raise
            raise self._refusal(_holder(handle)) from None
        os.ftruncate(handle, 0)
        os.write(handle, _own_name().encode())

    def _refusal(self, holder: str) -> RefusedError:
        return RefusedError(
            f"The run folder {self._folder} is in use by {holder}; wait for it, stop it, or give --run.name."
        )

    def __exit__(self, *_: object) -> None:
        handle, self._handle = self._handle, None
        if handle in _held:  # not so in a forked child, which has let go of it
            _held.discard(handle)
            with suppress(OSError):
                os.ftruncate(handle, 0)
            os.close(handle)


def _lock(handle: int) -> None:
    """Lock an open file for as long as it is open here. Raises OSError where another has locked it."""
    if hasattr(fcntl, "F_OFD_SETLK"):
        fcntl.fcntl(handle, fcntl.F_OFD_SETLK, struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    else:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def is_locked(folder: Path) -> bool:
    """Whether a process holds the lock of a run folder; asked without taking it, so that no start is disturbed."""
    try:
        with reading(folder / _FILE, links=False) as file:
            if not hasattr(fcntl, "F_OFD_SETLK"):  # its holder's name has to do, which one that was killed leaves
                return bool(file.read(1))
            asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            return bool(struct.unpack(_FLOCK, fcntl.fcntl(file, fcntl.F_GETLK, asked))[0] != fcntl.F_UNLCK)
    except OSError:
        return False


def _own_name() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"


def _holder(handle: int) -> str:
    """Who is named in the file of a lock."""
    named = os.pread(handle, 200, 0).decode(errors="replace").strip()
    return "this process itself" if named == _own_name() else named or "another process"


def refuse_links_out(folder: Path) -> None:
    """Refuse a run folder of whose own files one is a link that leads out of it: no link in it is ever followed there.

    Raises StorageError, which names the link.
    """
    home = Path(os.path.realpath(folder))
    for path in filter(Path.is_symlink, _own_paths(folder)):
        if home not in Path(os.path.realpath(path)).parents:
            raise StorageError(
                f"{path} is a link to {path.readlink()}, outside of the run folder, which must hold its own files: "
                f"put what it leads to in its place."
            )


def _own_paths(folder: Path) -> Iterator[Path]:
    """Every file and folder that is a run's, the links among them not followed."""
    yield from (folder / name for name in OF_LOGGERS)
    for name in OWN:
        yield folder / name
        for inside, folders, files in os.walk(folder / name):
            yield from (Path(inside, entry) for entry in (*folders, *files))


@contextmanager
def claimed(folder: Path) -> Iterator[Path]:
    """Hold the run folder for this process, made if need be, and without what a killed process left half written.

    Raises DistributedError in one of several ranks, StorageError where nothing can be written there or a link leads
    out of it, RefusedError where another process holds it.
    """
    refuse_ranks()
    is_new = not folder.exists()
    make_folder(folder)
    refuse_links_out(folder)
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
        with _leaving_nothing(folder) if is_new else nullcontext():
            yield folder


@contextmanager
def _leaving_nothing(folder: Path) -> Iterator[None]:
    """Remove a folder that was made for a run which is refused before it has written what somebody could want."""
    try:
        yield
    except (ConfigError, DataError, RefusedError):
        if not any((folder / name).exists() for name in _WANTED):
            remove(folder)
        raise


def _is_left_over(path: Path) -> bool:
    return path.name.startswith(_PROBE) or path.name.endswith(".tmp")
