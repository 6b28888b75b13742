"""Signals end a run where it can go on, and one process at a time holds a run folder."""

import os
import signal
import time
from pathlib import Path

import pytest
from saves import tree
from small_runs import Regression, loaders, rows, trainer, weights

from etude.base.errors import RefusedError
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


def test_workers_do_not_outlive_a_killed_run_nor_hold_its_lock(straight, quick_folder, nursery):
    folder, log = quick_folder / "orphans", quick_folder / "orphans.log"
    child = nursery.start("interrupted:train", str(folder), 2, log=log, fault={"at": STEP, "nth": 5})
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
