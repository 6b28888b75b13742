"""Runs a function in several ranks: children of this process, which have torch already."""

import gc
import multiprocessing
import os
import pickle
import traceback
from contextlib import suppress
from multiprocessing.connection import wait
from time import monotonic

import torch

from etude.base.errors import EtudeError
from etude.train.world.store import keep_store

FORK = multiprocessing.get_context("fork")
LONGEST, GRACE = 240, 30


def environment(rank, size, port):
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }


def in_ranks(size, function, *arguments):
    """What `function(rank, *arguments)` gives on each rank; the first error is raised here."""
    store = keep_store()
    pipes, processes = [], []
    for rank in range(size):
        receiving, sending = FORK.Pipe(duplex=False)
        process = FORK.Process(target=_run, args=(rank, size, store.port, sending, function, arguments))
        process.start()
        sending.close()
        pipes.append(receiving)
        processes.append(process)
    try:
        return _answers(pipes, processes)
    finally:
        for process in processes:
            process.kill()
            process.join()


def _answers(pipes, processes):
    """What each rank has answered; the first that fails ends the wait for the others."""
    end, answers = monotonic() + LONGEST, {}
    while len(answers) < len(pipes):
        waited = [pipe for pipe in pipes if pipes.index(pipe) not in answers]
        ready = wait(waited, max(0, end - monotonic()))
        assert ready, f"ranks {[pipes.index(pipe) for pipe in waited]} have not answered in {LONGEST} s"
        for pipe in ready:
            rank = pipes.index(pipe)
            try:
                good, answers[rank] = pickle.loads(pipe.recv_bytes())  # noqa: S301 - our own child's
            except EOFError:
                processes[rank].join()
                raise AssertionError(f"rank {rank} ended with {processes[rank].exitcode}") from None
            if not good:
                raise AssertionError(f"rank {rank}: {answers[rank]}")
    return [answers[rank] for rank in range(len(pipes))]


def _run(rank, size, port, pipe, function, arguments):
    _begin(rank, size, port)
    try:
        answer = True, function(rank, *arguments)
    except BaseException:  # noqa: BLE001 - it is raised in the parent
        answer = False, traceback.format_exc()
    with suppress(OSError):
        pipe.send_bytes(pickle.dumps(answer))  # by value: a tensor's memory would go with the child
    pipe.close()
    os._exit(0)


def ended(size, function, place, *arguments, after=None):
    """How each rank has ended that runs `function(rank, *arguments)`: its exit code, what it said, and after how long.

    `after(processes)` is called once they run; seconds count from its end. A rank ends as the shell ends it: by the
    code of its error.
    """
    store = keep_store()
    processes = [
        FORK.Process(target=_end, args=(rank, size, store.port, place, function, arguments)) for rank in range(size)
    ]
    for process in processes:
        process.start()
    begun = monotonic()
    try:
        if after is not None:
            after(processes)
            begun = monotonic()
        found = _codes(processes, begun)
    finally:
        for process in processes:
            process.kill()
            process.join()
    said = [(place / f"said-{rank}.txt").read_text() for rank in range(size)]
    return [(code, text, seconds) for (code, seconds), text in zip(found, said, strict=True)]


def _codes(processes, begun):
    """How processes end, and when; as a launcher does, those are ended that outlive a failure by `GRACE` seconds."""
    found = {}
    failed = None
    while len(found) < len(processes) and monotonic() - begun < LONGEST:
        for number, process in enumerate(processes):
            process.join(0.01)
            if number not in found and process.exitcode is not None:
                found[number] = process.exitcode, monotonic() - begun
                failed = failed or (monotonic() if process.exitcode else None)
            if failed is not None and monotonic() - failed > GRACE:
                process.kill()
    return [found.get(number, (None, LONGEST)) for number in range(len(processes))]


def _begin(rank, size, port):
    gc.freeze()  # what the parent has made is not looked through at every collection
    os.environ.update(environment(rank, size, port))
    torch.set_num_threads(1)


def _end(rank, size, port, place, function, arguments):
    _begin(rank, size, port)
    with (place / f"said-{rank}.txt").open("w") as file:
        os.dup2(file.fileno(), 2)
    code = 0
    try:
        function(rank, *arguments)
    except EtudeError as error:
        os.write(2, f"etude: {error}\n".encode())
        code = error.exit_code
    except SystemExit as ending:
        code = ending.code
    except BaseException as error:  # noqa: BLE001 - as the shell does
        os.write(2, f"etude: {type(error).__name__}: {error}\n".encode())
        code = 1
    os._exit(code)
