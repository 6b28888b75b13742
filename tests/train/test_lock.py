"""The lock of a run folder: it lasts as long as its process lives and wants it, whatever else that process does."""

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from etude.base.errors import RefusedError, StorageError
from etude.train.lock import Lock, claimed, is_locked

HOLD = """
import os, sys, time
from pathlib import Path
from etude.train.lock import Lock
with Lock(Path(sys.argv[1])):
    if os.fork() == 0:  # a worker that outlives the run
        time.sleep(60)
        os._exit(0)
    print("held", flush=True)
    time.sleep(60)
"""


FORK = multiprocessing.get_context("fork")


def other_process(folder):
    """What another process is told that wants the folder."""
    receiving, sending = FORK.Pipe(duplex=False)
    process = FORK.Process(target=_ask, args=(folder, sending))
    process.start()
    answer = receiving.recv()
    process.join()
    return answer


def _ask(folder, sending):
    try:
        with Lock(folder):
            sending.send("taken")
    except RefusedError as error:
        sending.send(str(error))


def test_a_lock_outlives_whoever_opens_and_closes_its_file(tmp_path):
    run = tmp_path / "run"
    with Lock(run):
        (run / ".lock").read_bytes()
        shutil.copytree(run, tmp_path / "copy")
        is_locked(run)

        assert f"in use by process {os.getpid()} on" in other_process(run)
        assert other_process(tmp_path / "copy") == "taken"
        with pytest.raises(RefusedError, match="in use by this process itself"), Lock(run):
            pass
        assert is_locked(run)
    assert not is_locked(run)
    assert other_process(run) == "taken"


def test_forked_workers_neither_keep_nor_drop_the_lock(tmp_path):
    with Lock(tmp_path):
        worker = FORK.Process(target=time.sleep, args=(0,))
        worker.start()
        worker.join()
        assert "in use by process" in other_process(tmp_path)

        worker = FORK.Process(target=time.sleep, args=(60,))
        worker.start()
    try:
        assert other_process(tmp_path) == "taken"
    finally:
        worker.kill()
        worker.join()


def test_a_killed_process_leaves_no_lock_though_its_worker_lives(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert holder.stdout.readline() == "held\n"
        assert "in use by process" in other_process(tmp_path)
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()

        assert other_process(tmp_path) == "taken"
    finally:
        os.killpg(holder.pid, signal.SIGKILL)
        holder.stdout.close()


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("elsewhere")])
def test_a_lock_that_is_no_file_is_refused_at_once(tmp_path, make):
    make(tmp_path / ".lock")

    with pytest.raises(StorageError, match=r"Cannot lock .*: it must be a regular file"), Lock(tmp_path):
        pass
    assert not is_locked(tmp_path)


@pytest.mark.parametrize(
    "name", ["outputs", "wandb", "checkpoints", "tokenizers/source.json", "metrics.jsonl", ".lock"]
)
def test_a_link_that_leads_out_of_a_run_folder_is_refused(tmp_path, name):
    outside, run = tmp_path / "outside", tmp_path / "run"
    outside.mkdir()
    link = run / name
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(outside)

    with pytest.raises(StorageError, match=r"is a link to .*outside of the run folder"), claimed(run):
        pass
    assert list(outside.iterdir()) == []


def test_a_folder_of_runs_and_a_run_folder_may_be_links_and_so_may_links_inside(tmp_path):
    real = tmp_path / "disk" / "run"
    (real / "checkpoints" / "step-00000001").mkdir(parents=True)
    (real / "checkpoints" / "last").symlink_to("step-00000001")
    (real / "my notes").symlink_to("/")
    (real / "wandb" / "files").mkdir(parents=True)
    (real / "wandb" / "files" / "mine.py").symlink_to("/elsewhere/mine.py")
    (tmp_path / "runs").symlink_to("disk")
    (tmp_path / "one").symlink_to(Path("disk") / "run")

    for folder in (tmp_path / "runs" / "run", tmp_path / "one"):
        with claimed(folder):
            assert is_locked(real)
