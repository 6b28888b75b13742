"""Who of the ranks is still there: each one beats, the first looks after all, and all look after the first."""

import faulthandler
import json
import os
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event, Thread
from time import monotonic, sleep
from typing import final

from etude.base.errors import DistributedError
from etude.train.world.store import Store

BEAT_SECONDS = 0.5
GRACE_SECONDS = 3.0
"""How long a rank that another has failed may take to end by itself; then it is ended."""
FAILURE, STACKS, PROCESS = "failure", "stacks", "process"
Process = tuple[str, int]
"""A host, and the number of a process there."""


@dataclass(frozen=True)
class Failure:
    """What went wrong first, and on which rank."""

    rank: int
    what: str
    """A clause that goes on from the rank: `was killed by SIGKILL`."""
    code: int = DistributedError.exit_code
    """What the run ends with."""
    hung: bool = False
    is_said: bool = False
    """Whether the rank itself says it."""

    def __str__(self) -> str:
        return f"Rank {self.rank} {self.what}"


def note_process(store: Store, rank: int, process: Process) -> None:
    """Let all ranks know which process one of them is."""
    store.set(f"{PROCESS}/{rank}", json.dumps(process))


def process_of(store: Store, rank: int) -> Process:
    """The process of a rank that has said which it is."""
    host, number = json.loads(store.get(f"{PROCESS}/{rank}"))
    return host, number


def publish(store: Store, failure: Failure) -> Failure:
    """Let all ranks know of a failure, unless they know of an earlier one; which is the first."""
    first = store.compare_set(FAILURE, "", json.dumps(asdict(failure)))
    return Failure(**json.loads(first))


def published(store: Store) -> Failure | None:
    """What went wrong first, if anything has."""
    return Failure(**json.loads(store.get(FAILURE))) if store.check([FAILURE]) else None


