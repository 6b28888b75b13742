"""Several processes that train one run: started here, or by a launcher; the first has the folder, the others follow."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic, sleep
from typing import TypeVar, final

from etude.app.runs.folder import has_checkpoint
from etude.base.errors import DistributedError
from etude.base.says import Say, unheard
from etude.callbacks.outputs import SavedOutputs
from etude.callbacks.progress import ProgressDisplay
from etude.data.order.plan import Share
from etude.data.store.crew import cores
from etude.tasks.config import LoadedConfig
from etude.tasks.task_type import TOKENIZERS
from etude.train.interrupt import answered, put_back
from etude.train.job import Job
from etude.train.world import Joined, Place, World, joined, passing
from etude.train.world.config import DistributedConfig
from etude.train.world.joining import LAUNCHER, code_of
from etude.train.world.passing import refuse_none
from etude.train.world.place import find_place
from etude.train.world.store import keep_store
from etude.train.world.watch import FailedElsewhereError, speaks_for

T = TypeVar("T")
STACKS = "stacks"
"""The folder of a run in which ranks leave what they were doing when one of them hung."""
SHARED = ("checkpoints", TOKENIZERS)
"""What a rank that follows looks at in the run folder."""
RESUMES = "the same command resumes the run"
POLL_SECONDS, GRACE_SECONDS = 0.05, 10.0
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


def ranks_of(config: DistributedConfig, folder: Path | None) -> AbstractContextManager[Joined | None]:
    """Join the ranks that a launcher has started; None for a process that is alone."""
    refuse_none(config)
    return joined(timeout=float(config.timeout.amount), stacks=None if folder is None else folder / STACKS)


def is_first(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process is the rank that speaks for all."""
    place = find_place(environment)
    return place is None or place.rank == 0


def sharing(loaded: LoadedConfig, here: Joined) -> LoadedConfig:
    """The config for a process that takes its part of every training batch."""
    return loaded.with_share(Share(here.place.rank, here.place.size))


@contextmanager
def following(folder: Path) -> Iterator[Path]:
    """A folder for what a rank that follows would write; what the run in `folder` has to go on from lies in it."""
    with TemporaryDirectory(prefix="etude-rank-") as name:
        place = Path(name)
        for shared in SHARED if has_checkpoint(folder) else ():
            if (folder / shared).exists():
                (place / shared).symlink_to((folder / shared).absolute())
        yield place


def beside(job: Job) -> Job:
    """The part of a rank that follows: it says and shows nothing, and writes neither rows nor outputs.

    What is left to do once the run has ended it does with the others.
    """
    shown = (ProgressDisplay, SavedOutputs)
    callbacks = [callback for callback in job.callbacks if not isinstance(callback, shown)]
    return replace(job, callbacks=callbacks, loggers=(), say=unheard)


# -- a command that all work on ----------------------------------------------------------------------------------------


@contextmanager
def one_heard(*, debug: bool = False) -> Iterator[World]:
    """Let the ranks that a launcher has started work on one command, of whom the first alone says and writes.

    An error on any of them ends all by its exit code, and is said by the first; where that is gone, by another.
    """
    place = find_place(os.environ)
    has_met = False
    try:
        with passing() as world:
            has_met = True
            with nullcontext() if world.is_first or debug else _unheard():
                yield world
    except BaseException as error:
        if place is None or place.rank == 0 or debug or not has_met or _is_said_here(error, place):
            raise
        raise SystemExit(code_of(error)) from error


def _is_said_here(error: BaseException, place: Place) -> bool:
    return isinstance(error, FailedElsewhereError) and speaks_for(error.first, place.rank, place.size)


@contextmanager
def _unheard() -> Iterator[None]:
    """Let what is said and written on the standard streams go nowhere."""
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


# -- starting them here ------------------------------------------------------------------------------------------------


def starts_ranks(config: DistributedConfig, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process is to start ranks: several are asked for, and no launcher has started any."""
    return config.processes > 1 and find_place(environment) is None and config.strategy != "none"


def start_ranks(words: Sequence[str], count: int, say: Say, *, again: str = RESUMES) -> int:
    """Run a command line in `count` processes that meet each other; the exit code of the one that failed first.

    Signals are handed on to all of them. Where one fails, the others end by themselves, or are ended; `again` says
    what to do where one was killed.
    """
    store = keep_store()
    shared = {
        **os.environ,
        LAUNCHER: str(os.getpid()),
        "WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, cores() // count))),
    }
    say(f"Starting {count} ranks with {shared['OMP_NUM_THREADS']} threads each.")
    return _Ranks([sys.executable, "-m", "etude", *words], shared, count, say, again).wait()


@final
class _Ranks:
    """The processes of a run on this machine."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], count: int, say: Say, again: str
    ) -> None:
        self._say, self._again = say, again
        self._old = answered(FORWARDED, lambda number, _: self._forward(number))
        self._processes = [
            subprocess.Popen(  # noqa: S603 - our own command
                command,
                env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                start_new_session=True,  # so that Ctrl-C reaches them once, by this process
            )
            for rank in range(count)
        ]

    def _forward(self, number: int) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(number)

    def wait(self) -> int:
        """Wait until all have ended; the code of the first that failed."""
        try:
            return self._wait()
        finally:
            for process in self._processes:
                process.kill()
                process.wait()
            put_back(self._old)

    def _wait(self) -> int:
        failed: tuple[int, int] | None = None
        since = 0.0
        while (running := self._running()) and (failed is None or monotonic() - since < GRACE_SECONDS):
            if failed is None and (failed := self._failed()) is not None:
                since = monotonic()
            sleep(POLL_SECONDS)
        failed = failed or self._failed()
        if failed is None:
            return 0
        if running:
            self._say(f"{len(running)} ranks had to be ended.")
        rank, code = failed
        if code >= 0:
            return code
        self._say(f"etude: rank {rank} was killed by {signal.Signals(-code).name}; {self._again}.")
        return DistributedError.exit_code

    def _running(self) -> list["subprocess.Popen[bytes]"]:
        return [process for process in self._processes if process.poll() is None]

    def _failed(self) -> tuple[int, int] | None:
        """The rank that has failed, and its code; one that was killed rather than one that says so."""
        codes = [(process.returncode, rank) for rank, process in enumerate(self._processes)]
        wrong = sorted((code, rank) for code, rank in codes if code)
        return (wrong[0][1], wrong[0][0]) if wrong else None


def follow(loaded: LoadedConfig, here: Joined, do: Callable[[LoadedConfig, Path], T]) -> T:
    """Take part in the run of the first rank, once that has prepared its data and written what it is."""
    here.wait("run")
    with following(loaded.config.folder) as place:
        return do(sharing(loaded, here), place)
