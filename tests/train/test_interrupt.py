"""Signals end a run where it can go on, and one process at a time holds a run folder."""

import os
import signal
import time
from pathlib import Path

import pytest
from saves import tree
from small_runs import Regression, loaders, rows, trainer, weights

from etude.app.interrupted import told
from etude.base.errors import ConfigError, RefusedError
from etude.train.interrupt import Interrupted, Interrupts, requeued
from etude.train.lock import Lock, claimed
from etude.train.memory.checkpoint import verify

TERM, INT = int(signal.SIGTERM), int(signal.SIGINT)
STEP = "etude.train.run:Run.step"
CHECK = "etude.train.validating:Validation.try_out"
PLACES = {
    "in the sanity check": (CHECK, 1, 1),
    "before the first step": ("etude.train.run:Run.begin", 1, None),
    "in the first step": (STEP, 1, 1),
    "in a step": (STEP, 5, 5),
    "in validation": ("small_runs:Regression.validation_step", 4, 3),
    "in a save": ("etude.train.saving:capture", 2, None),
    "while rows are written": ("etude.train.watch.record:Record.write", 6, None),
    "in the last step": (STEP, 9, 9),
}


@pytest.fixture(scope="module")
def straight(quick_folder, nursery):
    folder = quick_folder / "straight"
    assert nursery.run("interrupted:train", str(folder), log=quick_folder / "straight.log") == 0
    return folder


def assert_equal(folder, straight):
    assert rows(folder) == rows(straight)
    assert weights(folder) == weights(straight)
    assert weights(folder, "best") == weights(straight, "best")


@pytest.mark.parametrize(
    ("place", "number"),
    [("in the sanity check", TERM), ("before the first step", TERM), ("in a step", INT), ("in validation", TERM)]
    + [pytest.param(place, number, marks=pytest.mark.acceptance) for place in PLACES for number in (TERM, INT)],
)
def test_the_first_signal_ends_a_run_after_the_step_and_a_save(place, number, straight, quick_folder, nursery):
    at, nth, step = PLACES[place]
    folder, log = quick_folder / f"{number} {place}", quick_folder / f"{number} {place}.log"

    code = nursery.run("interrupted:train", str(folder), log=log, fault={"at": at, "nth": nth, "number": number})

    last = folder / "checkpoints" / "last"
    if place == "in the last step":
        assert code == 0
    else:
        assert code == 128 + number, log.read_text()
        assert f"interrupted by {signal.Signals(number).name}" in log.read_text()
    if step is not None and last.exists():
        assert verify(last.resolve())["step"] == step
    assert nursery.run("interrupted:train", str(folder), log=log) == 0
    assert_equal(folder, straight)


@pytest.mark.parametrize(
    "at",
    [
        "etude.train.saving:capture",
        pytest.param(STEP, marks=pytest.mark.acceptance),
        pytest.param("etude.train.watch.record:Record.write", marks=pytest.mark.acceptance),
    ],
)
def test_a_second_ctrl_c_ends_a_run_at_once_and_unhurt(at, straight, quick_folder, nursery):
    folder, log = quick_folder / f"twice {at[-6:]}", quick_folder / "twice.log"
    fault = {"at": at, "nth": 2, "number": INT, "again": True}

    assert nursery.run("interrupted:train", str(folder), log=log, fault=fault) == 130
    assert "stopped at once" in log.read_text()

    assert nursery.run("interrupted:train", str(folder), log=log) == 0
    assert_equal(folder, straight)


@pytest.mark.parametrize(("named", "workers"), [("SIGUSR1", 2), ("SIGXCPU", 0), ("SIGTERM", 0)])
def test_a_signal_of_the_cluster_saves_and_asks_for_a_requeue(named, workers, straight, quick_folder, nursery):
    folder, log = quick_folder / named, quick_folder / f"{named}.log"
    fault = {"at": STEP, "nth": 4, "number": int(signal.Signals[named]), "group": workers > 0}
    names = None if named == "SIGUSR1" else [named]

    child = nursery.start("interrupted:requeued", str(folder), workers, names, log=log, fault=fault)

    assert child.wait() == 75, log.read_text()
    assert verify((folder / "checkpoints" / "last").resolve())["step"] == 4
    told = log.read_text()
    assert f"Interrupted by {named} and saved at step 4 in {folder}." in told
    assert "Exit code 75 asks for it to be queued again." in told
    assert "worker" not in told
    assert left_of(child) == []
    assert nursery.run("interrupted:train", str(folder), workers, log=log) == 0
    assert_equal(folder, straight)


