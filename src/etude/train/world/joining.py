"""How a process joins the ranks of its run, and leaves them."""

import ctypes
import gc
import os
import re
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from time import monotonic, sleep

import torch
import torch.distributed as dist

from etude.base.errors import DistributedError, EtudeError
from etude.train.world.place import Place, find_place
from etude.train.world.post import Post
from etude.train.world.protocol import ALONE, World
from etude.train.world.ranks import Ranks
from etude.train.world.store import Store, apart, meet
from etude.train.world.watch import Process, Watch, note_process, process_of

LAUNCHER = "ETUDE_LAUNCHER"
"""Holds the process that has started this one as a rank, which is not to outlive it."""
RESTARTS = "TORCHELASTIC_RESTART_COUNT"
TIMEOUT = 600.0
"""Seconds that ranks wait for one of them, unless their config says otherwise."""
INTERRUPTED = 130
LEAVE_SECONDS = 30
POLL_SECONDS = 0.05
_PR_SET_PDEATHSIG = 1
_BETWEEN_RANKS = re.compile(r"gloo|nccl|process ?group|DistBackendError", re.IGNORECASE)
"""What an error of torch's tells of that a message between ranks has ended with."""

_now: list["Joined"] = []
"""The world that this process is in."""
_kept: list[Store] = []
"""The store that this process keeps for all ranks, for as long as it runs."""
_met: dict[int, Process] = {}
"""The processes of all ranks, once they have met: one that ends is missed where the others come to meet again."""
_times = 0
"""How often this process has joined: whoever joins again meets the others apart from what was said before."""


class Joined:
    """The ranks of a process, for as long as it runs."""

    def __init__(self, place: Place, time: str, *, timeout: float, stacks: Path | None, trains: bool) -> None:
        self.place = place
        self.trains = trains
        """Whether the ranks have come together to train a run."""
        self._time = time
        _end_with(os.environ.get(LAUNCHER, ""))
        if torch.cuda.is_available():
            torch.cuda.set_device(place.local_rank % torch.cuda.device_count())
        try:
            if place.rank == 0 and not place.is_kept and not _kept:
                _kept.append(self._meet(keeps=True))
            self._store = self._connect()
            for rank, process in _met.items():
                note_process(self._store, rank, process)
            self._watch = Watch(self._connect, place.rank, place.size, timeout=timeout, stacks=stacks)
            backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
            dist.init_process_group(
                backend,
                store=apart(self._store, "group"),
                rank=place.rank,
                world_size=place.size,
                timeout=timedelta(seconds=timeout),
            )
        except RuntimeError as error:
            said = " ".join(str(error).split())
            raise DistributedError(
                f"Rank {place.rank} of {place.size} cannot meet the others at {place.address}:{place.port}: {said}"
            ) from error
        _met.update({rank: process_of(self._store, rank) for rank in range(place.size)})
        self.world = Ranks(self._watch, Post(self._connect, place.rank, place.size, timeout=timeout), self)

    def _connect(self) -> Store:
        return apart(self._meet(keeps=False), f"etude/{self._time}")

    def _meet(self, *, keeps: bool) -> Store:
        return meet(self.place.address, self.place.port, keeps=keeps)

    def failed(self, error: BaseException) -> None:
        """Tell the others by what this rank ends; an interpreter that ends must not find the watch in a call."""
        self._watch.failed(error, code_of(error))
        self._watch.close()

    def explained(self, error: RuntimeError) -> RuntimeError | DistributedError:
        """What a call that torch makes by itself, as for sharded weights, ends with where another rank has failed."""
        return self._watch.explained(error) if _BETWEEN_RANKS.search(f"{type(error).__name__}: {error}") else error

    def open(self, name: str) -> None:
        """Let those who wait for `name` go on."""
        self._store.set(f"open/{name}", "")

    def wait(self, name: str) -> None:
        """Wait, for as long as it takes, until the first rank has opened `name`; its failure ends the process."""
        while not self._store.check([f"open/{name}"]):
            sleep(POLL_SECONDS)

    def leave(self) -> None:
        """Leave the others, all of whom have come to the end; whoever keeps the store goes last."""
        self._watch.close()
        with suppress(RuntimeError):
            self._store.set(f"left/{self.place.rank}", "")
        if self.place.rank == 0 and not self.place.is_kept:
            self._wait_for_the_others()
        gc.collect()
        dist.destroy_process_group()

    def _wait_for_the_others(self) -> None:
        left = [f"left/{rank}" for rank in range(self.place.size)]
        begun = monotonic()
        while not self._store.check(left) and monotonic() - begun < LEAVE_SECONDS:
            sleep(POLL_SECONDS)


def code_of(error: BaseException) -> int:
    """What a process ends with because of an error."""
    match error:
        case EtudeError():
            return error.exit_code
        case SystemExit(code=int() as code) if code:
            return code
        case KeyboardInterrupt():
            return INTERRUPTED
    return 1


def begin_together() -> World:
    """The world that this process is in; those who wait for the first rank to begin a run go on."""
    if not _now:
        return ALONE
    if _now[-1].world.is_first:
        _now[-1].open("run")
    return _now[-1].world


def is_training() -> bool:
    """Whether this process is one of several ranks that train a run."""
    return bool(_now) and _now[-1].trains


def refuse_ranks(environment: Mapping[str, str] = os.environ) -> None:
    """Raise DistributedError in one of several ranks that has not joined the others: each would work alone."""
    place = None if _now else find_place(environment)
    if place is not None:
        raise DistributedError(
            f"This process is rank {place.rank} of {place.size}, but this is done by one process: each rank would do "
            f"all of it by itself. Start it without the launcher, or with one task."
        )


@contextmanager
def joined(
    environment: Mapping[str, str] = os.environ,
    *,
    timeout: float = TIMEOUT,
    stacks: Path | None = None,
    trains: bool = True,
) -> Iterator["Joined | None"]:
    """Join the ranks that the environment tells of; None for a process that is alone.

    An error that leaves the block is told to the others. Inside of another block it is that one's world. `trains` says
    whether they come together to train a run, or for a pass outside of one.
    """
    global _times  # noqa: PLW0603 - a process has one
    place = find_place(environment)
    if place is None or _now:
        yield _now[-1] if _now else None
        return
    _times += 1
    time = f"{environment.get(RESTARTS, '0')}/{_times}"
    here = Joined(place, time, timeout=timeout, stacks=stacks, trains=trains)
    _now.append(here)
    try:
        yield here
    except RuntimeError as error:
        told = here.explained(error)
        here.failed(told)
        if told is error:
            raise
        raise told from error
    except BaseException as error:
        if not isinstance(error, SystemExit | KeyboardInterrupt):
            here.failed(error)
            raise
        if _has_saved(error):
            here.leave()
        else:
            here.failed(error)
        raise
    else:
        here.leave()
    finally:
        _now.clear()


def _has_saved(error: BaseException) -> bool:
    """Whether a run was ended by a signal that all ranks have agreed on."""
    return hasattr(error, "received") and hasattr(error, "result")


def _end_with(launcher: str) -> None:
    """Let the process end where the one that has started it does, however that is."""
    if not launcher.isdecimal() or not sys.platform.startswith("linux"):
        return
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(launcher):
        raise DistributedError("The process that has started this rank has ended.")
