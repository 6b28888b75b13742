"""What may change between two starts of a run."""

import json
import shlex

import pytest
import python_face as face
from texts_of_runs import CONFIG, folder, train

from etude.__main__ import main
from etude.app.runs.changes import Change, changes_between, judged, machine_notes
from etude.base.config.meaning import meaning_of
from etude.base.errors import RefusedError
from etude.tasks.config import any_config

NOW = {"hardware": {"threads": 2, "processor": "A"}, "versions": {"torch": "2.13.0"}}


def change(key, old, new):
    return Change(key, old, new, meaning_of(any_config(), key))


def test_a_longer_run_is_noted_and_another_model_refused():
    longer = change("train.max_duration", "3 epochs", "4 epochs")

    assert judged([longer], "x", "y") == ['train.max_duration is now "4 epochs" (it was "3 epochs").']
    with pytest.raises(RefusedError, match=r"begun: model.heads was 4 and is 8\. Do this\."):
        judged([longer, change("model.heads", 4, 8)], "begun", "Do this.")


def test_a_key_that_only_begins_like_a_harmless_one_is_not_harmless():
    with pytest.raises(RefusedError):
        judged([change("train.patiences", 1, 2)], "x", "y")
    assert judged([change("log.progress", True, False)], "x", "y") == ["log.progress is now false (it was true)."]


def test_another_number_of_threads_is_told(tmp_path):
    path = tmp_path / "environment.json"
    path.write_text(json.dumps({**NOW, "hardware": {"threads": 1, "processor": "A"}}))

    notes = machine_notes(path, NOW)

    assert len(notes) == 1
    assert "threads (1, now 2)" in notes[0]


def test_a_new_or_damaged_folder_has_nothing_to_tell(tmp_path):
    (tmp_path / "bad.json").write_text("{")

    assert machine_notes(tmp_path / "none.json", NOW) == machine_notes(tmp_path / "bad.json", NOW) == []


COSINE = {"schedule": "cosine", "peak": 0.1, "warmup": "5 %"}


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (0.1, COSINE, 'was 0.1 and is { schedule = "cosine", peak = 0.1, warmup = "5 %" }'),
        (COSINE, 0.1, 'was { schedule = "cosine", peak = 0.1, warmup = "5 %" } and is 0.1'),
        (
            COSINE,
            {"schedule": "noam"},
            'was { schedule = "cosine", peak = 0.1, warmup = "5 %" } and is { schedule = "noam" }',
        ),
    ],
)
def test_a_schedule_that_is_replaced_is_shown_whole(before, after, said):
    changes = changes_between(
        {"optimizer": {"learning_rate": before}}, {"optimizer": {"learning_rate": after}}, any_config()
    )

    with pytest.raises(RefusedError) as refused:
        judged(changes, "begun", "Do this.")

    assert str(refused.value) == f"begun: optimizer.learning_rate {said}. Do this."


def test_a_key_of_the_same_schedule_is_shown_alone():
    changes = changes_between(
        {"optimizer": {"learning_rate": COSINE}}, {"optimizer": {"learning_rate": COSINE | {"peak": 0.2}}}, any_config()
    )

    with pytest.raises(RefusedError, match=r"begun: optimizer\.learning_rate\.peak was 0\.1 and is 0\.2\. Do this\."):
        judged(changes, "begun", "Do this.")


# -- what is said of a run as a whole ---------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder(tmp_path / "texts")
    (tmp_path / "lm.toml").write_text(CONFIG)
    return tmp_path


def test_the_refusal_of_a_changed_key_names_a_fork_that_works(place, capsys):
    train()
    with pytest.raises(RefusedError) as refused:
        train({"train.clip_grad": 1.0})

    said = str(refused.value)
    assert "train.clip_grad was false and is 1.0. Give --run.name for a new run, or let one share the first" in said
    command = said.partition("etude ")[2].removesuffix(".").replace("--section.key VALUE", "--train.clip_grad 1.0")
    words = shlex.split(command)
    assert words[0] == "fork"
    assert words[2:4] == ["--at", "6 steps"]
    assert main([*words, "--train.max_duration", "8 steps"]) == 0


@pytest.mark.parametrize("verb", ["train", "check", "plan"])
def test_a_warm_up_longer_than_the_run_is_told_of(verb, place, capsys):
    assert main([verb, "lm.toml", "--optimizer.learning_rate.warmup", "60 steps"]) == 0

    told = "".join(capsys.readouterr())
    assert (
        "optimizer.learning_rate.warmup is 60 steps, but the run has 6 steps: it ends before the peak, at 10 % of "
        "the warm-up."
    ) in " ".join(told.split())


def test_a_warm_up_within_the_run_is_not_told_of(place, capsys):
    assert main(["plan", "lm.toml", "--optimizer.learning_rate.warmup", "6 steps"]) == 0

    assert "warm-up" not in "".join(capsys.readouterr())


def test_a_trainer_is_told_of_a_long_warm_up_and_of_forks():
    said = []
    rate = {"schedule": "cosine", "peak": 0.1, "warmup": "4 epochs"}
    face.fit(face.line(), learning_rate=rate, say=said.append)

    assert [sentence for sentence in said if "learning_rate.warmup is 4 epochs, but the run has 12 steps" in sentence]