def test_the_first_signal_decides_the_exit_code():
    with Interrupts(["SIGUSR1"]) as interrupts:
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGTERM)

    assert interrupts.received is signal.SIGUSR1
    assert interrupts.ending(None).code == 75


def test_a_signal_before_training_leaves_at_once_and_handlers_are_put_back():
    before = signal.getsignal(signal.SIGUSR2)

    with pytest.raises(Interrupted) as ending, requeued(["SIGUSR2"]):
        signal.raise_signal(signal.SIGUSR2)

    assert ending.value.code == 75
    assert told(ending.value, Path("runs/a")).startswith("Interrupted. Run the same command again to resume runs/a.")
    assert signal.getsignal(signal.SIGUSR2) is before


@pytest.mark.parametrize(
    ("given", "read"),
    [("usr1", ["SIGUSR1"]), (["SIGUSR2", "xcpu"], ["SIGUSR2", "SIGXCPU"]), (False, []), ("none", []), ([], [])],
)
def test_signals_are_named_with_and_without_their_prefix(given, read):
    assert trainer(None, requeue_signals=given)._run.requeue_signals == tuple(read)


@pytest.mark.parametrize("given", ["SIGKILL", "SIGINT", "usr3", 10, [True]])
def test_a_signal_that_no_run_can_answer_is_refused(given):
    with pytest.raises(ConfigError, match=r"run\.requeue_signals.*SIGUSR1"):
        trainer(None, requeue_signals=given)


@pytest.mark.acceptance
@pytest.mark.parametrize("number", [TERM, INT], ids=["SIGTERM", "Ctrl-C"])
def test_a_signal_to_the_whole_group_leaves_no_worker_behind(number, straight, quick_folder, nursery):
    folder, log = quick_folder / f"group {number}", quick_folder / f"group {number}.log"
    fault = {"at": STEP, "nth": 4, "number": number, "group": True}

    child = nursery.start("interrupted:train", str(folder), 2, log=log, fault=fault)

    assert child.wait() == 128 + number, log.read_text()
    assert left_of(child) == []
    assert nursery.run("interrupted:train", str(folder), 2, log=log) == 0, log.read_text()
    assert_equal(folder, straight)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP])
def test_workers_do_not_outlive_a_killed_run_nor_hold_its_lock(number, straight, quick_folder, nursery):
    folder, log = quick_folder / f"orphans {number}", quick_folder / f"orphans {number}.log"
    fault = {"at": STEP, "nth": 5, "number": int(number)}
    child = nursery.start("interrupted:train", str(folder), 2, log=log, fault=fault)
    child.wait()

    assert nursery.run("interrupted:train", str(folder), 2, log=log) == 0, log.read_text()

    assert left_of(child) == []
    assert_equal(folder, straight)


def left_of(child):
    end = time.monotonic() + 30
    while (left := child.family()) and time.monotonic() < end:
        time.sleep(0.02)
    return left


def test_a_second_process_is_refused_at_once_and_told_of_the_first(quick_folder, nursery):
    folder, log = quick_folder / "held", quick_folder / "held.log"
    holder = nursery.start("interrupted:claim", str(folder), log=log)
    while not log.exists() or "held" not in log.read_text():
        assert holder.poll() is None
        time.sleep(0.005)
    before = tree(folder)

    begun = time.monotonic()
    refused = quick_folder / "refused.log"
    assert nursery.run("interrupted:train", str(folder), log=refused) == 7
    assert time.monotonic() - begun < 30
    assert f"in use by process {holder.pid} on" in refused.read_text()
    assert tree(folder) == before

    holder.kill()
    holder.wait()
    with claimed(folder):
        assert f"process {os.getpid()}" in (folder / ".lock").read_text()


def test_a_process_is_refused_a_folder_that_it_holds_itself(tmp_path):
    with Lock(tmp_path):
        with pytest.raises(RefusedError, match="in use by this process itself"):
            Lock(tmp_path).__enter__()
        with pytest.raises(RefusedError, match="in use"):
            trainer(tmp_path).fit(Regression(), *loaders())
    with Lock(tmp_path):
        pass


def test_a_folder_that_cannot_be_written_is_refused_before_any_data_is_read(tmp_path):
    from etude.base.errors import StorageError

    (tmp_path / "file").write_text("")
    read = []

    class Reading(list):
        def __getitem__(self, index):
            read.append(index)
            return super().__getitem__(index)

    with pytest.raises(StorageError, match="Cannot make the folder"):
        trainer(tmp_path / "file" / "run").fit(Regression(), Reading([1]))

    assert read == []
    assert Path(tmp_path / "file").read_text() == ""
