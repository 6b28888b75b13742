"""Texts with several numbers or labels, a column each: in tables and JSON lines, with gaps and bad cells."""

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics as sk

import etude
from etude.__main__ import main

CONFIG = """
[task]
type = "classification"
[data]
train = "train.tsv"
val = "val.tsv"
[tokenizer]
type = "word"
[model]
type = "embedding"
d_model = 16
[optimizer]
learning_rate = 0.05
[train]
max_duration = "40 steps"
eval_every = "20 steps"
batch_size = 20
device = "cpu"
[log]
progress = false
tensorboard = false
"""
WORDS = {"good": (2.0, 0.0), "bad": (-2.0, 0.0), "loud": (0.0, 3.0), "calm": (0.0, -3.0)}


def row(number):
    """A text of two words, the sums of what they are worth, and whether each sum is above 0; with gaps."""
    words = [list(WORDS)[place % 4] for place in (number, number // 4)]
    mood, force = (sum(WORDS[word][side] for word in words) + 10 * side for side in (0, 1))
    told = {"text": " ".join(words), "mood": mood, "force": force, "glad": mood > 0, "strong": force > 10}
    if number % 7 == 3:
        told |= {"mood": None, "glad": None}
    return told


def cell(value):
    return "" if value is None else str(int(value)) if isinstance(value, bool) else str(value)


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for split, numbers in {"train": range(80), "val": range(80, 112)}.items():
        rows = [row(number) for number in numbers]
        lines = ["\t".join(map(cell, one.values())) for one in rows]
        Path(f"{split}.tsv").write_text("\n".join(["\t".join(rows[0]), *lines]) + "\n")
        Path(f"{split}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    Path("small.toml").write_text(CONFIG)
    return tmp_path


def shell(*words, code=0):
    assert main(list(words)) == code


def last(run):
    return next(
        found
        for found in map(json.loads, reversed(Path(run, "metrics.jsonl").read_text().splitlines()))
        if "val/loss" in found
    )


def truth(*names):
    rows = [row(number) for number in range(80, 112)]
    return np.array([[np.nan if one[name] is None else float(one[name]) for name in names] for one in rows])


NUMBERS = ("--data.targets", '["mood", "force"]')
LABELS = ("--data.labels", '["glad", "strong"]')
JSON = ("--data.train", "train.jsonl", "--data.val", "val.jsonl")


def test_several_numbers_of_a_text_are_predicted(place):
    shell("train", "small.toml", *NUMBERS)
    shell("train", "small.toml", *NUMBERS, *JSON, "--run.name", "json")

    found, true = last("runs/small"), truth("mood", "force")
    told = etude.Run("runs/small").predict([row(number)["text"] for number in range(80, 112)])
    predicted = np.array([[float(value) for value in line.split("\t")] for line in told])
    known = ~np.isnan(true[:, 0])
    assert found["val/mae/mood"] == pytest.approx(sk.mean_absolute_error(true[known, 0], predicted[known, 0]), rel=1e-3)
    assert found["val/r2/force"] == pytest.approx(sk.r2_score(true[:, 1], predicted[:, 1]), abs=1e-3)
    assert found["val/r2"] > 0.9
    assert last("runs/json")["val/loss"] == found["val/loss"]


def test_several_labels_of_a_text_have_a_column_each(place):
    shell("train", "small.toml", *LABELS)
    shell("train", "small.toml", *LABELS, *JSON, "--run.name", "json")

    kept = json.loads(Path("runs/small/tokenizers/targets.json").read_text())
    rows = [row(number) for number in range(80)]
    assert kept["names"] == ["glad", "strong"]
    assert kept["counts"] == [sum(one[name] is True for one in rows) for name in ("glad", "strong")]
    assert kept["known"] == [sum(one["glad"] is not None for one in rows), 80]
    assert last("runs/small")["val/f1_macro"] > 0.9
    assert last("runs/json")["val/loss"] == last("runs/small")["val/loss"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--data.targets", '["mood", "nowhere"]'), 'no column "nowhere"'),
        (("--data.targets", '["mood", "text"]'), "has no number in the column"),
        ((*LABELS, *NUMBERS), "data.labels"),
        (("--data.targets", "[]"), "data.targets"),
    ],
)
def test_columns_that_cannot_be_predicted_are_said(place, words, says, capsys):
    assert main(["train", "small.toml", *words]) != 0

    assert says in capsys.readouterr().err


def test_a_cell_that_is_no_number_is_a_bad_sample(place, capsys):
    lines = Path("train.tsv").read_text().splitlines()
    lines[5] = "good bad\tnone at all\t10.0\t1\t1"
    Path("train.tsv").write_text("\n".join(lines) + "\n")

    shell("train", "small.toml", *NUMBERS, code=3)
    assert "train.tsv, line 6" in capsys.readouterr().err
    shell("train", "small.toml", *NUMBERS, "--data.on_bad_sample", "skip", "--data.max_skipped", "2")
