"""Pipelines through the shell: trained, planned, drawn, shown, checked, listed and used."""

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from pipeline_runs import STAGES, ran, rows, weights, write

from etude.__main__ import main

LISTENER = """
import os
from pathlib import Path


class Listener:
    def __init__(self, die_at=0):
        self.die_at = die_at

    def note(self, run, text):
        with Path("events.txt").open("a") as file:
            file.write(f"{text} at step {run.progress.step}\\n")

    def on_stage_start(self, run, stage):
        self.note(run, f"{stage} starts")

    def on_stage_end(self, run, stage):
        self.note(run, f"{stage} ends")

    def on_step_end(self, run, outcome):
        if run.progress.step == self.die_at and not Path("died").exists():
            Path("died").touch()
            os._exit(9)
"""
SVG = "http://www.w3.org/2000/svg"
LISTENED = """
[callbacks.listener]
type = "listener.py:Listener"
"""


def shell(*words, code=0):
    assert main(list(words)) == code


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a pipeline that has run."""
    path = write(tmp_path_factory.mktemp("shell"))
    ran(path)
    return path.parent


@pytest.fixture(autouse=True)
def place(home, monkeypatch):
    monkeypatch.chdir(home)


def test_a_run_of_nothing_says_so_and_what_all_stages_have_measured(capsys):
    shell("train", "pipe.toml")

    said = capsys.readouterr().err.splitlines()
    assert "Nothing to do: 3 stages are done." in said
    row = next(" ".join(line.split()) for line in said if line.startswith("measured"))
    loss = json.loads(Path("runs/pipe/measured/val.json").read_text())["val/loss"]
    assert row.startswith("measured evaluate was done")
    assert f"val/loss {loss:.4g}," in row


def test_the_plan_is_the_graph_with_what_is_done(capsys):
    shell("plan", "pipe.toml", "--json", "--stage.large.optimizer.learning_rate", "0.5")
    told = json.loads(capsys.readouterr().out)["stages"]
    assert [(one["name"], one["state"], one["inputs"]) for one in told] == [
        ("small", "done", []),
        ("large", "changed", []),
        ("measured", "waiting", ["large"]),
    ]
    assert told[1]["why"] == "its config has changed (optimizer.learning_rate was 0.02 and is 0.5)"

    shell("plan", "pipe.toml", "--output", "graph.svg")
    assert "measured  evaluate  large/best  done" in capsys.readouterr().out
    texts = [one.text for one in ET.parse("graph.svg").iter(f"{{{SVG}}}text")]  # noqa: S314 - our own file
    assert texts == ["pipe", "small", "train: done", "large", "train: done", "measured", "evaluate: done"]

    shell("plan", "pipe.toml", "--stage", "large")
    assert "large: 12 steps, 2 epochs" in capsys.readouterr().out
    shell("plan", "pipe.toml", "--stage", "measured", code=2)
    assert '--stage names "measured", which is no stage that trains' in capsys.readouterr().err


def test_the_composed_config_is_shown_with_the_origin_of_each_value(capsys):
    shell("show", "pipe.toml", "--stage.large.optimizer.learning_rate", "0.5", "--train.keep_last", "4")

    lines = capsys.readouterr().out.splitlines()
    start = lines.index("[[stage]]", lines.index("[[stage]]") + 1)
    told = [" ".join(line.split()) for line in lines[start:]]
    assert "learning_rate = 0.5 # --stage.large.optimizer.learning_rate on the command line" in told
    assert "keep_last = 4 # --train.keep_last on the command line" in " ".join(map(" ".join, map(str.split, lines)))
    assert any(line.startswith('max_duration = "2 epochs" # pipe.toml, line') for line in told)


def test_every_stage_is_checked(capsys):
    shell("check", "pipe.toml")

    told = capsys.readouterr().out
    assert told.count("1,424 parameters") == 2
    assert "measured  evaluate  large/best  done" in told


def test_a_pipeline_is_listed_with_its_stages_and_used_by_its_last_training(capsys):
    shell("runs", "--json")
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(one["name"], one["state"], one["step"]) for one in told] == [
        ("pipe", "finished", 0),
        ("pipe/small", "finished", 6),
        ("pipe/large", "finished", 12),
        ("pipe/measured", "finished", 0),
    ]

    shell("validate", "runs/pipe", "--json")
    of_all = capsys.readouterr()
    assert "The stage large is used (runs/pipe has small, large, measured)." in of_all.err
    shell("validate", "runs/pipe/large", "--json")
    assert capsys.readouterr().out == of_all.out


def test_flags_of_stages_are_refused_where_there_are_none(capsys):
    shell("train", "parent.toml", "--only", "small", code=2)
    assert "--only names a stage, but parent.toml has none." in capsys.readouterr().err
    shell("train", "pipe.toml", "--from", "smal", code=2)
    assert '--from names "smal", which is not a stage; did you mean small?' in capsys.readouterr().err
    shell("train", "pipe.toml", "--stage.lareg.train.clip_grad", "1", code=2)
    assert '"lareg" is not a stage; did you mean "large"?' in capsys.readouterr().err


def test_a_process_that_dies_in_a_stage_is_followed_by_one_that_ends_in_the_same_bits(home, tmp_path, monkeypatch):
    write(tmp_path, LISTENED + STAGES)
    (tmp_path / "listener.py").write_text(LISTENER)
    monkeypatch.chdir(tmp_path)
    command = [sys.executable, "-m", "etude", "train", "pipe.toml", "--stage.large.callbacks.listener.die_at", "9"]

    first = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False, capture_output=True)
    shell(*command[3:])

    assert first.returncode == 9
    for name in ("small", "large"):
        assert weights(tmp_path / "runs" / "pipe" / name) == weights(home / "runs" / "pipe" / name)
        assert rows(tmp_path / "runs" / "pipe" / name) == rows(home / "runs" / "pipe" / name)
    events = Path("events.txt").read_text().splitlines()
    assert events.pop(3) in {"large starts at step 6", "large starts at step 8"}  # whether the last save was whole yet
    assert events == [
        "small starts at step 0",
        "small ends at step 6",
        "large starts at step 0",
        "large ends at step 12",
        "measured starts at step 0",
        "measured ends at step 0",
    ]
