"""A rank that dies, hangs or fails ends all of them within seconds; the first cause is said, and the run goes on."""

import os
import signal
import time

import pytest
from in_ranks import ended, in_ranks
from small_runs import Regression, loaders, rows, trainer, weights

import etude
from etude.base.errors import DataError

SOON = 10
"""Seconds within which all ranks have ended where one is dead."""


class Slow(etude.Callback):
    """Steps that take long enough to be in the middle of one."""

    def on_step_end(self, run, outcome):
        time.sleep(0.02)


def train(rank, folder, timeout="600 seconds", callbacks=(), strategy="ddp", **options):
    distributed = {"timeout": timeout, "strategy": strategy}
    given = {"max_duration": "6 epochs", **options}
    trainer(folder, callbacks=[Slow(), *callbacks], distributed=distributed, progress=False, **given).fit(
        Regression(dropout=0.0), *loaders()
    )


def signalled(folder, rank, number, step=5):
    """Sends a rank a signal once the run has come to a step."""

    def send(processes):
        end = time.monotonic() + 60
        while time.monotonic() < end:
            if (folder / "metrics.jsonl").exists() and any(row["step"] >= step for row in rows(folder)):
                break
            time.sleep(0.01)
        os.kill(processes[rank].pid, number)

    return send


@pytest.mark.parametrize(
    ("size", "rank"),
    [(2, 0), (2, 1), *(pytest.param(3, rank, marks=pytest.mark.acceptance) for rank in range(3))],
)
def test_a_rank_that_is_killed_ends_the_others_soon_and_the_run_goes_on_to_the_same_bits(size, rank, tmp_path):
    in_ranks(size, train, tmp_path / "straight")

    found = ended(size, train, tmp_path, tmp_path / "run", after=signalled(tmp_path / "run", rank, signal.SIGKILL))

    others = [each for number, each in enumerate(found) if number != rank]
    assert found[rank][0] == -signal.SIGKILL
    assert [code for code, _, _ in others] == [6] * (size - 1)
    assert all(seconds < SOON for _, _, seconds in found)
    assert any(f"Rank {rank} is gone" in said for _, said, _ in others), others
    in_ranks(size, train, tmp_path / "run")
    assert weights(tmp_path / "run") == weights(tmp_path / "straight")
    assert rows(tmp_path / "run") == rows(tmp_path / "straight")


class DiesInAStep(etude.Callback):
    """Dies before the forward pass of a step, in which the other rank waits for weights."""

    def __init__(self, rank):
        self.rank = rank

    def on_batch_start(self, run, batch):
        if run.progress.step == 3:
            time.sleep(0.2)
            if int(os.environ["RANK"]) == self.rank:
                os.kill(os.getpid(), signal.SIGKILL)


def dies_in_a_step(rank, folder, dying):
    train(rank, folder, strategy="fsdp", callbacks=[DiesInAStep(dying)])


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_dies_while_another_waits_in_a_call_of_torchs_own_is_named(rank, tmp_path):
    found = ended(2, dies_in_a_step, tmp_path, tmp_path / "run", rank)

    code, said, seconds = found[1 - rank]
    assert (found[rank][0], code) == (-signal.SIGKILL, 6), said
    assert f"Rank {rank} is gone" in said
    assert seconds < 60


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_hangs_is_named_within_its_timeout_and_all_say_where_they_were(rank, tmp_path):
    stop = signalled(tmp_path / "run", rank, signal.SIGSTOP, step=1)  # perhaps before its first beat

    def send(processes):
        stop(processes)
        processes[1 - rank].join(30)
        os.kill(processes[rank].pid, signal.SIGKILL)

    begun = time.monotonic()
    found = ended(2, train, tmp_path, tmp_path / "run", "4 seconds", after=send)

    code, said, _ = found[1 - rank]
    assert code == 6
    assert f"Rank {rank} hung" in said
    assert "4 s (distributed.timeout)" in said
    assert time.monotonic() - begun < 60
    written = (tmp_path / "run" / "stacks" / f"rank-{1 - rank}.txt").read_text()
    assert "train/loop.py" in written  # where the main thread waits, in a step
    assert "train/world/ranks.py" in written


class Fails(etude.Callback):
    def __init__(self, error):
        self.error = error

    def on_step_end(self, run, outcome):
        if run.progress.step == 5:
            raise self.error


def fails(rank, folder, error):
    train(rank, folder, callbacks=[Fails(error)] if rank == 1 else [])


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (DataError("line 7 of train.tsv is empty"), 3, "Rank 1 ended: line 7 of train.tsv is empty"),
        (ValueError("a callback's own"), 1, "Rank 1 ended: a callback's own"),
    ],
)
def test_what_one_rank_failed_by_is_what_all_end_by(error, code, told, tmp_path):
    found = ended(2, fails, tmp_path, tmp_path / "run", error)

    assert [each[0] for each in found] == [code, code]
    assert told in found[0][1]
    assert str(error) in found[1][1]
    assert all(seconds < SOON + 20 for _, _, seconds in found)


class Nan(Regression):
    def training_step(self, batch):
        loss = super().training_step(batch)
        return etude.Loss(loss.sum * float("nan"), loss.count)


def diverges(rank, folder):
    trainer(folder, progress=False).fit(Nan(dropout=0.0), *loaders())


def test_all_ranks_diverge_together(tmp_path):
    assert [code for code, _, _ in ended(2, diverges, tmp_path, tmp_path / "run")] == [4, 4]
