"""The file of a run's rows: appended to, cut back to whole lines, and watched for what others do to it."""

import hashlib
import os
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import final

from etude.base.files import fsync_folder, storage, whole_file
from etude.base.regular import open_regular

BLOCK = 1 << 16


@final
class RowsFile:
    """A file that one run writes and others may append to, such as a test of the run; its methods raise OSError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known = hashlib.sha256()
        """The hash of what this run has found and written."""
        self._length = 0
        """How many bytes that is."""
        self._seen = (0, 0)
        """Size and time of the last change as this run has left them."""
        created = not path.exists()
        with storage("write", path):
            self._file = self._opened()
            if created:
                fsync_folder(path.parent)

    def _opened(self) -> FileIO:
        return open(self._path, "ab+", buffering=0, opener=lambda path, flags: open_regular(path, flags, links=False))

    def cut(self, end: int | None) -> int:
        """Cut the file back to `end` bytes (None: to all it has), or to the last whole line before; give what stays."""
        size = self.size()
        end = self._last_line_end(size if end is None else min(end, size))
        if end != size:
            os.truncate(self._file.fileno(), end)
        self._known, self._length = self._hashed(end), end
        self._look()
        return end

    def hash_of(self, end: int) -> str:
        """The hash of the first `end` bytes; of all of them it is known."""
        return (self._known if end == self._length else self._hashed(end)).hexdigest()

    def append(self, waiting: bytearray) -> None:
        """Write what waits, and take it away as far as it is written."""
        while waiting:  # a write may take a part alone, which must not be written twice
            written = self._file.write(waiting)
            self._known.update(waiting[:written])
            self._length += written
            del waiting[:written]
        self._look()

    def write_anew(self, content: bytes) -> None:
        """Put a file of this content in the place of whatever is there."""
        with whole_file(self._path) as file:
            file.write(content)
        self._file.close()
        self._file = self._opened()
        self.cut(None)

    def what_was_done(self) -> str | None:
        """What somebody has done to the rows that this run has written, as a participle; None while they are there."""
        mine = os.fstat(self._file.fileno())
        if self._is_as_left(mine):
            return None
        if not os.path.lexists(self._path):
            return "removed"
        if not self._is_in_place(mine):
            return "replaced"
        if mine.st_size < self._length:
            return "cut short"
        return self._what_was_changed(mine.st_size)

    def _is_as_left(self, mine: os.stat_result) -> bool:
        return (mine.st_size, mine.st_mtime_ns) == self._seen and self._is_in_place(mine)

    def _what_was_changed(self, size: int) -> str | None:
        """The same of a file that is in place: it has been added to, or holds something else."""
        if self._hashed(self._length).digest() != self._known.digest():
            return "changed"
        self._take_in(size)
        return None

    def _is_in_place(self, mine: os.stat_result) -> bool:
        """Whether the file that is written is the one at its path."""
        try:
            there = os.lstat(self._path)
        except OSError:
            return False
        return os.path.samestat(mine, there)

    def _take_in(self, size: int) -> None:
        """Take what others have appended for a part of the file."""
        self._known, self._length = self._hashed(size), size
        self._look()

    def _look(self) -> None:
        now = os.fstat(self._file.fileno())
        self._seen = now.st_size, now.st_mtime_ns

    def _hashed(self, end: int) -> "hashlib._Hash":
        """The hash of the first `end` bytes."""
        digest = hashlib.sha256()
        for block in self._blocks(end):
            digest.update(block)
        return digest

    def _blocks(self, end: int) -> Iterator[bytes]:
        start = 0
        while start < end and (block := os.pread(self._file.fileno(), min(BLOCK, end - start), start)):
            yield block
            start += len(block)

    def _last_line_end(self, end: int) -> int:
        """Where the last whole line of the first `end` bytes ends."""
        while end:
            start = max(0, end - BLOCK)
            found = os.pread(self._file.fileno(), end - start, start).rfind(b"\n")
            if found >= 0:
                return start + found + 1
            end = start
        return 0

    def size(self) -> int:
        """Bytes of the file."""
        return os.fstat(self._file.fileno()).st_size

    def sync(self) -> None:
        """Make it durable."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close it."""
        self._file.close()
