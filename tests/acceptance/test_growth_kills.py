"""A run that grows, killed at any moment and started again, is the run that was never killed: optimizer included."""

import random
import sys
import time
from collections import Counter

import pytest
import tiny

pytestmark = pytest.mark.acceptance

MAIN = "etude.app.cli.main:main"
KILLS = 20
GROWING = [
    "--model.encoder_layers",
    '{ schedule = "stairs", values = [1, 2, 3], every = "1 epoch" }',
    "--model.d_model",
    '{ schedule = "stairs", values = [16, 24], at = ["0 epochs", "2 epochs"] }',
    "--growth.new_weights",
    "zeros_out",
    "--growth.rewarm",
    "5 steps",
]
MOMENTS = {
    "before a transfer is planned": "etude.train.growing:Shape.grown",
    "while weights are carried over": "etude.model.growth.transfer:Transfer._write",
    "after weights, before optimizers": "etude.train.growing:Former.go_on_in",
    "between optimizer and average": "etude.train.averaging:Average.carry",
    "where an epoch begins": "etude.train.run:Run._begin_epoch",
    "when a resume takes up a structure": "etude.train.learner:Learner.restructure",
}


@pytest.fixture(scope="module")
def straight(quick_folder, nursery):
    """The unbroken run: its folder, and the seconds it took."""
    folder = quick_folder / "straight"
    words = [*tiny.written(folder, length="4 epochs"), *GROWING]
    begun = time.monotonic()
    code = nursery.run(MAIN, words, log=folder / "log", folder=folder)
    assert code == 0, (folder / "log").read_text()
    return folder, time.monotonic() - begun


def test_kills_at_random_moments_of_a_growing_run_change_nothing(straight, tmp_path, nursery):
    expected, whole = straight
    words = [*tiny.written(tmp_path, length="4 epochs"), *GROWING]
    draw = random.Random(20)
    moments, kills = Counter(), 0
    while kills < KILLS:
        child = nursery.start(MAIN, words, log=tmp_path / "log", folder=tmp_path)
        time.sleep(draw.uniform(0.1, 0.6) * whole)
        if not child.kill():
            assert child.code == 0, (tmp_path / "log").read_text()
            tiny.emptied(tmp_path)
            continue
        child.wait()
        kills += 1
        moments[tiny.moment(tmp_path)] += 1

    assert nursery.run(MAIN, words, log=tmp_path / "log", folder=tmp_path) == 0, (tmp_path / "log").read_text()

    tiny.assert_equal_runs(tmp_path, expected)
    sys.stdout.write(f"\n{KILLS} kills of a growing run, all equal: {dict(moments)}\n")


def test_kills_in_the_middle_of_a_growth_change_nothing(straight, quick_folder, nursery):
    expected, _ = straight
    folder = quick_folder / "chosen"
    words = [*tiny.written(folder, length="4 epochs"), *GROWING]
    draw = random.Random(21)
    killed = Counter()
    for name, place in MOMENTS.items():
        for how in ("before", "after"):
            fault = {"at": place, "nth": draw.randint(1, 2), "how": how}
            code = nursery.run(MAIN, words, log=folder / "log", folder=folder, fault=fault)
            assert code in {0, -9}, (folder / "log").read_text()
            killed[name] += code == -9
            if code == 0:
                tiny.emptied(folder)  # it ended: once more, from the start

    assert nursery.run(MAIN, words, log=folder / "log", folder=folder) == 0, (folder / "log").read_text()

    tiny.assert_equal_runs(folder, expected)
    sys.stdout.write(f"\n{killed.total()} kills in a growth, all equal: {dict(killed)}\n")
    assert set(killed.elements()) >= set(MOMENTS) - {"when a resume takes up a structure"}
