"""Processes that do one kind of work side by side.

They are started as `python -m etude.data.store.crew` rather than by `multiprocessing`, so that a user's script needs no
`if __name__ == "__main__"`, and nothing of this process is copied. A worker reads which work to do and what that needs,
then tasks, and answers each; it ends when its input does, so none outlives the process that started it.
"""

import contextlib
import importlib
import itertools
import json
import os
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from queue import Empty, SimpleQueue
from queue import Queue as BoundedQueue
from threading import Thread
from typing import IO, Any, NamedTuple, Protocol, TypeVar

from etude.base.errors import DataError
from etude.base.signals import leave_to_the_run

AHEAD = 2
"""How many tasks a worker has been given beyond the one that is waited for."""
HELD = 4
"""Messages of each worker that are held until they are asked for; then it waits."""

Facts = dict[str, Any]
T = TypeVar("T")


def cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Message(NamedTuple):
    """A task, or a part of its answer."""

    facts: Facts
    """JSON."""
    parts: Sequence[bytes] = ()


class Work(Protocol):
    """What a worker does, made in the worker from `Order.needs`."""

    def __call__(self, task: Message) -> Iterable[Message]:
        """Answer a task."""


class Order(NamedTuple):
    """Which work is to be done."""

    work: str
    """Where the class of the work is found, such as `package.module:Class`."""
    needs: Mapping[str, object]
    """JSON: what it is made with."""
    does: str
    """What messages say that a worker did, such as `prepared the data`."""


class Crew:
    """`count` workers, each served by a thread, which sends it a task and takes its answer."""

    def __init__(self, order: Order, count: int) -> None:
        self._members = [_Member(order) for _ in range(count)]

    def answers(self, tasks: Iterable[T], message: Callable[[T], Message]) -> Iterator[tuple[T, Iterator[Message]]]:
        """Give each task with the messages of its answer, which are to be read before the next; in order."""
        pending: deque[tuple[T, _Member]] = deque()
        for task, member in zip(tasks, itertools.cycle(self._members)):
            member.give(message(task))
            pending.append((task, member))
            if len(pending) > AHEAD * len(self._members):
                done, worker = pending.popleft()
                yield done, worker.answer()
        for done, worker in pending:
            yield done, worker.answer()

    def close(self) -> None:
        """End the processes, whatever they are doing."""
        for member in self._members:
            member.kill()
        for member in self._members:
            member.close()


class _Member:
    """A process and the thread that serves it."""

    def __init__(self, order: Order) -> None:
        self._does = order.does
        self._tasks: SimpleQueue[Message | None] = SimpleQueue()
        self._answers: BoundedQueue[Message | Exception | None] = BoundedQueue(HELD)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "etude.data.store.crew"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            start_new_session=True,  # Ctrl-C goes to the process that started it, which ends it
        )
        self._thread = Thread(target=self._serve, args=(order,), name="crew", daemon=True)
        self._thread.start()

    def give(self, task: Message) -> None:
        """Have a task done when those before it are."""
        self._tasks.put(task)

    def answer(self) -> Iterator[Message]:
        """Give the messages that answer the next task. Raises DataError where the worker failed or died."""
        while (message := self._answers.get()) is not None:
            if isinstance(message, Exception):
                raise message
            yield message

    def kill(self) -> None:
        """End the process."""
        self._process.kill()
        self._tasks.put(None)

    def close(self) -> None:
        """Wait for the end of process and thread."""
        while self._thread.is_alive():
            with contextlib.suppress(Empty):
                self._answers.get(timeout=0.01)  # the thread may wait for room
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def _serve(self, order: Order) -> None:
        orders, answers = self._process.stdin, self._process.stdout
        assert orders is not None
        assert answers is not None
        self._send(orders, Message({"work": order.work, "needs": order.needs}))
        while (task := self._tasks.get()) is not None:
            try:
                self._send(orders, task)
                for message in self._received(answers):
                    self._answers.put(message)
                self._answers.put(None)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is raised where the answer is waited for
                self._answers.put(error)

    def _send(self, orders: IO[bytes], message: Message) -> None:
        with contextlib.suppress(OSError):  # one that has died is found where its answer is read
            _write(orders, message)

    def _received(self, answers: IO[bytes]) -> Iterator[Message]:
        """Give the messages up to the one without facts, which ends an answer."""
        while message := self._read(answers):
            if "error" in message.facts:
                raise DataError(message.facts["error"])
            if not message.facts:
                return
            yield message
        code = self._process.wait()
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        raise DataError(f"A process that {self._does} {how}; the same command starts the preparation over.")

    @staticmethod
    def _read(answers: IO[bytes]) -> Message | None:
        try:
            return _read(answers)
        except (OSError, ValueError):  # cut short
            return None


def _write(pipe: IO[bytes], message: Message) -> None:
    head = {"facts": message.facts, "sizes": [len(part) for part in message.parts]}
    pipe.write(json.dumps(head).encode() + b"\n")
    pipe.writelines(message.parts)
    pipe.flush()


def _read(pipe: IO[bytes]) -> Message | None:
    """Read a message; None at the end. Raises ValueError where it is cut short."""
    line = pipe.readline()
    if not line:
        return None
    head = json.loads(line)
    parts = [pipe.read(size) for size in head["sizes"]]
    if [len(part) for part in parts] != head["sizes"]:
        raise ValueError("a message that is cut short")
    return Message(head["facts"], parts)


def _made(order: Facts) -> Work:
    module, _, name = order["work"].partition(":")
    made: Work = getattr(importlib.import_module(module), name)(**order["needs"])
    return made


def _work(orders: IO[bytes], answers: IO[bytes]) -> None:
    """Do what is asked until nothing is: the life of a worker."""
    first = _read(orders)
    if first is None:
        return
    try:
        work = _made(first.facts)
        while (task := _read(orders)) is not None:
            for message in work(task):
                _write(answers, message)
            _write(answers, Message({}))
    except DataError as error:
        _write(answers, Message({"error": str(error)}))


if __name__ == "__main__":
    leave_to_the_run()
    with contextlib.suppress(BrokenPipeError):  # the process that asked has gone
        _work(sys.stdin.buffer, sys.stdout.buffer)
