"""A fork is its parent up to its step, to the bit, and with no change to the end."""

import os
import signal

import pytest
from forks import KilledError, about, bits, files, fork, killed, parent, rows

from etude.app.fork import about as abouts
from etude.app.fork import branch as branching
from etude.app.running import train
from etude.base.errors import RefusedError
from etude.train.interrupt import Interrupted
from etude.train.lock import Lock
from etude.train.run import Run

PLATEAU = {"schedule": "plateau", "peak": 0.05, "patience": 1, "min_delta": 10.0}
VARIANTS = {
    "plain": {},
    "workers": {"data.workers": 1},
    "accumulated": {"train.accumulate": 2},
    "token budget": {"train.batch_tokens": 40},
    "plateau and patience": {"optimizer.learning_rate": PLATEAU, "train.patience": 9, "train.min_delta": 10.0},
    "average": {"train.ema_decay": 0.9},
}
"""Options of the parent whose memory a fork must take over."""

MOMENTS = {
    "5 steps": 5,
    "8 steps": 8,
    "1 epoch": 6,
    "50 samples": 9,
    "0.75 epochs": 5,
    "60 %": 11,
    "16 steps": 16,
}
"""Moments in the middle and at the end of an epoch, at a save and between saves, and the first step to reach each."""


@pytest.fixture(scope="module")
def parents(tmp_path_factory):
    """Trained runs by variant."""
    made = {}

    def get(variant):
        if variant not in made:
            made[variant] = parent(tmp_path_factory.mktemp("parent"), **VARIANTS[variant])
        return made[variant]

    return get


def home(tmp_path):
    return f"--run.dir={tmp_path}"


@pytest.mark.parametrize(
    ("variant", "at"), [*((variant, "4 steps") for variant in VARIANTS), ("plain", "1 epoch"), ("average", "2 epochs")]
)
def test_a_fork_without_a_change_is_its_parent_to_the_end(variant, at, parents, tmp_path):
    straight = parents(variant)

    made = fork(straight, at, home(tmp_path))

    assert rows(made) == rows(straight)
    assert bits(made) == bits(straight)
    assert bits(made, "best") == bits(straight, "best")


@pytest.mark.parametrize("at", MOMENTS)
def test_a_fork_shares_every_bit_up_to_its_step(at, parents, tmp_path):
    straight = parents("plain")

    made = fork(straight, at, home(tmp_path), "--optimizer.learning_rate=0.001")

    step = MOMENTS[at]
    assert about(made)["step"] == step
    assert rows(made, step) == rows(straight, step)
    later = [row["train/learning_rate"] for row in rows(made) if row["step"] > step and "train/loss" in row]
    assert set(later) == {0.001}
    assert rows(made)[-1]["step"] == 18


def test_a_checkpoint_of_the_step_itself_is_taken_over_and_no_step_taken_again(parents, tmp_path, monkeypatch):
    monkeypatch.setattr(Run, "step", None)

    made = fork(parents("plain"), "16 steps", home(tmp_path), train=False)

    assert about(made)["from_checkpoint"] == 16
    assert rows(made) == rows(parents("plain"), 16)


def test_steps_are_taken_again_from_the_nearest_checkpoint_before(parents, tmp_path):
    made = fork(parents("plain"), "17 steps", home(tmp_path), train=False)

    assert about(made)["from_checkpoint"] == 16
    assert about(made)["repeated"] is True


def test_a_damaged_checkpoint_is_passed_over(tmp_path):
    straight = parent(tmp_path)
    (straight / "checkpoints" / "step-00000016" / "model.safetensors").write_bytes(b"")
    said = []

    made = fork(straight, "17 steps", say=said.append)

    assert any("cut short" in sentence for sentence in said)
    assert bits(made) == bits(straight)


def test_a_run_that_is_being_trained_can_be_forked(parents, tmp_path):
    straight = parents("plain")

    with Lock(straight):
        made = fork(straight, "16 steps", home(tmp_path))

    assert bits(made)["model.safetensors"] == bits(straight)["model.safetensors"]


