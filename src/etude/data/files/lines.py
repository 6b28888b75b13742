"""Lines of text files by number: an index of where each starts, so that any of them is one read away.

A file is read with `pread` rather than mapped, because a mapped file that another process cuts short ends this one.
"""

import contextlib
import hashlib
import os
import stat
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from etude.base.errors import DataError
from etude.base.files import make_folder, sha256_of, storage
from etude.base.hashes import Facts, first_damaged, sealed_or_empty, write_sealed

CHUNK_BYTES = 1 << 20
BLOCK_BYTES = 1 << 20
BLOCK_LINES = 4096
"""How much is read at once, at most (a longer line alone excepted)."""

LINE_BYTES = 1 << 24
"""A longer line is a bad sample: nothing that one model reads at once is 16 MiB of text."""

SETTLED_SECONDS = 2.0
"""A file changed less than this before it was hashed may have changed within the clock's tick: it is hashed again."""

LEFTOVER_SECONDS = 86_400.0

NEWLINE = 10
MARKS = (b"\xff\xfe", b"\xfe\xff")
"""What a file in UTF-16 begins with."""
UTF16 = "the text is in UTF-16: save it as UTF-8, or convert it (iconv -f UTF-16 -t UTF-8 OLD > NEW)"


class Flaw(NamedTuple):
    """Why a line is no sample."""

    reason: str
    """A clause, such as `the source is empty`."""

    side: str = "source"
    """The side that it was found on, where each side has a file of its own."""


class LineFile:
    r"""A text file as a sequence of lines; memory does not grow with it.

    Lines end at `\n` or `\r\n` and nowhere else. With a `cache` folder the index of lines is kept there, by the
    file's content; without one it is held in memory, 8 bytes a line. Raises DataError where there is nothing to read.
    """

    def __init__(self, path: Path, cache: Path | None = None) -> None:
        self.path = path
        try:
            if not stat.S_ISREG(path.stat().st_mode):
                kind = "a folder" if path.is_dir() else "a stream, and cannot be read twice"
                raise DataError(f"{shown(path)} must be a file, but is {kind}.")
            self._handle = os.open(path, os.O_RDONLY)
        except FileNotFoundError as error:
            raise DataError(f"{shown(path)} does not exist.") from error
        except OSError as error:
            raise DataError(f"{shown(path)} cannot be read: {error.strerror}.") from error
        weakref.finalize(self, os.close, self._handle)
        self.sha256, self._starts = self._index(cache)

    def __len__(self) -> int:
        """Count the lines; a last line without its end counts."""
        return len(self._starts) - 1

    def holds(self, sign: str) -> bool:
        """Tell whether an ASCII character occurs anywhere in the file."""
        position, wanted = 0, sign.encode()
        while chunk := self._chunk(position):
            if wanted in chunk:
                return True
            position += len(chunk)
        return False

    def decoded(self, start: int, stop: int) -> Iterator[str | Flaw]:
        """Give the lines from `start` to before `stop` without their ends, or why one is no text."""
        while start < stop:
            part = self._block(start, stop)
            yield from self._decoded(start, part)
            start = part

    def _block(self, start: int, stop: int) -> int:
        """Find how many lines from `start` on fit a block: at least one."""
        stop = min(stop, start + BLOCK_LINES)
        limit = int(self._starts[start]) + BLOCK_BYTES
        fitting = int(np.searchsorted(self._starts[start : stop + 1], limit, side="right")) - 1
        return start + max(1, fitting)

    def _decoded(self, start: int, stop: int) -> Iterator[str | Flaw]:
        begin, end = int(self._starts[start]), int(self._starts[stop])
        if stop == start + 1 and end - begin > LINE_BYTES:
            yield Flaw(f"the line is longer than {LINE_BYTES >> 20} MiB")
            return
        block = self._read(begin, end)
        lines = block.removesuffix(b"\n").split(b"\n")
        if len(lines) != stop - start:
            raise DataError(f"{shown(self.path)} has changed while it was read.")
        for number, line in enumerate(lines, start):
            yield text_of(line, first=number == 0)

    def _read(self, begin: int, end: int) -> bytes:
        parts = []
        try:
            while begin < end and (part := os.pread(self._handle, end - begin, begin)):
                parts.append(part)
                begin += len(part)
        except OSError as error:
            raise DataError(f"{shown(self.path)} cannot be read: {error.strerror}.") from error
        if begin < end:
            raise DataError(f"{shown(self.path)} has become shorter while it was read.")
        return b"".join(parts)

    def _index(self, cache: Path | None) -> tuple[str, npt.NDArray[np.int64]]:
        """Find the hash of the content and where lines start, from the cache if the file is the one it knows."""
        if os.fstat(self._handle).st_size == 0:
            raise DataError(f"{shown(self.path)} is empty.")
        if cache is None:
            pieces: list[npt.NDArray[np.int64]] = []
            sha256, _ = self._scan(pieces.append)
            return sha256, np.concatenate(pieces)
        make_folder(cache / "lines")
        _forget_leftovers(cache / "lines")
        entry = cache / "files" / (hashlib.sha256(os.fsencode(self.path.absolute())).hexdigest()[:32] + ".json")
        known = _remembered(entry, self._identity())
        starts = None if known is None else _mapped(cache / "lines" / f"{known.sha256}.bin", self._identity()[0], known)
        return (known.sha256, starts) if known is not None and starts is not None else self._scanned(cache, entry)

    def _scanned(self, cache: Path, entry: Path) -> tuple[str, npt.NDArray[np.int64]]:
        identity, now = self._identity(), time.time()
        temporary = cache / "lines" / f".{os.getpid()}-{entry.stem}.tmp"
        with storage("write", temporary), contextlib.ExitStack() as stack:
            stack.callback(temporary.unlink, missing_ok=True)
            with temporary.open("wb") as file:
                sha256, size = self._scan(lambda starts: file.write(starts.tobytes()))
                file.flush()
                os.fsync(file.fileno())
            final = cache / "lines" / f"{sha256}.bin"
            temporary.replace(final)
        starts = _mapped(final, size)
        if starts is None or self._identity() != identity:
            raise DataError(f"{shown(self.path)} has changed while it was read.")
        if now - max(identity[1], identity[2]) / 1e9 > SETTLED_SECONDS:
            make_folder(entry.parent)
            write_sealed(entry, {"identity": list(identity), "content": sha256, "index": sha256_of(final)})
        return sha256, starts

    def _scan(self, keep: Callable[[npt.NDArray[np.int64]], object]) -> tuple[str, int]:
        """Read the file once: hand on where lines start and where the last ends; give hash and size."""
        digest, position = hashlib.sha256(), 0
        keep(np.zeros(1, dtype=np.int64))
        last = NEWLINE
        while chunk := self._chunk(position):
            digest.update(chunk)
            keep(np.flatnonzero(np.frombuffer(chunk, dtype=np.uint8) == NEWLINE) + (position + 1))
            position += len(chunk)
            last = chunk[-1]
        if last != NEWLINE:
            keep(np.array([position], dtype=np.int64))
        return digest.hexdigest(), position

    def _chunk(self, position: int) -> bytes:
        try:
            return os.pread(self._handle, CHUNK_BYTES, position)
        except OSError as error:
            raise DataError(f"{shown(self.path)} cannot be read: {error.strerror}.") from error

    def _identity(self) -> tuple[int, int, int, int, int]:
        """Give what changes when the file does: size, two times, and which file it is."""
        now = os.fstat(self._handle)
        return now.st_size, now.st_mtime_ns, now.st_ctime_ns, now.st_ino, now.st_dev


