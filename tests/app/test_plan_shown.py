"""`etude plan` as a user has it: text, charts, pictures and tables, through the shell."""

import csv
import fcntl
import json
import math
import os
import pty
import struct
import subprocess
import sys
import termios
from dataclasses import replace
from itertools import pairwise
from xml.etree import ElementTree as ET

import pytest

from etude.__main__ import main
from etude.app.cli.plan import _width as shown_width
from etude.app.plan.picture import svg
from etude.app.plan.plan import LOG, SAVE, VALIDATE, Plan, Row
from etude.app.plan.text import chart, sampled, table, text
from etude.base.horizon import Horizon

CONFIG = """
[task]
type = "translation"

[data]
train = "train.tsv"
val = "train.tsv"

[tokenizer]
type = "word"

[model]
d_model = 8
heads = 2
encoder_layers = 1
decoder_layers = 1
feedforward = 8
dropout = { schedule = "linear", from = 0.0, to = 0.1 }

[optimizer]
learning_rate = { schedule = "cosine", peak = 1e-3, warmup = "4 steps" }

[train]
max_duration = "3 epochs"
batch_size = 4
accumulate = { schedule = "stairs", values = [1, 2], every = "1 epoch" }
device = "cpu"
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a config of 12 steps: 6 in the first epoch, 3 in each of the others."""
    rows = "".join(f"{a} {b}\t{b} {a}\n" for a in ("one", "two", "three", "four", "five", "six") for b in "wxyz")
    (tmp_path / "train.tsv").write_text("source\ttarget\n" + rows)
    (tmp_path / "small.toml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def planned(values, **changes):
    """A plan of one value a step, named x."""
    steps = len(values)
    rows = [Row(step, step / steps, step, step, {"train/x": value}) for step, value in enumerate(values, 1)]
    fields = {
        "run": "made", "steps": steps, "epochs": 1.0, "tokens": steps, "reason": "max_duration reached: 1 epoch",
        "estimated": (), "horizon": Horizon(steps=float(steps)), "rows": tuple(rows),
        "moments": {LOG: (), VALIDATE: (), SAVE: ()}, "turns": (), "following": (), "notes": (),
    }  # fmt: skip
    return Plan(**{**fields, **changes})


def test_the_text_tells_length_end_moments_and_every_value(place, capsys):
    code = main(["plan", "small.toml"])

    out = capsys.readouterr().out
    assert code == 0
    assert out.startswith("small: 12 steps, 3 epochs, ")
    assert "ends      max_duration reached: 3 epochs" in out
    assert "validate  3 times, after steps 6, 9, 12" in out
    heads = next(line for line in out.splitlines() if "epoch  " in line)
    assert heads.split() == ["step", "epoch", "learning_rate", "dropout", "accumulate"]
    lines = {
        line.split()[0]: line.split() for line in out.splitlines() if line[:1] == " " and line.split()[0].isdigit()
    }
    assert lines["4"][2] == "0.001"
    assert lines["7"][4] == "2"
    assert lines["12"][5:] == ["validate,", "save"]


@pytest.mark.parametrize(("language", "bar"), [("C.UTF-8", "█"), ("C", "#")])
def test_text_in_a_pipe_has_no_control_characters_and_none_that_the_locale_lacks(language, bar, place):
    words = [sys.executable, "-m", "etude", "plan", "small.toml"]

    done = subprocess.run(words, capture_output=True, check=True, env={**os.environ, "LC_ALL": language})

    shown = done.stdout.decode("utf-8" if language == "C.UTF-8" else "ascii")
    assert all(sign.isprintable() or sign == "\n" for sign in shown)
    assert bar in shown


def test_ascii_is_ascii(place, capsys):
    code = main(["plan", "small.toml", "--ascii"])

    out = capsys.readouterr().out
    assert code == 0
    assert out.isascii()
    assert "#" in out


def test_only_the_first_steps_are_planned_where_that_is_asked(place, capsys):
    main(["plan", "small.toml", "--steps", "5"])

    out = capsys.readouterr().out
    assert out.startswith("small: 5 steps, 0.8333 epochs")
    assert "ends      after step 5, where this plan stops" in out


def test_the_json_is_the_whole_plan(place, capsys):
    main(["plan", "small.toml", "--json"])

    made = json.loads(capsys.readouterr().out)
    assert (made["steps"], made["reason"], made["estimated"]) == (12, "max_duration reached: 3 epochs", [])
    assert made["moments"]["validate"] == [6, 9, 12]
    assert [row["train/accumulate"] for row in made["rows"]] == [1] * 6 + [2] * 6
    assert made["rows"][-1]["events"] == ["log", "validate", "save"]


def test_the_table_has_a_row_a_step_and_reads_back_exactly(place, capsys):
    main(["plan", "small.toml", "--csv", "plan.csv", "--json"])

    made = json.loads(capsys.readouterr().out)
    with (place / "plan.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["train/learning_rate"]) for row in rows] == [row["train/learning_rate"] for row in made["rows"]]
    assert [int(row["step"]) for row in rows if row["save"] == "1"] == [6, 9, 12]


def test_the_picture_is_svg_with_a_panel_for_each_value(place, capsys):
    code = main(["plan", "small.toml", "--output", "plan.svg"])

    root = ET.fromstring((place / "plan.svg").read_text())  # noqa: S314 - our own
    named = {node.text for node in root.iter("{http://www.w3.org/2000/svg}text")}
    assert code == 0
    assert "Written: plan.svg" in capsys.readouterr().err
    assert len(list(root.iter("{http://www.w3.org/2000/svg}polyline"))) == 3
    assert {"learning_rate", "dropout", "accumulate", "validate", "save", "step 12"} <= named


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["--output", "plan.png"], 2, "--output draws SVG, so it must end in .svg, but is plan.png"),
        (["--output", "nowhere/plan.svg"], 5, "nowhere is not a folder"),
        (["--csv", "."], 5, ". is a folder"),
        (["--steps", "0"], 2, "--steps must be at least 1"),
        (["--train.max_duration", "3 parsecs"], 2, "max_duration"),
        (["--data.train", "no.tsv"], 3, "no.tsv"),
    ],
)
def test_a_mistake_is_a_line_with_its_code_and_leaves_no_file(words, code, told, place, capsys):
    before = set(place.iterdir())

    ended = main(["plan", "small.toml", *words])

    out, error = capsys.readouterr()
    assert (ended, out) == (code, "")
    assert told in error
    assert set(place.iterdir()) == before