@final
class Watch:
    """A thread that tells the others that this rank is there, and ends the process where another is not.

    What one rank does without the others (a step, loading, a long save) may take as long as it will; a call that all
    take part in fails after `timeout` seconds, and so does one rank's silence.
    """

    def __init__(
        self,
        connect: Callable[[], Store],
        rank: int,
        size: int,
        *,
        timeout: float,
        stacks: Path | None,
    ) -> None:
        self.rank = rank
        self._size = size
        self._timeout = timeout
        self._store = connect()
        self._own = connect()  # the thread's: a call that waits on one would hold up the other
        self._stacks = stacks
        self._calls = 0
        self._closed = Event()
        self._heard: dict[int, tuple[str, float]] = {}
        note_process(self._store, rank, (socket.gethostname(), os.getpid()))
        self._store.set(f"beat/{rank}", "0 0")  # a rank that stops before its first beat is missed as any other
        self._thread = Thread(target=self._run, name="etude watch", daemon=True)
        self._thread.start()

    # -- of the main thread --------------------------------------------------------------------------------------

    def called(self) -> None:
        """Count a call that all ranks take part in."""
        self._calls += 1

    def failed(self, error: BaseException, code: int) -> None:
        """Tell the others that this rank ends by an error."""
        if isinstance(error, FailedElsewhereError):
            return
        said = " ".join(str(error).split()) or type(error).__name__
        with suppress(RuntimeError):
            publish(self._store, Failure(self.rank, f"ended: {said}", code, is_said=True))

    def explained(self, error: Exception) -> DistributedError:
        """The error that tells of the rank that failed first, where a call that all take part in has failed."""
        begun = monotonic()
        while monotonic() - begun < GRACE_SECONDS:
            with suppress(RuntimeError):
                if (first := published(self._store)) is not None:
                    return FailedElsewhereError(first)
                if (late := self._late(error)) is not None:
                    return FailedElsewhereError(publish(self._store, late))
            sleep(BEAT_SECONDS / 2)
        said = " ".join(str(error).split())
        return DistributedError(f"Rank {self.rank} lost the others: {said}")

    def _late(self, error: Exception) -> Failure | None:
        """The rank that has not come to a call which the others wait in, where they have waited too long."""
        if "timed out" not in str(error).lower() and "timeout" not in str(error).lower():
            return None
        calls = {rank: int(self._store.get(f"beat/{rank}").split()[1]) for rank in range(self._size)}
        calls[self.rank] = self._calls
        last = min(calls, key=lambda rank: (calls[rank], rank == self.rank))
        self._store.set(STACKS, "asked")
        sleep(2 * BEAT_SECONDS)
        return Failure(
            last, f"hung: the others waited for it longer than {self._timeout:g} s (distributed.timeout).", hung=True
        )

    def close(self) -> None:
        """End: every rank has come to its end."""
        self._closed.set()
        self._thread.join(timeout=5)

    # -- of the thread -------------------------------------------------------------------------------------------

    def _run(self) -> None:
        number, told = 0, False
        while not self._closed.wait(BEAT_SECONDS):
            number += 1
            try:
                self._own.set(f"beat/{self.rank}", f"{number} {self._calls}")
                told = told or self._tell_stacks()
                failure = published(self._own) or self._lost()
            except RuntimeError:
                failure = Failure(0, "is gone, and with it the store in which the ranks meet.")
            if failure is not None:
                self._end(failure, told=told)
                return

    def _tell_stacks(self) -> bool:
        """Write what every thread of this rank is doing, where that is asked for; whether it was."""
        if not self._own.check([STACKS]):
            return False
        self._write_stacks()
        return True

    def _write_stacks(self) -> None:
        folder = self._stacks
        if folder is None:
            faulthandler.dump_traceback(sys.stderr, all_threads=True)
            return
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / f"rank-{self.rank}.txt").open("w") as file:
                faulthandler.dump_traceback(file, all_threads=True)

    def _lost(self) -> Failure | None:
        """A rank that is gone or silent: the first looks after all of them, the others after the first."""
        for rank in range(1, self._size) if self.rank == 0 else (0,):
            failure = self._is_dead(rank) or self._is_silent(rank)
            if failure is not None:
                return publish(self._own, failure)
        return None

    def _is_dead(self, rank: int) -> Failure | None:
        if not self._own.check([f"{PROCESS}/{rank}"]) or self._own.check([f"left/{rank}"]):
            return None
        host, process = process_of(self._own, rank)
        if host != socket.gethostname() or _is_alive(process):
            return None
        if not self._own.check([f"beat/{rank}"]):
            return Failure(
                rank, "has ended, and the others wait for it: all ranks take part in a fit, test or predict."
            )
        return Failure(rank, f"is gone: its process {process} on {host} has ended without a word.")

    def _is_silent(self, rank: int) -> Failure | None:
        key = f"beat/{rank}"
        beat = self._own.get(key).decode() if self._own.check([key]) else ""
        before, since = self._heard.get(rank, ("", monotonic()))
        if beat != before or rank not in self._heard:
            self._heard[rank] = beat, monotonic()
            return None
        if not beat or monotonic() - since < self._timeout or self._own.check([f"left/{rank}"]):
            return None
        self._own.set(STACKS, "asked")
        return Failure(rank, f"hung: nothing was heard of it for {self._timeout:g} s (distributed.timeout).", hung=True)

    def _end(self, failure: Failure, *, told: bool) -> None:
        """Let the process end by itself, or end it: what it waits for will not come."""
        if failure.rank == self.rank and not failure.hung:
            return
        if failure.hung and not told:
            self._write_stacks()
        if self._closed.wait(GRACE_SECONDS):
            return
        if speaks_for(failure, self.rank, self._size):
            os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, f"etude: {failure}\n".encode())
        os._exit(failure.code)


def speaks_for(failure: Failure, rank: int, size: int) -> bool:
    """Whether it is this rank that says what went wrong on another: one does, unless the first has said it itself."""
    if failure.rank == 0:
        return rank == 1 and not failure.is_said
    return rank == 0 or size == 1


class FailedElsewhereError(DistributedError):
    """Ends a rank because another has failed."""

    def __init__(self, first: Failure) -> None:
        super().__init__(str(first))
        self.first = first
        self.exit_code = first.code


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return not _is_zombie(process)


def _is_zombie(process: int) -> bool:
    """Whether a process has ended, and its parent has not looked yet."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[:1] == ["Z"]
    except OSError:
        return False
