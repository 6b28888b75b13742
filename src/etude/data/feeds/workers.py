"""Worker processes that make the batches of a plan ahead of time, in the plan's order whatever their number.

They are torch's `DataLoader` workers with four differences: their jobs are batches of a plan; they draw nothing from a
global generator of this process; an error in one comes back as a sentence that names the samples; and the death of
one is raised where the next batch is asked for, never in the middle of other work.
"""

import multiprocessing
import os
import signal
import threading
import time
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from etude.base.errors import DataError
from etude.base.signals import leave_to_the_run
from etude.data.feeds.fetching import Fetch, sample_error
from etude.data.feeds.remembered import State, remembered
from etude.data.order.plan import Keys, Planned

Start = Callable[[int], Any]
"""What a worker does first, given its number."""

Job = tuple[int, Keys]


class WorkerDied(Exception):  # noqa: N818 - an event that the feed mends, not an error that a user sees
    """A worker process ended without a word; the message says how."""


class Workers:
    """`count` processes that run `fetch`; started by the first stream, kept from one stream to the next.

    `options` are further arguments of torch's DataLoader (`prefetch_factor`, `timeout`, `multiprocessing_context`);
    `start` is called in each worker before its first job. Where an attribute of what is `watched` has changed since
    they were started, a stream begins with new ones.
    """

    def __init__(
        self,
        fetch: Fetch,
        *,
        count: int,
        pin_memory: bool,
        start: Start | None = None,
        options: Mapping[str, object] | None = None,
        watched: Sequence[object] = (),
    ) -> None:
        self._fetch = fetch
        self._arguments: dict[str, Any] = {
            "count": count,
            "pin_memory": pin_memory,
            "start": start,
            "options": options,
            "watched": watched,
        }
        self._watched = watched
        self._known: State = {}
        self._busy = False
        self._jobs = _Jobs()
        self._dataset = _Fetching(fetch)
        self._settings: dict[str, Any] = {
            "num_workers": count,
            "pin_memory": pin_memory and torch.cuda.is_available(),
            "persistent_workers": True,
            "prefetch_factor": 4,
            "worker_init_fn": _Start(start),
            **(options or {}),
        }
        self._loader: DataLoader[Any] | None = None
        self._processes: list[Any] = []

    def stream(self, epoch: int, plans: Iterable[Planned]) -> Iterator[tuple[Planned, Any]]:
        """Give each planned batch with what `fetch` made of it; raises `WorkerDied` when a process has ended.

        A stream that is begun while another one is in use gets processes of its own, which end with it.
        """
        if self._busy:
            others = Workers(self._fetch, **self._arguments)
            try:
                yield from others.stream(epoch, plans)
            finally:
                others.close()
            return
        self._busy = True
        try:
            yield from self._stream(epoch, plans)
        finally:
            self._busy = False

    def _stream(self, epoch: int, plans: Iterable[Planned]) -> Iterator[tuple[Planned, Any]]:
        self._renew()
        pending: deque[Planned] = deque()
        self._jobs.source = _handed_out(epoch, plans, pending)
        batches = self._begin()
        while True:
            try:
                with _deaths_heard():
                    batch = next(batches)
            except StopIteration:
                return
            except (RuntimeError, OSError, EOFError) as error:  # the latter two when it died between batch and reply
                raise self._explained(error) from error
            planned = pending.popleft()
            if isinstance(batch, _Failure):
                raise batch.error()
            yield planned, batch

    def _renew(self) -> None:
        """End processes whose copies of the data are no longer what it is."""
        now = remembered(*self._watched)
        if self._loader is not None and now != self._known:
            self.close()
        self._known = now

    def close(self) -> None:
        """End the processes; a later stream starts new ones."""
        iterator = getattr(self._loader, "_iterator", None)
        self._loader = None
        self._processes = []
        if iterator is not None:
            iterator._shutdown_workers()  # noqa: SLF001 - torch offers no other way to end persistent workers now

    def _begin(self) -> Iterator[Any]:
        with warnings.catch_warnings():
            # How many workers suit a machine is for its user to say.
            warnings.filterwarnings("ignore", "This DataLoader will create")
            if self._loader is None:
                # A generator of its own, or iterating would draw from torch's global one.
                own = torch.Generator()
                self._loader = DataLoader(
                    self._dataset, batch_size=None, sampler=self._jobs, generator=own, **self._settings
                )
            try:
                with _deaths_heard():
                    batches = iter(self._loader)
            except (RuntimeError, OSError, EOFError) as error:
                raise self._explained(error) from error
        self._processes = list(getattr(batches, "_workers", []))
        return batches

    def _explained(self, error: Exception) -> Exception:
        # The reason stands in the exit code a moment after the death is noticed.
        for process in self._processes:
            process.join(timeout=0.1)
        dead = [process for process in self._processes if process.exitcode is not None]
        if dead:
            return WorkerDied("; ".join(_how(process.pid, process.exitcode) for process in dead))
        if "exited unexpectedly" in str(error) or "killed by signal" in str(error):
            return WorkerDied(str(error))
        return DataError(f"A loader worker failed: {error}")


