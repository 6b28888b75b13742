"""SIGTERM and Ctrl-C: the first lets the step end and a save follow, a second Ctrl-C ends at once."""

import signal
import threading
from types import FrameType
from typing import Any, Self

EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}


class Interrupted(SystemExit):
    """Raised when an interrupted run has saved; its code is 130 (Ctrl-C) or 143 (SIGTERM)."""

    def __init__(self, received: signal.Signals, result: Any = None) -> None:
        super().__init__(EXIT_CODES[received])
        self.result = result


class Interrupts:
    """Remembers the first signal of the process while a run is inside the `with` block."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._old: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._old = {number: signal.signal(number, self._take) for number in EXIT_CODES}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _take(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = signal.Signals(number)
