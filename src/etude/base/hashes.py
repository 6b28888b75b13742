"""Files that are believed only where they have the hashes that were written down for them.

A hash is computed once for each state of a file: which files were found right is remembered with what changes when they
do (size, times and which file it is), and only a file that has changed since is read again.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import filterfalse
from pathlib import Path
from typing import Any, NamedTuple

from etude.base.errors import StorageError
from etude.base.files import json_bytes, make_folder, read_json, sha256_of, storage, write_json

SEAL = "sha256"
SETTLED_SECONDS = 2.0
"""A file changed less than this before it was hashed may change again within the clock's tick: it is hashed again."""


class Facts(NamedTuple):
    """What a file must be."""

    size: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> "Facts":
        """Those of a file as it is. Raises OSError."""
        return cls(path.stat().st_size, sha256_of(path))


# -- JSON with a hash of itself ------------------------------------------------------------------------------------


def write_sealed(path: Path, value: Mapping[str, object]) -> None:
    """Write an object as JSON in one move, with a hash of its content."""
    write_json(path, sealed(value))


def sealed(value: Mapping[str, object]) -> dict[str, object]:
    """An object with a hash of its content."""
    return {**value, SEAL: _seal(value)}


def read_sealed(path: Path) -> dict[str, Any]:
    """The object that `write_sealed` wrote. Raises StorageError where it cannot be read, or is not that any more."""
    value = read_json(path)
    seal = value.pop(SEAL, None)
    if not _is_seal(seal, value):
        raise StorageError(f"{path} is damaged: its content does not have the sha256 that it holds.")
    return value


def sealed_or_empty(path: Path) -> dict[str, Any]:
    """The object that `write_sealed` wrote, and an empty one where there is none to believe."""
    try:
        return read_sealed(path)
    except StorageError:
        return {}


def _is_seal(seal: object, value: Mapping[str, object]) -> bool:
    try:
        return seal == _seal(value)
    except ValueError:  # damage can make a number too large for a float, or half a surrogate pair
        return False


def _seal(value: Mapping[str, object]) -> str:
    return hashlib.sha256(json_bytes(value)).hexdigest()


# -- other files ---------------------------------------------------------------------------------------------------


def first_damaged(folder: Path, files: Mapping[str, Facts], memory: Path | None = None) -> Path | None:
    """The first of the files of a folder that is missing or not what it must be; None where all are right.

    Those that were found right are remembered in the file `memory`, where one is given that can be written.
    """
    known = {} if memory is None else sealed_or_empty(memory)
    checks = [_Check(folder / name, name, facts, known.get(name)) for name, facts in files.items()]
    damaged = next(filterfalse(_Check.is_right, checks), None)
    if damaged is not None:
        return damaged.path
    fresh = {check.name: check.state for check in filter(_Check.is_settled, checks)}
    if memory is not None and fresh != known:
        with suppress(StorageError):  # a cache that only others may write is checked every time
            write_sealed(memory, fresh)
    return None


class _Check:
    """A file, and what it must be."""

    def __init__(self, path: Path, name: str, facts: Facts, known: object) -> None:
        self.path, self.name, self._facts = path, name, facts
        self.state: list[int | str] = []
        """Its hash, and what changes when it does."""
        self._known = known
        self._begun = time.time()

    def is_right(self) -> bool:
        """Whether it has its size and its hash, which is computed unless the same state is known to have it."""
        try:
            self.state = [self._facts.sha256, *state_of(self.path)]
            if self.state[1] != self._facts.size:
                return False
            return self.state == self._known or sha256_of(self.path) == self._facts.sha256
        except OSError:
            return False

    def is_settled(self) -> bool:
        """Whether a change from now on must show in its times."""
        return self.state == self._known or self._begun - max(map(int, self.state[2:4])) / 1e9 > SETTLED_SECONDS


def state_of(path: Path) -> tuple[int, int, int, int]:
    """What changes when a file does: size, two times, and which file it is. Raises OSError."""
    now = path.stat()
    return now.st_size, now.st_mtime_ns, now.st_ctime_ns, now.st_ino


def content_of(paths: Iterable[Path], memory: Path, *, deep: bool) -> str:
    """A SHA-256 of what files hold, by their names, wherever they lie; without `deep` of names and sizes alone.

    What was hashed once is remembered in the folder `memory`, by the states of all files: files are read again where
    one of them has changed. A file that is not there counts as such.
    """
    listed, begun = list(paths), time.time()
    states = [_state_or_none(path) for path in listed]
    if not deep:
        return _digest((path.name, state[0]) for path, state in zip(listed, states, strict=True))
    named = _digest((os.fsencode(path).hex(), *state) for path, state in zip(listed, states, strict=True))
    place = memory / f"{named[:32]}.json"
    match sealed_or_empty(place):
        case {"content": str(known)}:
            return known
    found = _digest((path.name, sha256_of(path) if path.is_file() else "") for path in listed)
    newest = max((max(state[1:3]) for state in states if len(state) > 1), default=0)
    if begun - newest / 1e9 > SETTLED_SECONDS:
        with suppress(StorageError):  # a cache that only others may write
            make_folder(place.parent)
            write_sealed(place, {"content": found})
    return found


def _state_or_none(path: Path) -> tuple[int, ...]:
    try:
        return state_of(path)
    except OSError:
        return (-1,)


def _digest(parts: Iterable[tuple[object, ...]]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(json.dumps(part).encode())
    return digest.hexdigest()


# -- a small folder that lists its own hashes ----------------------------------------------------------------------

HASHES = "hashes"


def write_hashes(folder: Path) -> None:
    """Write down the hashes of all files that a folder holds."""
    with storage("read", folder):
        write_sealed(folder / HASHES, {"files": {name: Facts.of(folder / name) for name in _names(folder)}})


def check_hashes(folder: Path) -> None:
    """Raise StorageError where a file is not as `write_hashes` found it; a folder without hashes is believed."""
    if not (folder / HASHES).exists():
        return
    facts = {name: Facts(*entry) for name, entry in read_sealed(folder / HASHES)["files"].items()}
    damaged = first_damaged(folder, facts)
    if damaged is not None:
        raise StorageError(f"{damaged} is damaged: its sha256 differs from that in {HASHES}, or it is missing.")


def _names(folder: Path) -> Iterator[str]:
    return (path.name for path in sorted(folder.iterdir()) if path.is_file() and path.name != HASHES)
