"""Signals: the first lets the step end and a save follow, a second Ctrl-C ends at once."""

import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any, Self

from etude.base.signals import BEFORE_THE_END, REQUEUE

EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}


class Interrupted(SystemExit):
    """Raised when an interrupted run has saved; its code is 130 (Ctrl-C), 143 (SIGTERM) or 75 (to be queued again)."""

    def __init__(self, received: signal.Signals, result: Any = None, code: int | None = None) -> None:
        super().__init__(EXIT_CODES[received] if code is None else code)
        self.received = received
        self.result = result


class InterruptedByHand(Interrupted, KeyboardInterrupt):
    """Raised after the save that follows Ctrl-C: a script catches it as KeyboardInterrupt, else it ends with 130."""


class Interrupts:
    """Remembers the first signal of the process while a run is inside the `with` block.

    `requeue` names the signals that ask for a run to be queued again.
    """

    def __init__(self, requeue: Iterable[str] = BEFORE_THE_END) -> None:
        self.received: signal.Signals | None = None
        self._codes = EXIT_CODES | _asking(requeue)
        self._old: Mapping[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._old = answered(self._codes, self._take)
        return self

    def __exit__(self, *_: object) -> None:
        put_back(self._old)

    def ending(self, result: Any) -> Interrupted | None:
        """What the signal ends the process with; None where none came."""
        if self.received is None:
            return None
        kind = InterruptedByHand if self.received is signal.SIGINT else Interrupted
        return kind(self.received, result, self._codes[self.received])

    def _take(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = self.received or signal.Signals(number)


@contextmanager
def requeued(names: Iterable[str]) -> Iterator[None]:
    """Let a signal that asks for a requeue leave the block at once, as Interrupted; there is nothing to save yet."""
    codes = _asking(names)

    def leave(number: int, frame: FrameType | None) -> None:
        del frame
        raise Interrupted(signal.Signals(number), code=codes[signal.Signals(number)])

    old = answered(codes, leave)
    try:
        yield
    finally:
        put_back(old)


Handler = Callable[[int, FrameType | None], Any]


def answered(signals: Iterable[signal.Signals], handler: Handler) -> Mapping[signal.Signals, Any]:
    """Answer signals by `handler`; what did so before.

    Only the main thread can, and a handler that Python did not set is left, since it could not be put back.
    """
    if threading.current_thread() is not threading.main_thread():
        return {}
    ours = [number for number in signals if signal.getsignal(number) is not None]
    return {number: signal.signal(number, handler) for number in ours}


def put_back(old: Mapping[signal.Signals, Any]) -> None:
    """Let signals be answered as they were before `answered`."""
    for number, handler in old.items():
        signal.signal(number, handler)


def _asking(names: Iterable[str]) -> dict[signal.Signals, int]:
    return {signal.Signals[name]: REQUEUE for name in names}