def _forget_leftovers(folder: Path) -> None:
    """Remove what processes that were killed have left, once it is so old that none can still be writing it."""
    for path in folder.glob(".*.tmp"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > LEFTOVER_SECONDS:
                path.unlink()


def shown(text: object, limit: int = 200) -> str:
    """Give text that is safe to print: control characters escaped, long text cut."""
    safe = "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode("ascii") for c in str(text)
    )
    return safe if len(safe) <= limit else safe[: limit - 3] + "..."


def is_blank(text: str) -> bool:
    """Tell whether text holds nothing but white space, that of Unicode included."""
    return not text or text.isspace()


def is_utf16(content: bytes) -> bool:
    """Tell whether a file that begins so is in UTF-16: by its mark, or because every second byte is zero."""
    head = content[:64]
    halves = (head[0::2], head[1:-1:2])
    return head.startswith(MARKS) or (len(head) > 4 and any(head) and not all(map(any, halves)))  # noqa: PLR2004 - two


def text_of(line: bytes, *, first: bool) -> str | Flaw:
    """Give the text of a line without its end, or why it is none; a file's `first` may begin with a byte order mark."""
    if first and is_utf16(line):
        return Flaw(UTF16)
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        return Flaw(f"invalid UTF-8 (byte 0x{line[error.start]:02x} at position {error.start + 1})")
    if first:
        text = text.removeprefix("\N{ZERO WIDTH NO-BREAK SPACE}")  # a byte order mark
    return text.removesuffix("\r")


class _Known(NamedTuple):
    """What the cache knows of a state of a file."""

    sha256: str
    starts_sha256: str
    """Of its index of lines."""


def _remembered(entry: Path, identity: tuple[int, ...]) -> _Known | None:
    """Give what the cache holds of this very state of a file."""
    match sealed_or_empty(entry):
        case {"identity": list() as known, "content": str(content), "index": str(index)} if known == list(identity):
            return _Known(content, index)
    return None  # no cache, or not ours: the file is read again


def _mapped(path: Path, size: int, known: _Known | None = None) -> npt.NDArray[np.int64] | None:
    """Map an index of lines; None where there is none that fits a file of `size` bytes, or none that is `known`."""
    try:
        found = path.stat().st_size
        if found % 8 or (known is not None and _differs(path, Facts(found, known.starts_sha256))):
            return None
        starts = np.memmap(path, dtype=np.int64, mode="r")
    except (OSError, ValueError):
        return None
    fits = len(starts) > 1 and starts[0] == 0 and starts[-1] == size
    return starts if fits else None


def _differs(path: Path, facts: Facts) -> bool:
    """Tell whether an index is not what it was; it is read again only where it has changed."""
    memory = path.parent.parent / "checked" / f"lines-{path.stem}.json"
    make_folder(memory.parent)
    return first_damaged(path.parent, {path.name: facts}, memory) is not None
