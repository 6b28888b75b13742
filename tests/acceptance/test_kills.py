"""A run that is killed at any moment, and started again by the same command, is the run that was never killed."""

import os
import random
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest
import tiny

pytestmark = pytest.mark.acceptance

MAIN = "etude.app.cli.main:main"
KILLS = 25
WORKERS = [0, 2]
MOMENTS = {
    "before the first step": "etude.train.run:Run.begin",
    "in a step, before the gradient": "etude.train.step.update:Update.__call__",
    "in the middle of accumulation": "etude.tasks.translation.task:TranslationTask.training_step",
    "after the optimizer's step": "etude.train.averaging:Average.update",
    "while a row is written": "etude.train.watch.record:Record.write",
    "in validation": "etude.tasks.translation.task:TranslationTask.validation_step",
    "after validation, before its row": "etude.train.evaluate:computed",
    "at an epoch's end": "etude.train.memory.state:EpochLoss.close",
    "before the state is copied": "etude.train.memory.checkpoint.content:Content.capture",
    "in a save, before its manifest": "etude.train.memory.checkpoint.content:json_bytes",
    "between files and rename": "etude.train.memory.checkpoint.store:Store._publish",
    "between rename and links": "etude.train.memory.checkpoint.store:replace_link",
    "while old checkpoints are removed": "etude.train.memory.checkpoint.store:Store._remove_old",
    "while one is removed": "shutil:rmtree",
    "after the last save": "etude.train.run:Run.end",
}


@pytest.fixture(scope="module", params=WORKERS, ids=lambda count: f"{count} workers")
def workers(request):
    return request.param


@pytest.fixture(scope="module")
def straight(workers, quick_folder, nursery):
    """The unbroken run: its folder, the seconds it took, and how many of them were its start."""
    folder = quick_folder / f"straight {workers}"
    words = tiny.written(folder, workers=workers)
    taken = []
    for _ in range(2):
        begun = time.monotonic()
        code = nursery.run(MAIN, words, log=folder / "log", folder=folder)
        assert code == 0, (folder / "log").read_text()
        taken.append(time.monotonic() - begun)
    return folder, *taken


def gone(child, seconds=5.0):
    """Wait until no process of the child's group is left; those that are."""
    end = time.monotonic() + seconds
    while (left := child.family()) and time.monotonic() < end:
        time.sleep(0.05)
    return left


def test_kills_at_random_moments_change_nothing(workers, straight, tmp_path, nursery):
    expected, whole, start = straight
    folder = tmp_path  # on a disk, where a save takes long enough to be hit
    words = tiny.written(folder, workers=workers)
    draw = random.Random(workers)
    moments, children = Counter(), []
    while len(children) < KILLS:
        child = nursery.start(MAIN, words, log=folder / "log", folder=folder)
        time.sleep(draw.uniform(0.3 * start, start + (whole - start) / 8))
        if not child.kill():
            assert child.code == 0, (folder / "log").read_text()
            tiny.emptied(folder)  # it ended before it was killed often enough: once more, from the start
            continue
        child.wait()
        children.append(child)
        moments[tiny.moment(folder)] += 1

    assert nursery.run(MAIN, words, log=folder / "log", folder=folder) == 0, (folder / "log").read_text()

    assert [gone(child) for child in children] == [[]] * KILLS
    tiny.assert_equal_runs(folder, expected)
    sys.stdout.write(f"\n{workers} workers, {KILLS} kills, all equal: {dict(moments)}\n")


def test_kills_at_chosen_moments_change_nothing(workers, straight, quick_folder, nursery):
    expected, *_ = straight
    folder = quick_folder / f"chosen {workers}"
    words = tiny.written(folder, workers=workers)
    draw = random.Random(100 + workers)
    killed = Counter()
    for turn in range(2):
        for name, place in MOMENTS.items():
            for how in ("before", "after"):
                fault = {"at": place, "nth": draw.randint(1, 1 + 2 * turn), "how": how}
                code = nursery.run(MAIN, words, log=folder / "log", folder=folder, fault=fault)
                assert code in {0, -9}, (folder / "log").read_text()
                killed[name] += code == -9

    assert nursery.run(MAIN, words, log=folder / "log", folder=folder) == 0, (folder / "log").read_text()

    tiny.assert_equal_runs(folder, expected)
    sys.stdout.write(f"\n{workers} workers, {killed.total()} kills, all equal: {dict(killed)}\n")
    assert set(killed.elements()) == set(MOMENTS)


def test_kills_at_storage_calls_of_the_whole_run_change_nothing(workers, straight, quick_folder, nursery):
    expected, *_ = straight
    folder = quick_folder / f"storage {workers}"
    words = tiny.written(folder, workers=workers)
    draw = random.Random(200 + workers)
    kills = 0
    for turn in range(60):
        fault = {"storage_call": draw.randint(1, 60 + 4 * turn), "how": draw.choice(["before", "half", "after"])}
        code = nursery.run(MAIN, words, log=folder / "log", folder=folder, fault=fault)
        assert code in {0, -9}, (folder / "log").read_text()
        kills += code == -9

    assert nursery.run(MAIN, words, log=folder / "log", folder=folder) == 0, (folder / "log").read_text()

    tiny.assert_equal_runs(folder, expected)
    sys.stdout.write(f"\n{workers} workers, {kills} kills at storage calls, all equal\n")
    assert kills >= 25


def test_the_shells_own_command_goes_on_after_kill_9(workers, straight, quick_folder):
    expected, *_ = straight
    folder = quick_folder / f"shell {workers}"
    tiny.written(folder, workers=workers)
    command = ["/bin/sh", "-c", f"exec {shlex.quote(sys.executable)} -m etude train tiny.toml"]
    # Another number of threads adds up in another order.
    same = {"cwd": folder, "env": os.environ | {"OMP_NUM_THREADS": "1"}, "stderr": subprocess.PIPE}
    draw = random.Random(300 + workers)
    kills = 0
    for _ in range(4):
        process = subprocess.Popen(command, **same)
        next((line for line in process.stderr if b"  step " in line), None)
        time.sleep(draw.uniform(0, 0.5))
        process.kill()
        process.stderr.close()
        kills += process.wait() == -signal.SIGKILL

    done = subprocess.run(command, **same, check=False)

    assert done.returncode == 0, done.stderr
    assert kills >= 3
    tiny.assert_equal_runs(folder, expected)
    sys.stdout.write(f"\n{workers} workers, {kills} kills of the shell's command, all equal\n")