def test_a_chart_is_high_where_the_value_is():
    lines = list(chart(planned([0.0] * 10 + [1.0] * 10 + [2.0] * 10 + [6.0] * 10), "train/x", width=52, plain=False))

    bars = [f"{line.partition('│')[2]:<40}" for line in lines[1:7]]
    heights = [sum(bar[column] == "█" for bar in bars) for column in (5, 15, 25, 35)]
    assert lines[0] == "x"
    assert heights == [0, 1, 2, 6]
    assert [line.split()[0] for line in (lines[1], lines[6])] == ["6", "0"]


def test_a_constant_is_one_line():
    assert list(chart(planned([0.5] * 9), "train/x", width=40, plain=False)) == ["x: 0.5 throughout"]


def test_what_is_not_finite_has_no_place_in_a_chart_or_a_picture():
    made = planned([1.0, math.nan, math.inf, 2.0])

    assert "nan" not in "".join(chart(made, "train/x", width=40, plain=True))
    assert "nan" not in svg(made)
    assert list(chart(planned([math.nan]), "train/x", width=40, plain=True)) == ["x: never a finite number"]


def test_a_column_of_a_chart_shows_the_value_in_force_in_its_middle():
    assert sampled([(1, 1.0), (51, 2.0), (100, 3.0)], 100, 4) == [1.0, 1.0, 2.0, 2.0]


