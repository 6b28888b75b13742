"""The bytes of a stream as they come, for input that never ends by itself: Ctrl-C ends it, and its rest is answered."""

import io
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, cast, final

from etude.base.errors import DataError

PIECE = 1 << 16
"""Bytes that are read at a time, at most."""


@final
class Pieces:
    """Whatever bytes are there, waiting for the first alone.

    Ctrl-C ends the stream between two pieces, so that nothing is left half done; a second one interrupts at once.
    """

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self._stream, self._name = cast("io.BufferedReader", stream), name
        self.interrupted = False
        self._is_waiting = False

    def __iter__(self) -> Iterator[bytes]:
        with self._listening():
            while not self.interrupted and (piece := self._next()):
                yield piece

    def _next(self) -> bytes:
        """The next bytes; none at the end."""
        try:
            self._is_waiting = True
            return self._stream.read1(PIECE)
        except KeyboardInterrupt:
            self.interrupted = True
            return b""
        except OSError as error:
            raise DataError(f"{self._name} cannot be read: {error.strerror}.") from error
        finally:
            self._is_waiting = False

    @contextmanager
    def _listening(self) -> Iterator[None]:
        """Take Ctrl-C, where this is the thread that gets it."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGINT, self._end)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _end(self, *_: object) -> None:
        if self._is_waiting or self.interrupted:
            raise KeyboardInterrupt
        self.interrupted = True