def _handed_out(epoch: int, plans: Iterable[Planned], pending: deque[Planned]) -> Iterator[Job]:
    for planned in plans:
        pending.append(planned)
        yield epoch, planned.indices


def _how(pid: int, code: int) -> str:
    if code >= 0:
        return f"process {pid} ended with exit code {code}"
    name = signal.Signals(-code).name
    why = {
        "SIGKILL": ", usually because memory ran out",
        "SIGBUS": ", usually because shared memory (/dev/shm) ran out",
        "SIGSEGV": ", by a fault in compiled code",
    }.get(name, "")
    return f"process {pid} was killed by {name}{why}"


class _Jobs:
    """The sampler of the loader: whatever stream is set."""

    source: Iterator[Job] = iter(())

    def __iter__(self) -> Iterator[Job]:
        return self.source


class _Fetching(Dataset[Any]):
    """The dataset of the loader, whose items are whole batches."""

    def __init__(self, fetch: Fetch) -> None:
        self.fetch = fetch

    def __getitem__(self, job: Job) -> Any:
        epoch, indices = job
        try:
            return self.fetch(epoch, indices)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is reported with its samples
            return _Failure(error, indices)


class _Failure:
    """An error on its way from a worker, as text: the error itself may not survive the journey."""

    def __init__(self, error: Exception, indices: Keys) -> None:
        self.sentence = str(sample_error(error, indices))
        self.where = "".join(traceback.format_exception(error))

    def error(self) -> DataError:
        error = DataError(self.sentence)
        error.add_note(f"In a loader worker:\n{self.where}")
        return error


class _Start:
    """What every worker does first: leave signals to the main process, and end when that one is gone."""

    def __init__(self, further: Start | None) -> None:
        self._further = further

    def __call__(self, worker: int) -> None:
        leave_to_the_run()
        threading.Thread(target=_end_with, args=(os.getppid(), multiprocessing.parent_process()), daemon=True).start()
        if self._further is not None:
            self._further(worker)


def _end_with(parent: int, process: Any) -> None:
    """End this worker when the process that started it is gone, be it before this was first looked at."""
    while os.getppid() == parent and process.is_alive():
        time.sleep(1.0)
    os._exit(1)


class _deaths_heard:  # noqa: N801 - reads as the condition of a with-statement
    """Raise the death of a worker at once while a batch is waited for, and at no other time.

    Torch would have it raised out of whatever this process does at that moment, and without a handler it looks every
    five seconds. Signals reach the main thread alone; while another one waits, those five seconds pass.
    """

    __slots__ = ("_before",)

    def __enter__(self) -> None:
        main = threading.current_thread() is threading.main_thread()
        # A handler that Python did not set reads as None and could not be put back.
        ours = main and signal.getsignal(signal.SIGCHLD) is not None
        self._before = signal.signal(signal.SIGCHLD, _raise_deaths) if ours else None
        try:
            _raise_deaths()  # of one that died while nobody listened
        except RuntimeError:
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGCHLD, self._before)


def _raise_deaths(*_: object) -> None:
    torch._C._error_if_any_worker_fails()  # noqa: SLF001 - torch's own handler does this
