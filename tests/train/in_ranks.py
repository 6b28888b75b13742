"""Runs a function in several ranks: children of this process, which have torch already."""

import multiprocessing
import os
import traceback
from contextlib import suppress
from time import monotonic

import torch

from etude.train.world.store import keep_store

FORK = multiprocessing.get_context("fork")
LONGEST = 300


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
    end, answers = monotonic() + LONGEST, []
    for rank, pipe in enumerate(pipes):
        assert pipe.poll(max(0, end - monotonic())), f"rank {rank} has not answered in {LONGEST} s"
        try:
            good, answer = pipe.recv()
        except EOFError:
            processes[rank].join()
            raise AssertionError(f"rank {rank} ended with {processes[rank].exitcode}") from None
        if not good:
            raise AssertionError(f"rank {rank}: {answer}")
        answers.append(answer)
    return answers


def _run(rank, size, port, pipe, function, arguments):
    os.environ.update(environment(rank, size, port))
    torch.set_num_threads(1)
    try:
        answer = True, function(rank, *arguments)
    except BaseException:  # noqa: BLE001 - it is raised in the parent
        answer = False, traceback.format_exc()
    with suppress(OSError):
        pipe.send(answer)
    pipe.close()
    os._exit(0)
