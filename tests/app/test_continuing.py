"""Runs that go on in a new folder from a shorter one, and what makes two runs the same."""

import json
import shutil

import pytest
from test_meanings import HARMLESS, KEYS, is_below
from texts_of_runs import CONFIG, folder, rows, train, weights

import etude
from etude.app.runs.identity import identity_of, semantic
from etude.app.stages.shorter import follows_its_length
from etude.base.config.lines import split_key
from etude.tasks.config import load_config
from etude.train.interrupt import Interrupted
from etude.train.lock import Lock

FLAT = {"optimizer.learning_rate": 0.001, "train.keep_last": 9}
GOES_ON = {**FLAT, "run.continue_training": True}
ENDS = """
import os, signal

class Ends:
    def on_step_end(self, run, outcome):
        if run.progress.step == 4 and not os.path.exists("told"):
            open("told", "w").close()
            os.kill(os.getpid(), signal.SIGTERM)
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    place = tmp_path_factory.mktemp("made")
    folder(place / "texts")
    (place / "lm.toml").write_text(CONFIG)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        train({**FLAT, "train.max_duration": "4 steps"}, name="short")
        train({**FLAT, "train.max_duration": "8 steps"}, name="straight")
    return place


@pytest.fixture
def place(made, tmp_path, monkeypatch):
    """A folder with the short run alone."""
    shutil.copytree(made, tmp_path / "here", symlinks=True, ignore=lambda at, names: {"straight"} & set(names))
    monkeypatch.chdir(tmp_path / "here")
    config = tmp_path / "here" / "runs" / "short" / "config.toml"
    config.write_text(config.read_text().replace(str(made), str(tmp_path / "here")))
    return tmp_path / "here"


def content(run):
    return {
        path.relative_to(run): path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != ".lock"
    }


def said(capsys):
    return " ".join(capsys.readouterr().out.split())


def test_a_run_that_goes_on_elsewhere_is_the_straight_one_bit_for_bit(made, place, capsys):
    short = place / "runs" / "short"
    before = content(short)

    run = train({**GOES_ON, "train.max_duration": "8 steps"}, name="long")

    assert weights(run) == weights(made / "runs" / "straight")
    assert rows(run) == rows(made / "runs" / "straight")
    assert content(short) == before
    told = said(capsys)
    assert "This run goes on from step 4 of" in told
    assert "Resuming from step 4" in told


def test_the_same_command_again_finds_it_finished(place, capsys):
    train({**GOES_ON, "train.max_duration": "8 steps"}, name="long")
    capsys.readouterr()

    train({**GOES_ON, "train.max_duration": "8 steps"}, name="long")

    assert "Nothing to do: the run is finished" in said(capsys)


def test_without_being_asked_a_new_name_begins_anew(place, capsys):
    run = train({**FLAT, "train.max_duration": "4 steps"}, name="again")

    assert not (run / "continued.json").exists()
    assert "goes on from" not in said(capsys)


def test_a_schedule_to_the_end_is_said_to_change(place, capsys):
    cosine = {**GOES_ON, "optimizer.learning_rate": {"schedule": "cosine", "peak": 0.001}}
    train({**cosine, "train.max_duration": "4 steps"}, name="rising")
    capsys.readouterr()

    train({**cosine, "train.max_duration": "8 steps"}, name="longer")

    assert "The run is now 8 steps long instead of 4, and schedules to its end change with it" in said(capsys)


def test_another_config_is_not_gone_on_from_and_its_keys_are_named(place, capsys):
    run = train({**GOES_ON, "train.max_duration": "5 steps", "train.clip_grad": 1.0}, name="clipped")

    assert not (run / "continued.json").exists()
    assert "(the nearest is short: train.clip_grad was false and is 1.0); it begins anew." in said(capsys)


def test_other_data_are_not_gone_on_from(place, capsys):
    (place / "texts" / "00.txt").write_text("the old house stands on the hill.\n" * 6)

    run = train({**GOES_ON, "train.max_duration": "5 steps"}, name="other")

    assert not (run / "continued.json").exists()
    assert "short has other data or code" in said(capsys)


def test_a_longer_run_answers_a_shorter_request(made, place, capsys):
    train({**GOES_ON, "train.max_duration": "8 steps"}, name="long")
    shutil.rmtree(place / "runs" / "short")

    run = train({**GOES_ON, "train.max_duration": "4 steps"}, name="answer")

    assert weights(run) == weights(made / "runs" / "short")
    assert "Nothing to do: the run is finished" in said(capsys)


def test_a_run_that_has_gone_further_answers_with_what_it_was(made, place, capsys):
    train({**FLAT, "train.max_duration": "8 steps"}, name="short")
    capsys.readouterr()

    result = etude.train("lm.toml", {**FLAT, "train.max_duration": "4 steps", "run.name": "short"})

    assert result.progress.step == 4
    assert result.last.name == "step-00000004"
    assert max(row["step"] for row in result.history) == 4
    assert "has gone on past 4 steps; its checkpoint of that moment, step-00000004, is the result." in said(capsys)
    assert weights(place / "runs" / "short") == weights(made / "runs" / "straight")


def test_one_that_keeps_no_checkpoint_of_that_moment_says_so(place, capsys):
    train({**FLAT, "train.max_duration": "8 steps"}, name="short")

    result = etude.train("lm.toml", {**FLAT, "train.max_duration": "5 steps", "run.name": "short"})

    assert result.progress.step == 8
    assert "keeps no checkpoint of that moment" in said(capsys)


@pytest.mark.parametrize("length", ["0.7 epochs", "5 batches", "0.001 seconds"])
def test_a_run_that_ends_at_its_length_has_not_gone_past_it(length, place, capsys):
    for _ in range(2):
        train({**FLAT, "train.max_duration": length}, name="ends")

        assert "has gone on past" not in said(capsys)


def test_a_part_of_an_epoch_is_found_again_in_a_run_that_went_on(place, capsys):
    run = train({**FLAT, "train.keep_last": 99, "train.max_duration": "0.7 epochs"}, name="parted")
    ended = (run / "checkpoints" / "last").resolve().name
    train({**FLAT, "train.keep_last": 99, "train.max_duration": "2 epochs"}, name="parted")
    capsys.readouterr()

    result = etude.train(
        "lm.toml", {**FLAT, "train.keep_last": 99, "train.max_duration": "0.7 epochs", "run.name": "parted"}
    )

    assert result.last.name == ended
    assert f"has gone on past 0.7 epochs; its checkpoint of that moment, {ended}, is the result." in said(capsys)


@pytest.mark.parametrize(
    ("rate", "follows"),
    [
        (0.1, False),
        ({"schedule": "cosine", "peak": 0.1}, True),
        ({"schedule": "cosine", "peak": 0.1, "warmup": "4000 steps"}, True),
        ({"schedule": "trapezoid", "peak": 0.1, "warmup": "100 steps", "decay": "2 %"}, True),
        ({"schedule": "noam", "warmup": "10 steps"}, False),
        ({"schedule": "linear", "peak": 0.1, "warmup": "5 %"}, True),
        ({"schedule": "stairs", "values": [1, 2], "every": "1 epoch"}, False),
    ],
)
def test_a_schedule_is_asked_whether_it_follows_the_length_of_the_run(rate, follows, place):
    config = load_config("lm.toml", {"optimizer.learning_rate": rate}).config

    assert follows_its_length(config) == follows


def test_the_longest_run_is_the_one_to_go_on_from(place, capsys):
    train({**GOES_ON, "train.max_duration": "6 steps"}, name="middle")
    capsys.readouterr()

    train({**GOES_ON, "train.max_duration": "8 steps"}, name="long")

    assert "from step 6 of" in said(capsys)


def test_a_damaged_checkpoint_is_passed_over(place, capsys):
    last = place / "runs" / "short" / "checkpoints" / "step-00000004" / "model.safetensors"
    last.write_bytes(last.read_bytes()[:-8])

    run = train({**GOES_ON, "train.max_duration": "8 steps"}, name="long")

    assert json.loads((run / "continued.json").read_text())["step"] == 3


def test_a_run_that_is_being_trained_is_left_alone(place, capsys):
    with Lock(place / "runs" / "short"):
        run = train({**GOES_ON, "train.max_duration": "5 steps"}, name="long")

    assert not (run / "continued.json").exists()


def test_the_shorter_run_is_removed_once_the_longer_has_gone_further(made, place, capsys):
    short = place / "runs" / "short"
    removing = {**GOES_ON, "run.remove_continued": True, "train.max_duration": "8 steps"}

    run = train(removing, name="long")

    assert not short.exists()
    assert weights(run) == weights(made / "runs" / "straight")


def test_the_shorter_run_stays_where_the_longer_has_not_gone_further(place, capsys):
    train({**GOES_ON, "run.remove_continued": True, "train.max_duration": "4 steps"}, name="same")

    assert (place / "runs" / "short" / "checkpoints" / "last").exists()


def test_a_run_that_has_changed_since_is_not_removed(place):
    removing = {**GOES_ON, "run.remove_continued": True, "train.max_duration": "8 steps"}
    run = train({**removing, "run.remove_continued": False}, name="long")
    config = place / "runs" / "short" / "config.toml"
    config.write_text(config.read_text().replace("heads = 2", "heads = 1"))

    train(removing, name="long")

    assert run.is_dir()
    assert config.exists()


# -- identity ----------------------------------------------------------------------------------------------------------


def nest(key, value):
    for part in reversed(split_key(key)):
        value = {part: value}
    return value


@pytest.mark.parametrize("key", KEYS)
def test_a_key_changes_the_identity_where_it_changes_the_run_and_nowhere_else(key):
    changes = semantic(nest(key, 1)) != semantic(nest(key, 2))

    assert changes == (not is_below(key, HARMLESS))


def test_the_identity_is_written_beside_the_run(made):
    for run in (made / "runs" / "short", made / "runs" / "straight"):
        told = json.loads((run / "environment.json").read_text())["identity"]

        assert told["whole"] == identity_of(run).whole

    assert identity_of(made / "runs" / "short") == identity_of(made / "runs" / "straight")


def changed(run, name, old, new):
    path = run / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return identity_of(run)


def test_data_code_and_device_are_parts_of_it(place):
    run = place / "runs" / "short"
    before = identity_of(run)
    (run / "code").mkdir()

    (run / "code" / "sha256.json").write_text('{"/a/net.py": "12"}')
    coded = identity_of(run)
    (run / "code" / "sha256.json").write_text('{"/b/net.py": "12"}')
    assert identity_of(run) == coded
    assert (coded.code != before.code, coded.data, coded.config) == (True, before.data, before.config)
    assert changed(run, "data.json", '"train": "', '"train": "0').data != before.data
    assert changed(run, "config.toml", 'device = "cpu"', 'device = "cuda:1"').config != before.config
    cuda = identity_of(run)
    assert changed(run, "config.toml", 'device = "cuda:1"', 'device = "cuda"') == cuda


def test_what_is_no_run_of_a_config_has_none(tmp_path):
    (tmp_path / "config.toml").write_text("[train]\n")

    assert identity_of(tmp_path) is None
    assert identity_of(tmp_path / "nowhere") is None


def test_an_interrupted_run_is_gone_on_from_as_well(made, place, capsys):
    (place / "ends.py").write_text(ENDS)
    callbacks = {"callbacks": [{"type": "ends.py:Ends"}], "train.max_duration": "8 steps"}
    with pytest.raises(Interrupted):
        train({**FLAT, **callbacks}, name="broken")

    run = train({**GOES_ON, **callbacks}, name="long")

    assert "from step 4 of" in said(capsys)
    assert json.loads((run / "continued.json").read_text())["run"].endswith("broken")
    assert weights(run) == weights(made / "runs" / "straight")
