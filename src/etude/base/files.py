"""The one door through which files are written: whole or not at all, durable when the call returns."""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from etude.base.config.nest import is_deeper
from etude.base.errors import StorageError
from etude.base.regular import read_regular, reading

HASH_CHUNK = 1 << 20
LARGEST_JSON, DEEPEST_JSON = 1 << 26, 100
"""Bytes and levels of nesting above which a JSON file is none of Etude's."""


@contextmanager
def storage(what: str, path: Path, *, needs: int | None = None) -> Iterator[None]:
    """Turn an operating-system error inside the block into one sentence about doing `what` to `path`.

    Where space ran out, it says how many bytes were needed (`needs`) and how many there are.
    """
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            reason += _space(path, needs)
        raise StorageError(f"Cannot {what} {path}: {reason}.") from error


def _space(path: Path, needs: int | None) -> str:
    needed = "" if needs is None else f"; it needs {_mebibytes(needs)}"
    with suppress(OSError):
        needed += f"{',' if needed else ';'} {_mebibytes(shutil.disk_usage(path.parent).free)} are free"
    return needed


def _mebibytes(count: int) -> str:
    return f"{count / 2**20:,.1f} MiB" if count >= 2**20 / 10 else f"{count:,} bytes"


def fsync_folder(folder: Path) -> None:
    """Make the names in `folder` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def fsync_file(path: Path) -> None:
    """Make the bytes of `path` durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_parts(path: Path, parts: Iterable[bytes | memoryview]) -> tuple[int, str]:
    """Write the file `path` from its parts, durable; return its size and SHA-256.

    It is written in place: for a folder that nobody sees before it is whole. The hash is of what was meant to be
    written, so that a disk which kept something else is found out. Raises OSError.
    """
    size, digest = 0, hashlib.sha256()
    with path.open("wb", buffering=0) as file:
        for part in parts:
            rest = memoryview(part).cast("B")
            size += len(rest)
            while rest:
                written = file.write(rest[:HASH_CHUNK])
                digest.update(rest[:written])
                rest = rest[written:]
        os.fsync(file.fileno())
    return size, digest.hexdigest()


def write_bytes(path: Path, content: bytes) -> None:
    """Replace `path` by `content` in one move; a reader sees the old bytes or the new, never a part."""
    with whole_file(path) as file:
        file.write(content)


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Give a file to be written, and move it to `path`, durable, where that has gone well."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with storage("write", path):
        try:
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
        fsync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """Replace `path` by `text` (UTF-8) in one move."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: object) -> None:
    """Replace `path` by `value` as JSON in one move."""
    write_bytes(path, json_bytes(value))


def json_bytes(value: object) -> bytes:
    """`value` as the text of a JSON file."""
    return (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def read_json(path: Path, largest: int = LARGEST_JSON) -> dict[str, Any]:
    """The object in a JSON file of at most `largest` bytes, and of bounded depth.

    Raises StorageError where it cannot be read, or holds something else.
    """
    with storage("read", path):
        content = read_regular(path, largest)
    try:
        return _object(content)
    except (ValueError, RecursionError) as error:
        raise StorageError(f"{path} is damaged: {' '.join(str(error).split())}.") from error


def _object(content: bytes) -> dict[str, Any]:
    """The object that JSON text holds. Raises ValueError, or RecursionError."""
    value = json.loads(content)
    if not isinstance(value, dict):
        raise ValueError(f"it must hold an object, but holds a {type(value).__name__}")  # noqa: TRY004 - of a file
    if is_deeper(value, DEEPEST_JSON):
        raise ValueError(f"it is nested more than {DEEPEST_JSON} levels deep")
    return value


def json_or_empty(path: Path) -> dict[str, Any]:
    """The object in a JSON file, and an empty one where there is none to read."""
    try:
        return read_json(path)
    except StorageError:
        return {}


def make_folder(folder: Path) -> None:
    """Make `folder` and what leads to it."""
    with storage("make the folder", folder):
        folder.mkdir(parents=True, exist_ok=True)


@contextmanager
def whole_folder(place: Path, what: str, *, replace: bool = False) -> Iterator[Path]:
    """Give an empty folder to be filled, and move it to `place`, durable, where that has gone well.

    Whoever looks finds all of it or nothing, also after a kill. A folder that is at `place` and not empty is kept, and
    an error, unless it is to be replaced. Errors of the disk speak of `what` was being done.
    """
    part = place.with_name(f".{place.name}.part")
    with storage(what, place):
        remove(part)
        part.mkdir(parents=True)
        try:
            yield part
            for path in part.rglob("*"):
                (fsync_folder if path.is_dir() else fsync_file)(path)
            fsync_folder(part)
            if replace:
                remove(place)
            part.rename(place)
            fsync_folder(place.parent)
        finally:
            remove(part)


def remove(path: Path) -> None:
    """Remove a folder with all it holds, a link or a file, if it is there. Raises OSError."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def replace_link(link: Path, target: str) -> None:
    """Let `link` point to the relative `target`, replacing an older link in one move."""
    temporary = link.with_name(f".{link.name}.{os.getpid()}.tmp")
    with storage("set the link", link):
        with suppress(FileNotFoundError):
            temporary.unlink()
        try:
            temporary.symlink_to(target)
            temporary.replace(link)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
        fsync_folder(link.parent)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with reading(path) as file:
        while chunk := file.read(HASH_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
