"""Folders of a cache: prepared once by one process at a time, and found whole or not at all.

Each has a manifest that names what is in it: a format, a key (the content that it was made of), and its files by their
sizes and hashes, and its own hash. It is written beside its place and renamed when it is whole.
"""

import contextlib
import errno
import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self, TypeVar

from etude.base.errors import StorageError
from etude.base.files import fsync_file, make_folder, storage, whole_folder, write_json
from etude.base.hashes import Facts, first_damaged, read_sealed, sealed
from etude.base.says import Say

MANIFEST = "manifest.json"

T = TypeVar("T")


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
            notice(f"{path.parent} cannot be locked: make sure that no other process prepares the same data now.")
        yield


def place_of(cache: Path, kind: str, key: str, form: int) -> Path:
    """Name the folder of what `key` names, in a format of its own."""
    return cache / kind / f"{key[:32]}-{form}"


def prepared(place: Path, opened: Callable[[Path], T | None], write: Callable[[Path], None], notice: Say) -> T:
    """Open the folder `place`, or have it written first; `opened` gives None where it is not there or not whole.

    `write` is given the folder beside it to write to. A call that is killed leaves nothing that a later one would take
    for whole; of two calls at once one waits.
    """
    found = opened(place)
    if found is not None:
        return found
    make_folder(place.parent)
    with locked(place, notice):
        found = opened(place)
        if found is not None:
            return found
        if place.exists():
            notice(f"The prepared data in {place} is damaged or foreign: Etude prepares it again.")
        with whole_folder(place, "write the prepared data in", replace=True) as part:
            write(part)
        found = opened(place)
    assert found is not None, f"{place} was written just now"
    return found


class WrittenFile:
    """A file that is being written, with its size and hash so far."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("wb")
        self._digest = hashlib.sha256()
        self.size = 0

    def write(self, content: bytes | memoryview) -> None:
        """Write further bytes."""
        self._file.write(content)
        self._digest.update(content)
        self.size += len(content)

    def close(self) -> None:
        """Make what was written durable."""
        if not self._file.closed:
            self._file.close()
            fsync_file(self._path)

    def abandon(self) -> None:
        """Close the file as it is."""
        self._file.close()

    @property
    def facts(self) -> dict[str, int | str]:
        """What a manifest says of the file."""
        return {"size": self.size, "sha256": self._digest.hexdigest()}


class FolderWriter:
    """The files of a folder that is being written; its manifest comes last."""

    def __init__(self, folder: Path, form: int, key: str) -> None:
        self.folder = folder
        self._head = {"format": form, "key": key}
        self._files: dict[str, WrittenFile] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            file.abandon()

    def open(self, name: str) -> WrittenFile:
        """Begin a file."""
        self._files[name] = file = WrittenFile(self.folder / name)
        return file

    def close(self, facts: Mapping[str, object]) -> None:
        """Make every file durable, and write the manifest with `facts`."""
        for file in self._files.values():
            file.close()
        files = {name: self._files[name].facts for name in sorted(self._files)}
        write_json(self.folder / MANIFEST, sealed({**self._head, **facts, "files": files}))


def manifest_of(folder: Path) -> dict[str, Any]:
    """Read the manifest of a folder. Raises StorageError where it is not as it was written."""
    return read_sealed(folder / MANIFEST)


def is_whole(folder: Path, form: int, key: str) -> bool:
    """Tell whether a folder holds all that its manifest says, bit for bit, in this format, of what `key` names.

    Files that have not changed since they were found right are not read again.
    """
    try:
        manifest = manifest_of(folder)
        files = {str(name): Facts(**facts) for name, facts in manifest["files"].items()}
        named = (manifest["format"], manifest["key"]) == (form, key)
    except (StorageError, KeyError, TypeError, AttributeError):
        return False
    return named and bool(files) and first_damaged(folder, files, _memory(folder)) is None


def _memory(folder: Path) -> Path:
    """Where it is remembered which files of a folder were found right."""
    place = folder.parent.parent / "checked"
    with contextlib.suppress(StorageError):
        make_folder(place)
    return place / f"{folder.parent.name}-{folder.name}.json"