def test_a_run_of_one_step_has_a_table_a_chart_and_a_picture():
    made = planned([0.1])

    assert len(list(table(made))) == 2
    assert list(text(made))
    assert ET.fromstring(svg(made)).tag.endswith("svg")  # noqa: S314 - our own


def test_a_long_table_is_thinned_to_what_matters():
    made = planned(
        [float(step) for step in range(1, 501)],
        turns=(137, 401),
        moments={LOG: (), VALIDATE: tuple(range(10, 501, 10)), SAVE: (250,)},
    )

    steps = [int(line.split()[0]) for line in list(table(made))[1:]]
    assert {1, 137, 401, 500} <= set(steps)
    assert len(steps) <= 24


def test_estimates_and_another_horizon_are_told_of():
    lines = "\n".join(text(planned([1.0, 2.0], estimated=("epochs", "tokens"), horizon=Horizon(steps=7.0))))

    assert "made: 2 steps, about 1 epoch, about 2 tokens" in lines
    assert "horizon   7 steps" in lines


def test_a_name_of_the_users_is_escaped_in_the_picture():
    assert "&lt;b&gt;&amp;" in svg(planned([1.0], run="<b>&"))


def test_the_axis_of_a_chart_holds_the_epochs_each_below_its_end():
    made = planned([float(step) for step in range(40)])
    rows = [replace(row, epoch=row.step / 10) for row in made.rows]

    *_, steps, epochs = chart(replace(made, rows=tuple(rows)), "train/x", width=52, plain=True)

    assert steps.split() == ["1", "step", "40"]
    assert epochs.split() == ["epoch", "1", "2", "3", "4"]
    assert [epochs.index(number) - 12 for number in "1234"] == [9, 19, 29, 39]


def test_epochs_of_a_narrow_chart_are_numbered_as_far_as_there_is_room():
    made = planned([float(step) for step in range(400)])
    rows = [replace(row, epoch=float(row.step)) for row in made.rows]

    *_, epochs = chart(replace(made, rows=tuple(rows)), "train/x", width=40, plain=True)

    numbers = [int(word) for word in epochs.split()[1:]]
    assert numbers == sorted(set(numbers))
    assert 4 <= len(numbers) <= 14
    assert len(epochs) <= 40


def test_a_chart_is_as_wide_as_it_may_be_however_short_the_run():
    lines = list(chart(planned([1.0, 2.0, 4.0]), "train/x", width=100, plain=True))

    bars = [line[12:] for line in lines[1:7]]
    assert len(lines[1]) == max(map(len, lines)) == 100
    assert [bars[0].count("#"), bars[5].count("#")] == [29, 88]


def test_stairs_are_drawn_as_stairs():
    picture = svg(planned([1.0, 1.0, 2.0, 2.0]))

    line = next(ET.fromstring(picture).iter("{http://www.w3.org/2000/svg}polyline"))  # noqa: S314 - our own
    corners = [tuple(map(float, corner.split(","))) for corner in line.get("points").split()]
    assert len(corners) == 4
    assert all(a[0] == b[0] or a[1] == b[1] for a, b in pairwise(corners))
    assert corners[1][0] == pytest.approx(96 + (960 - 96 - 24) * 2 / 3, abs=0.1)


def test_a_picture_numbers_its_epochs(place):
    main(["plan", "small.toml", "--output", "plan.svg"])

    assert [f"epoch {number}</text>" in (place / "plan.svg").read_text() for number in (1, 2, 3, 4)] == [True] * 3 + [
        False
    ]


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_a_plan_on_a_terminal_is_drawn_to_its_width(columns, place, monkeypatch):
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, columns, 0, 0))
    monkeypatch.delenv("COLUMNS", raising=False)
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr("sys.stdout", terminal)
        monkeypatch.setattr("sys.__stdout__", terminal)
        width = shown_width()

    os.close(ours)
    assert width == columns
    assert max(map(len, chart(planned([1.0, 2.0]), "train/x", width=width, plain=True))) == columns
