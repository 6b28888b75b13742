"""What is told of runs that were forked, interrupted, refused or asked for by a number: sentences that are so."""

import pytest
from python_face import line, trainer
from texts_of_runs import CONFIG, folder, train

import etude
from etude.__main__ import main
from etude.app.results.summary import summary
from etude.errors import ConfigError, RefusedError, StorageError
from etude.train.interrupt import Interrupted

ENDS = """
import os, signal

class Ends:
    def on_step_end(self, run, outcome):
        if run.progress.step == 4:
            os.kill(os.getpid(), signal.SIGTERM)
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder(tmp_path / "texts")
    (tmp_path / "lm.toml").write_text(CONFIG)
    (tmp_path / "ends.py").write_text(ENDS)
    return tmp_path


def test_a_fork_that_is_not_trained_yet_has_not_failed(place):
    run = train()
    fork = ["fork", str(run), "--at", "4 steps", "--no-train", "--train.clip_grad", "0.5"]

    assert main(fork) == 0
    made = summary(place / "runs" / "lm-fork-4")
    assert main(fork[:4] + fork[5:]) == 0
    trained = summary(place / "runs" / "lm-fork-4")

    assert (made.state, made.step, round(made.epoch, 2)) == ("forked", 4, 0.27)
    assert (trained.state, trained.step) == ("finished", 6)


def test_an_interrupted_run_is_told_of_where_it_stands(place):
    with pytest.raises(Interrupted):
        train({"callbacks": [{"type": "ends.py:Ends"}], "train.log_every": "50 steps"})

    found = summary(place / "runs" / "lm")

    assert (found.state, found.step) == ("interrupted", 4)
    assert found.epoch == pytest.approx(4 / 15)


def test_a_checkpoint_is_named_by_a_number_too(place):
    run = etude.Run(train())

    assert [type(run.load(weights=name)) for name in (4, "4", "best")] == [type(run.load())] * 3
    with pytest.raises(StorageError, match=r"has no checkpoint '30'; it has best, last and the steps: .*6\."):
        run.load(weights=30)


@pytest.mark.parametrize(
    "flags",
    [
        ["--data.train", "nowhere"],
        ["--model.heads", "3"],
        ["--train.max_duration", "1 min"],
    ],
)
def test_a_train_that_is_refused_leaves_no_folder(flags, place, capsys):
    assert main(["train", "lm.toml", *flags]) in {2, 3}

    assert not (place / "runs" / "lm").exists()


def test_a_trainer_that_is_refused_leaves_no_folder_and_one_that_was_there_stays(tmp_path):
    with pytest.raises(ConfigError):
        trainer(run_dir=tmp_path / "run").fit(etude.Task(), line(), line())
    assert list(tmp_path.iterdir()) == []

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("")
    with pytest.raises(ConfigError):
        trainer(run_dir=tmp_path / "mine").fit(etude.Task(), line(), line())
    assert (tmp_path / "mine" / "notes.txt").exists()


def test_a_run_that_is_refused_after_it_has_trained_stays(place):
    train()

    with pytest.raises(RefusedError):
        train({"train.clip_grad": 1.0})

    assert (place / "runs" / "lm" / "checkpoints" / "last").exists()


def test_one_batch_is_told_of_as_one(place, capsys):
    assert main(["check", "lm.toml", "--train.batch_size", "512"]) == 0

    assert "tried with 1 batch of 1; all of it takes about" in " ".join("".join(capsys.readouterr()).split())


def test_a_word_far_from_every_verb_is_not_guessed(capsys):
    assert main(["plott"]) == 2

    assert capsys.readouterr().err == 'etude: "plott" is not a verb of etude; etude --help lists them.\n'
