"""`etude rm`: what it removes, what it never does, and that it asks."""

import io
import json
import shutil

import pytest
from listed_runs import ASKED_TO_BREAK, made

from etude.__main__ import main
from etude.app.results.removing import remove, whole_runs
from etude.app.results.summary import FINISHED, summary
from etude.errors import StorageError
from etude.train.lock import Lock


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place = tmp_path / "runs"
    made(place / "best", 2.0)
    made(place / "equal", 2.0, seed=2)
    made(place / "lost", 2.5, seed=3)
    made(place / "sweep" / "lost", 3.0, seed=4)
    made(place / "paused", 2.6, ended=ASKED_TO_BREAK)
    made(place / "failed", 2.7, ended=None)
    return place


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def answer(monkeypatch, text):
    monkeypatch.setattr("sys.stdin", Terminal(text))


def test_a_run_is_removed_once_it_is_agreed_to(runs, monkeypatch, capsys):
    before = files(runs)
    answer(monkeypatch, "n\n")
    assert main(["rm", "runs/lost"]) == 0
    assert files(runs) == before
    answer(monkeypatch, "y\n")

    assert main(["rm", "runs/lost"]) == 0

    told = capsys.readouterr()
    assert "runs/lost  10" in told.out.splitlines()[0] or "runs/lost" in told.out.splitlines()[0]
    assert "KiB" in told.out
    assert "Nothing was removed." in told.err
    assert {path.name for path in runs.iterdir()} == {"best", "equal", "sweep", "paused", "failed"}


def test_without_a_terminal_nothing_goes_unless_yes_is_given(runs, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    before = files(runs)

    assert main(["rm", "runs/lost"]) == 2
    assert files(runs) == before
    assert "give --yes" in capsys.readouterr().err
    assert main(["rm", "runs/lost", "--yes"]) == 0
    assert not (runs / "lost").exists()


def test_failed_runs_alone_are_removed(runs):
    early = made(runs / "early", ended=None)
    (early / "environment.json").unlink()  # a trial that failed before it knew its machine
    theirs = made(runs / "theirs", ended=None)
    (theirs / "environment.json").unlink()
    (theirs / "config.toml").write_text('[task]\ntype = "language_model"\n')

    assert main(["rm", "--failed", "runs", "--yes"]) == 0

    assert {path.name for path in runs.iterdir()} == {"best", "equal", "lost", "sweep", "paused", "theirs"}


def test_states_of_runs_that_lost_go_and_what_they_told_stays(runs):
    before = {name: summary(runs / name) for name in ("lost", "sweep/lost")}

    assert main(["rm", "--states", "runs", "--yes"]) == 0

    with_states = {str(path.parent.relative_to(runs)) for path in runs.rglob("checkpoints")}
    assert with_states == {"best", "equal", "paused", "failed"}
    for name, one in before.items():
        now = summary(runs / name)
        assert (now.state, now.step, now.best, now.best_step) == (FINISHED, one.step, one.best, one.best_step)
    assert (runs / "lost" / "metrics.jsonl").exists()


def test_runs_that_are_judged_by_other_data_do_not_beat_each_other(runs, capsys):
    for name in ("lost", "sweep/lost"):
        (runs / name / "data.json").write_text(json.dumps({"val": name}))

    assert main(["rm", "--states", "runs", "--yes"]) == 0

    assert "There is nothing to remove." in capsys.readouterr().err


def test_a_run_that_another_begins_from_keeps_its_states(runs, capsys):
    config = runs / "best" / "config.toml"
    config.write_text(config.read_text() + f'[[init.from]]\ncheckpoint = "{runs}/lost/checkpoints/best"\n')

    assert main(["rm", "--states", "runs", "--yes"]) == 0

    assert (runs / "lost" / "checkpoints").is_dir()
    assert not (runs / "sweep" / "lost" / "checkpoints").exists()
    assert "best begins from it" in capsys.readouterr().err


def test_a_run_that_a_process_holds_is_never_removed(runs, capsys):
    with Lock(runs / "lost"):
        assert main(["rm", "runs/lost", "--yes"]) == 7
        assert main(["rm", "--states", "runs", "--yes"]) == 0

    assert (runs / "lost" / "checkpoints").is_dir()
    assert not (runs / "sweep" / "lost" / "checkpoints").exists()


def test_a_lock_that_is_taken_after_the_question_still_holds(runs):
    (found,) = whole_runs([runs / "lost"])

    with Lock(runs / "lost"), pytest.raises(Exception, match="in use by"):
        remove(found)
    assert (runs / "lost" / "checkpoints").is_dir()


@pytest.mark.parametrize("make", ["plain", "own config", "file", "missing"])
def test_what_is_no_run_is_not_removed(make, runs, tmp_path):
    place = tmp_path / "mine"
    if make == "file":
        place.write_text("")
    elif make != "missing":
        place.mkdir()
        (place / "notes.txt").write_text("")
    if make == "own config":
        (place / "config.toml").write_text("[train]\n")

    assert main(["rm", "mine", "--yes"]) == 7

    assert place.exists() == (make != "missing")


def test_links_are_not_followed(runs, tmp_path):
    outside = made(tmp_path / "elsewhere" / "other", 9.0, ended=None)
    (runs / "link").symlink_to(outside)
    (runs / "lost" / "outputs").symlink_to(outside)
    before = files(outside)

    assert main(["rm", "runs/link", "--yes"]) == 7
    assert main(["rm", "--failed", "runs", "--yes"]) == 0
    assert main(["rm", "runs/lost", "--yes"]) == 0

    assert files(outside) == before
    assert (runs / "link").is_symlink()


def test_checkpoints_that_are_a_link_are_not_removed(runs, tmp_path):
    shutil.move(runs / "lost" / "checkpoints", tmp_path / "kept")
    (runs / "lost" / "checkpoints").symlink_to(tmp_path / "kept")

    main(["rm", "--states", "runs", "--yes"])

    assert (tmp_path / "kept" / "best" / "manifest.json").exists()


def test_an_interrupted_removal_is_recognised_and_ended(runs, monkeypatch, capsys):
    (found,) = whole_runs([runs / "lost"])

    def fails(path):
        (path / "config.toml").unlink()
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr("shutil.rmtree", fails)
        with pytest.raises(StorageError, match="Cannot remove all of"):
            remove(found)
    main(["runs"])
    told = capsys.readouterr()
    assert "lost" not in [line.split()[0] for line in told.out.splitlines()]
    assert "whose removal was interrupted; etude rm" in told.err

    assert main(["rm", "--failed", "runs", "--yes"]) == 0

    assert {path.name for path in runs.iterdir()} == {"best", "equal", "sweep", "paused"}


@pytest.mark.parametrize("words", [[], ["runs/lost", "--failed", "runs"], ["--failed", "runs", "--states", "runs"]])
def test_one_thing_is_asked_for_at_a_time(words, runs):
    before = files(runs)

    assert main(["rm", *words, "--yes"]) == 2
    assert files(runs) == before
