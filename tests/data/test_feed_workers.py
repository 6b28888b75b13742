"""Worker processes: what they make, how they end, and what is said."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from etude.base.errors import DataError
from etude.data.feeds.planned import PlannedFeed
from etude.data.feeds.workers import Workers
from etude.data.order.plan import CountPlan

# Torch tells of a dead worker from a signal handler, which may run inside any callback of the interpreter's own: there
# Python can only print what it raises. The feed finds the dead worker all the same.
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")


class Fetch:
    """A batch is its numbers and the process that made it; `spoil` is called with the numbers first."""

    def __init__(self, spoil=lambda numbers: None):
        self.spoil = spoil

    def __call__(self, epoch, numbers):
        self.spoil(numbers.tolist())
        return torch.tensor([*numbers.tolist(), os.getpid()])


def feed_of(spoil=lambda numbers: None, *, workers=2, n=24, notice=lambda sentence: None):
    fetch = Fetch(spoil)
    plan = CountPlan(n, 2, seed=1, shuffle=False)
    crew = Workers(fetch, count=workers, pin_memory=False) if workers else None
    return PlannedFeed(plan, fetch, workers=crew, notice=notice)


def numbers(deliveries):
    return [number for delivery in deliveries for number in delivery.batch[:-1].tolist()]


def pids(deliveries):
    return {int(delivery.batch[-1]) for delivery in deliveries}


def gone(pid, seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


def test_the_same_workers_serve_epoch_after_epoch():
    feed = feed_of()

    first, second = list(feed.epoch(0)), list(feed.epoch(1))

    feed.close()
    assert pids(first) == pids(second)
    assert os.getpid() not in pids(first)


def test_an_epoch_left_in_the_middle_does_not_disturb_the_next():
    feed = feed_of()
    left = feed.epoch(0)
    next(left)

    whole = list(feed.epoch(1))

    feed.close()
    assert numbers(whole) == list(range(24))


def test_two_epochs_can_be_read_at_once():
    feed = feed_of()
    outer = feed.epoch(0)

    first = next(outer)
    whole = list(feed.epoch(1))
    rest = list(outer)

    feed.close()
    assert numbers([first, *rest]) == numbers(whole) == list(range(24))
    assert not pids(whole) & pids(rest)


def test_workers_end_when_the_feed_is_closed():
    feed = feed_of()
    working = pids(feed.epoch(0))

    feed.close()

    assert all(gone(pid, 30) for pid in working)


def test_an_error_in_a_worker_names_the_samples_and_the_reason_as_it_would_here():
    def spoil(these):
        if 6 in these:
            raise KeyError("no such column")

    sentences = []
    for workers in (0, 2):
        feed = feed_of(spoil, workers=workers)
        with pytest.raises(DataError) as caught:
            list(feed.epoch(0))
        feed.close()
        sentences.append(str(caught.value))

    assert sentences == ["The batch of samples 6, 7 could not be loaded: KeyError: 'no such column'"] * 2


def test_a_worker_that_dies_is_replaced_and_the_order_stays(tmp_path):
    died = tmp_path / "died"
    heard = []

    def spoil(these):
        if 10 in these and not died.exists():
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    feed = feed_of(spoil, workers=1, notice=heard.append)

    deliveries = list(feed.epoch(0))

    feed.close()
    assert numbers(deliveries) == list(range(24))
    assert len(heard) == 1
    assert "SIGKILL" in heard[0]


def test_a_batch_at_which_workers_die_again_is_named():
    def spoil(these):
        if 10 in these:
            os._exit(3)

    feed = feed_of(spoil, workers=1)
    delivered = []

    with pytest.raises(
        DataError, match=r"died again and again at the same batch \(process \d+ ended with exit code 3\); .* 10, 11"
    ):
        delivered.extend(feed.epoch(0))

    feed.close()


def test_the_death_of_a_worker_is_not_raised_out_of_other_work():
    feed = feed_of(workers=1)
    epoch = feed.epoch(0)
    pid = int(next(epoch).batch[-1])

    os.kill(pid, signal.SIGKILL)
    time.sleep(0.3)

    rest = list(epoch)
    feed.close()
    assert numbers(rest) == list(range(2, 24))


def test_ctrl_c_is_left_to_the_main_process():
    feed = feed_of(workers=1)
    epoch = feed.epoch(0)
    pid = int(next(epoch).batch[-1])

    os.kill(pid, signal.SIGINT)

    assert pids(epoch) == {pid}
    feed.close()


ORPHANS = """
import sys, time, numpy as np
from etude.data.feeds.batching import Batching
from etude.data.feeds.pairs import pair_feed
class Table:
    def __len__(self): return 64
    def lengths(self, side): return np.ones(64, dtype=np.int64)
    def gather(self, side, indices): return indices, np.ones(len(indices), dtype=np.int64)
feed = pair_feed(Table(), Batching(seed=1, batch_size=2, workers=1))
epoch = feed.epoch(0)
next(epoch)
print(feed._workers._processes[0].pid, flush=True)
time.sleep(60)
"""


def test_workers_end_when_their_parent_is_killed():
    with subprocess.Popen([sys.executable, "-c", ORPHANS], stdout=subprocess.PIPE) as parent:
        worker = int(parent.stdout.readline())

        parent.kill()

    assert gone(worker, 30)


def test_a_feed_that_is_never_closed_does_not_keep_a_program_from_ending():
    script = ORPHANS.replace("time.sleep(60)", "")

    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=60, check=False)

    assert (ended.returncode, ended.stderr) == (0, b"")
    assert gone(int(ended.stdout), 30)


def test_a_batch_of_arrays_arrives_from_a_worker_unchanged():
    rows = np.arange(6).reshape(2, 3)
    plan = CountPlan(2, 1, seed=1, shuffle=False)

    def fetch(epoch, numbers):
        return {"rows": torch.from_numpy(rows[numbers]), "epoch": epoch, "which": numbers}

    feed = PlannedFeed(plan, fetch, workers=Workers(fetch, count=1, pin_memory=False))
    first = next(feed.epoch(5)).batch
    feed.close()

    assert (first["rows"].tolist(), first["epoch"], first["which"].tolist()) == ([[0, 1, 2]], 5, [0])
