"""`etude sweep` in the shell: its table, its rows, its exit codes, and real runs of it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from forks import bits, quiet
from forks import rows as without_clock
from forks import written as written_run
from sweeps import run, written

from etude.__main__ import main
from etude.app.results.stages import summaries
from etude.app.running import train_run
from etude.app.sweep.begin import STATE, begin, opener
from etude.app.sweep.plan import read_plan
from etude.app.sweep.state.database import Sqlite
from etude.app.sweep.state.owner import this_process
from etude.app.sweep.state.state import State
from etude.tasks.config import load_config


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def shell(*words, code=0):
    assert main(["sweep", *words]) == code


def test_the_table_has_the_best_run_first_and_the_failed_ones_last(place, capsys):
    words = "--optimizer.learning_rate", "1e-2,1e-3", "--model.d_model", "16,8"
    run(written(place), *words)

    shell("small.toml", *words, code=4)

    told = capsys.readouterr()
    table = [line.split()[:3] for line in told.out.splitlines()[2:]]
    assert table == [["0.001", "8", "done"], ["0.01", "8", "done"], ["0.01", "16", "failed"], ["0.001", "16", "failed"]]
    assert "learning_rate=0.01,d_model=16 failed: step 1 of learning_rate=0.01,d_model=16 went wrong." in told.err
    assert "Best: learning_rate=0.001,d_model=8 (val/loss 0.28 at step 5)." in told.err


def test_the_status_is_told_without_the_flags_and_changes_nothing(place, capsys):
    run(written(place), "--run.seed", "1,2")
    before = Path("runs/small/sweep.sqlite").read_bytes()

    shell("small.toml", "--status", "--json")

    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["name"], row["state"], row["values"], row["step"]) for row in rows] == [
        ("seed=1", "done", {"run.seed": 1}, 5),
        ("seed=2", "done", {"run.seed": 2}, 5),
    ]
    assert Path(rows[0]["folder"]) == place / "runs/small/seed=1"
    assert Path("runs/small/sweep.sqlite").read_bytes() == before


@pytest.mark.parametrize("stages", ["", '[[stage]]\nname = "first"\n'], ids=["run", "pipeline"])
def test_the_folder_of_a_sweep_is_no_place_for_a_run(place, stages, capsys):
    plan = read_plan(written(place, stages), ("--run.seed", "1,2"))
    begin(plan, opener(plan), print)
    before = set(plan.folder.iterdir())

    assert main(["train", "small.toml"]) == 7

    assert "runs/small is the folder of a sweep: give --run.name for the run." in capsys.readouterr().err
    assert set(plan.folder.iterdir()) == before


def test_a_run_whose_process_is_gone_is_told_as_interrupted(place, capsys):
    words = written(place), "--run.seed", "1,2"
    plan = read_plan(words[0], words[1:])
    begin(plan, opener(plan), print)
    dead = replace(this_process(), started="long ago")
    State(Sqlite(plan.folder / STATE), plan.name, dead, 60).claim()

    shell(*words, "--status")

    told = capsys.readouterr()
    assert [line.split()[:2] for line in told.out.splitlines()[2:]] == [["1", "interrupted"], ["2", "waiting"]]
    assert "1 waiting, 1 interrupted." in told.err


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("--status",), 5, "holds no sweep yet"),
        (("--run.seed", "1,2", "--jobs", "0"), 2, "--jobs must be at least 1"),
        (("--run.seed", "1,2", "--sweep.on_failure", "halt"), 2, "sweep.on_failure"),
        (
            ("--model.d_modl", "8,32"),
            2,
            "did you mean model.d_model? (model.d_modl of the sweep), in d_modl=8 and 1 more.",
        ),
    ],
)
def test_mistakes_are_told_in_a_sentence_and_leave_no_folder(place, capsys, words, code, says):
    shell(written(place), *words, code=code)

    assert says in capsys.readouterr().err
    assert not Path("runs").exists()


def test_the_runs_of_a_sweep_are_listed_once_each(place):
    run(written(place), "--run.seed", "1,2")

    assert [one.name for one in summaries(place / "runs/small")] == ["seed=1", "seed=2"]


def test_the_record_tells_what_was_swept(place):
    run(written(place), "--run.seed", "1,2", "--train.keep_last", "3")

    record = Path("runs/small/sweep.toml").read_text()

    assert '"--train.keep_last" = 3' in record
    assert "run.seed" in record


def test_a_run_of_a_sweep_is_to_the_bit_the_single_run_of_its_config(place, monkeypatch):
    written_run(place)
    words = "--run.seed", "1,2", "--run.name", "swept", "--train.max_duration", "4 steps"
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    shell("parent.toml", *words, "--jobs", "2")

    alone = load_config("parent.toml", {"run.seed": 2, "train.max_duration": "4 steps"})
    train_run(alone, say=quiet)
    swept = Path("runs/swept/seed=2")
    assert without_clock(swept) == without_clock(alone.config.folder)
    assert bits(swept) == bits(alone.config.folder)
    left = {path.name for path in Path("runs/swept").iterdir()}
    assert left == {".cache", "best", "seed=1", "seed=2", "sweep.sqlite", "sweep.toml"}
