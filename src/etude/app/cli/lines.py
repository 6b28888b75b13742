"""Lines as they come: a thread reads, so that answers can begin before the input ends and reading never waits."""

import queue
import threading
from collections.abc import Iterator
from typing import BinaryIO

from etude.base.errors import DataError

AHEAD = 4096
"""Lines read ahead at most."""

SMALLEST, LARGEST = 16, 1024
"""Lines in a window: the first ones are small, for an early answer; while lines are plenty they double."""

LINE_BYTES = 1 << 24
"""A longer line is not read: nothing that is translated at once is 16 MiB of text."""

_Item = str | BaseException | None


class Lines:
    """The lines of a binary stream, in windows of what is there."""

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self._stream, self._name = stream, name
        self._queue: queue.Queue[_Item] = queue.Queue(AHEAD)
        # A daemon: when the reader of our output has gone, a terminal that never ends its input must not keep us.
        threading.Thread(target=self._read, name="reader of lines", daemon=True).start()

    def windows(self) -> Iterator[list[str]]:
        """Give the lines, without their ends, in windows: whatever is there, never empty, waiting for the first alone.

        Raises DataError for a line that is no UTF-8, after every line before it was given.
        """
        size = SMALLEST
        while True:
            window, ending = self._window(size)
            if window:
                yield window
            if isinstance(ending, BaseException):
                raise ending
            if ending:
                return
            size = min(LARGEST, size * 2) if len(window) == size else SMALLEST

    def _window(self, size: int) -> tuple[list[str], BaseException | bool]:
        """Up to `size` lines, and what ended them: an error, the end of input (True), or nothing (False)."""
        window: list[str] = []
        while len(window) < size:
            try:
                item = self._queue.get(block=not window)
            except queue.Empty:
                break
            if not isinstance(item, str):
                return window, item or True
            window.append(item)
        return window, False

    def _read(self) -> None:
        try:
            for number, line in enumerate(iter(lambda: self._stream.readline(LINE_BYTES + 1), b""), 1):
                self._queue.put(self._decoded(line, number))
        except DataError as error:
            self._queue.put(error)
        except OSError as error:
            self._queue.put(DataError(f"{self._name} cannot be read: {error.strerror}."))
        except ValueError as error:  # closed under us
            self._queue.put(DataError(f"{self._name} cannot be read: {error}."))
        else:
            self._queue.put(None)

    def _decoded(self, line: bytes, number: int) -> str:
        if len(line) > LINE_BYTES:
            raise DataError(f"{self._name}, line {number} is longer than {LINE_BYTES >> 20} MiB.")
        line = line.removesuffix(b"\n").removesuffix(b"\r")
        text = _utf8(line, f"{self._name}, line {number}")
        return text.removeprefix("\N{ZERO WIDTH NO-BREAK SPACE}") if number == 1 else text


def _utf8(line: bytes, place: str) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        byte = line[error.start]
        raise DataError(
            f"{place} must be UTF-8, but holds the byte 0x{byte:02x} at position {error.start + 1}."
        ) from None
