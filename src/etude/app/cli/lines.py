"""Lines as they come: a thread reads, so that answers can begin before the input ends and reading never waits."""

import queue
import threading
from collections.abc import Iterator
from typing import BinaryIO

from etude.base.errors import DataError
from etude.data.files.lines import Flaw, text_of

AHEAD = 4096
"""Lines read ahead at most."""

SMALLEST, LARGEST = 16, 1024
"""Lines in a window: the first ones are small, for an early answer; while lines are plenty they double."""

LINE_BYTES = 1 << 24
"""A longer line is not read: nothing that is translated at once is 16 MiB of text."""

_Item = str | Flaw | BaseException | None


class Lines:
    """The lines of a binary stream, in windows of what is there; `whole` ones of a file, all of which is."""

    def __init__(self, stream: BinaryIO, name: str, *, whole: bool = False) -> None:
        self._stream, self._name, self._whole = stream, name, whole
        self._queue: queue.Queue[_Item] = queue.Queue(AHEAD)
        # A daemon: when the reader of our output has gone, a terminal that never ends its input must not keep us.
        threading.Thread(target=self._read, name="reader of lines", daemon=True).start()

    def windows(self) -> Iterator[list[str | Flaw]]:
        """Give the lines, without their ends, in windows: whatever is there, never empty, waiting for the first alone.

        In the place of a line that is no text stands why. Raises DataError where the input cannot be read further,
        after every line before was given.
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

    def _window(self, size: int) -> tuple[list[str | Flaw], BaseException | bool]:
        """Up to `size` lines, and what ended them: an error, the end of input (True), or nothing (False)."""
        window: list[str | Flaw] = []
        while len(window) < size:
            try:
                item = self._queue.get(block=self._whole or not window)
            except queue.Empty:
                break
            match item:
                case None:
                    return window, True
                case BaseException():
                    return window, item
                case line:
                    window.append(line)
        return window, False

    def _read(self) -> None:
        try:
            for number, line in enumerate(iter(self._line, b"")):
                self._queue.put(_decoded(line, first=number == 0))
        except OSError as error:
            self._queue.put(DataError(f"{self._name} cannot be read: {error.strerror}."))
        except ValueError as error:  # closed under us
            self._queue.put(DataError(f"{self._name} cannot be read: {error}."))
        else:
            self._queue.put(None)

    def _line(self) -> bytes:
        """The next line, its end included; of one that is too long only so much that this shows."""
        line = part = self._stream.readline(LINE_BYTES + 1)
        while len(part) > LINE_BYTES and not part.endswith(b"\n"):
            part = self._stream.readline(LINE_BYTES + 1)
        return line


def _decoded(line: bytes, *, first: bool) -> str | Flaw:
    if len(line) > LINE_BYTES:
        return Flaw(f"the line is longer than {LINE_BYTES >> 20} MiB")
    return text_of(line.removesuffix(b"\n"), first=first)