def test_nothing_in_the_parents_folder_is_touched(parents, tmp_path):
    straight = parents("plain")
    before = files(straight)

    fork(straight, "5 steps", home(tmp_path))

    assert files(straight) == before


def test_the_best_checkpoint_of_the_shared_steps_is_the_forks_too(tmp_path):
    straight = parent(tmp_path, **{"train.keep_best": 9})

    made = fork(straight, "17 steps", "--optimizer.learning_rate=5.0")

    assert bits(made, "best") == bits(straight, "step-00000015")


def test_where_the_parent_has_had_a_better_one_since_best_is_where_the_fork_begins(parents, tmp_path):
    said = []

    made = fork(parents("plain"), "16 steps", home(tmp_path), "--optimizer.learning_rate=5.0", say=said.append)

    assert [sentence for sentence in said if "the best of the shared steps" in sentence]
    assert (made / "checkpoints" / "best").resolve().name == "step-00000016"
    assert not [sentence for sentence in said if "is lost" in sentence]


CUTS = {
    "in the shared steps": (Run, "step", 6),
    "when the shared steps were compared": (abouts, "write_json", 2),
    "between shared steps and fork": (branching, "prepare", 1),
    "while the fork is written": (abouts, "write_json", 3),
    "while the way is removed": (branching, "remove_tree", 1),
    "in the fork's own steps": (Run, "step", 13),
}


@pytest.fixture(scope="module")
def unbroken(parents, tmp_path_factory):
    """A fork that nothing stopped."""
    return fork(
        parents("plain"), "9 steps", home(tmp_path_factory.mktemp("unbroken")), "--optimizer.learning_rate=0.002"
    )


@pytest.mark.parametrize("again", ["fork", pytest.param("train", marks=pytest.mark.acceptance)])
@pytest.mark.parametrize("cut", CUTS)
def test_a_fork_that_was_killed_goes_on_to_the_same_bits(cut, again, unbroken, parents, tmp_path, monkeypatch):
    straight, change = parents("plain"), "--optimizer.learning_rate=0.002"

    with monkeypatch.context() as patch:
        killed(patch, *CUTS[cut])
        with pytest.raises(KilledError):
            fork(straight, "9 steps", home(tmp_path / "cut"), change)
    made = tmp_path / "cut" / "parent-fork-9"
    if again == "fork":
        made = fork(straight, "9 steps", home(tmp_path / "cut"), change)
    else:
        train(made / "config.toml")

    assert rows(made) == rows(unbroken)
    assert bits(made) == bits(unbroken)
    assert sorted(p.name for p in made.iterdir()) == sorted(p.name for p in unbroken.iterdir())


def test_a_fork_interrupted_in_the_shared_steps_has_saved_and_goes_on(parents, tmp_path, monkeypatch):
    straight, real, taken = parents("plain"), Run.step, []

    def step(self, group):
        taken.append(1)
        if len(taken) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self, group)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "step", step)
        with pytest.raises(Interrupted):
            fork(straight, "7 steps", home(tmp_path))
    made = fork(straight, "7 steps", home(tmp_path))

    assert rows(made) == rows(straight)
    assert bits(made) == bits(straight)


def test_a_fork_of_a_fork_is_one_too(parents, tmp_path):
    first = fork(parents("plain"), "5 steps", home(tmp_path), "--optimizer.learning_rate=0.002")

    second = fork(first, "17 steps")

    assert second.name == "parent-fork-5-fork-17"
    assert rows(second) == rows(first)
    assert bits(second) == bits(first)


def test_a_fork_is_not_begun_from_the_start_with_a_config_that_it_did_not_begin_with(parents, tmp_path):
    first = fork(parents("plain"), "5 steps", home(tmp_path), "--optimizer.learning_rate=0.002")

    with pytest.raises(
        RefusedError, match=r"is itself a fork, of .* at 5 steps, and keeps no checkpoint up to 11 steps"
    ):
        fork(first, "11 steps")
