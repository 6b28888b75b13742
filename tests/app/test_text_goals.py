"""Texts with several labels or a number, metrics of groups of them, and recurrent encoders."""

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
test = "val.tsv"
[tokenizer]
type = "char"
[model]
type = "embedding"
d_model = 16
[optimizer]
learning_rate = 0.05
[train]
max_duration = "30 steps"
eval_every = "10 steps"
batch_size = 8
device = "cpu"
[log]
progress = false
tensorboard = false
"""


def sample(number):
    """A text, the letters that it has, how many, and who wrote it."""
    letters = [letter for place, letter in enumerate("abc") if number >> place & 1]
    text = " ".join(letters * (1 + number % 3)) + " z"
    return [text, ",".join(letters), f"{10 + len(letters) * 2.5}", ["Ann", "Bob", ""][number % 3]]


ROWS = [sample(number) for number in range(24)]


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = ["\t".join(row) for row in [["text", "letters", "much", "author"], *ROWS]]
    for name in ("train.tsv", "val.tsv"):
        (tmp_path / name).write_text("\n".join(lines) + "\n")
    (tmp_path / "small.toml").write_text(CONFIG)
    return tmp_path


def shell(*words, code=0):
    assert main(list(words)) == code


def rows(run):
    return [json.loads(line) for line in Path(run, "metrics.jsonl").read_text().splitlines()]


LABELS = ("--data.labels", "letters", "--data.separator", ",")
NUMBER = ("--data.targets", "much")


def test_texts_without_a_label_have_none(place, capsys):
    lines = [line for line in Path("train.tsv").read_text().splitlines() if line.split("\t")[1]]
    Path("train.tsv").write_text("\n".join(lines) + "\n")
    Path("val.tsv").write_text("\n".join(lines) + "\n")

    shell("train", "small.toml", *LABELS, "--task.by", "author")
    capsys.readouterr()
    shell("validate", "runs/small", "--json")

    told = json.loads(capsys.readouterr().out)
    good = [row for row in ROWS if row[1]]
    found = [set(line.split(",")) - {""} for line in etude.Run("runs/small").predict([row[0] for row in good])]
    true = np.array([[letter in row[1] for letter in "abc"] for row in good])
    predicted = np.array([[letter in one for letter in "abc"] for one in found])
    assert told["val/subset_accuracy"] == pytest.approx(sk.accuracy_score(true, predicted))
    by_ann = np.array([row[3] == "Ann" for row in good])
    assert told["val/f1_micro/by/Ann"] == pytest.approx(
        sk.f1_score(true[by_ann], predicted[by_ann], average="micro", zero_division=0)
    )


def test_a_number_of_a_text_is_learned(place):
    shell("train", "small.toml", *NUMBER)

    found = [float(line) for line in etude.Run("runs/small").predict([row[0] for row in ROWS])]

    assert sk.r2_score([float(row[2]) for row in ROWS], found) > 0.5
    told = max(rows("runs/small"), key=lambda row: row.get("val/r2", -9))["val/r2"]
    assert told == pytest.approx(sk.r2_score([float(row[2]) for row in ROWS], found), abs=1e-3)


@pytest.mark.parametrize("words", [LABELS, NUMBER], ids=["labels", "number"])
def test_an_export_answers_as_its_run(place, words):
    words = (*words, "--train.max_duration", "2 steps", "--data.on_bad_sample", "skip", "--data.max_skipped", "50%")
    shell("train", "small.toml", *words)
    shell("export", "runs/small", "out")
    texts = [row[0] for row in ROWS]
    Path("lines.txt").write_text("\n".join(texts) + "\n")

    shell("predict", "out", "lines.txt", "--checkpoint", "out", "--output", "answers.txt")

    assert Path("answers.txt").read_text().splitlines() == etude.Run("runs/small").predict(texts)


@pytest.mark.parametrize(
    ("kind", "workers"),
    [
        ("lstm", 2),
        *(pytest.param(*both, marks=pytest.mark.acceptance) for both in (("lstm", 0), ("gru", 0), ("gru", 2))),
    ],
)
def test_a_recurrent_run_cut_anywhere_ends_in_the_same_bits(place, kind, workers):
    words = (*NUMBER, "--model.type", kind, "--train.max_duration")
    shell("train", "small.toml", *words, "8 steps")
    for steps in ("3 steps", "8 steps"):
        shell("train", "small.toml", "--run.name", "cut", *words, steps, "--data.workers", str(workers))

    weights = [Path(f"runs/{run}/checkpoints/last/model.safetensors").read_bytes() for run in ("small", "cut")]
    assert weights[0] == weights[1]


def test_numbers_of_json_lines_are_read(place):
    objects = [{"text": row[0], "much": float(row[2])} for row in ROWS]
    Path("train.jsonl").write_text("\n".join(map(json.dumps, objects)) + "\n")
    words = (*NUMBER, "--data.val", "false", "--train.max_duration", "3 steps")

    shell("train", "small.toml", *words)
    shell("train", "small.toml", *words, "--run.name", "json", "--data.train", "train.jsonl")

    weights = [Path(f"runs/{run}/checkpoints/last/model.safetensors").read_bytes() for run in ("small", "json")]
    assert weights[0] == weights[1]


def test_a_number_that_is_none_is_named(place, capsys):
    Path("val.tsv").write_text("text\tmuch\na b\tmuch\n")

    shell("train", "small.toml", *NUMBER, code=3)

    assert 'val.tsv, line 2: the target "much" is not a number' in capsys.readouterr().err


def test_labels_in_lists_of_json_are_learned_as_those_between_separators(place):
    objects = [{"text": row[0], "letters": [one for one in row[1].split(",") if one]} for row in ROWS]
    for name in ("train", "val"):
        Path(f"{name}.jsonl").write_text("\n".join(map(json.dumps, objects)) + "\n")
    words = (*LABELS, "--train.max_duration", "3 steps", "--data.on_bad_sample", "skip", "--data.max_skipped", "50%")

    shell("train", "small.toml", *words)
    files = ("--data.train", "train.jsonl", "--data.val", "val.jsonl")
    shell("train", "small.toml", *words, *files, "--run.name", "lists")

    weights = [Path(f"runs/{run}/checkpoints/last/model.safetensors").read_bytes() for run in ("small", "lists")]
    assert weights[0] == weights[1]


def test_a_list_that_is_not_of_texts_is_no_labels(place, capsys):
    Path("train.jsonl").write_text('{"text": "some words", "letters": ["a", 1]}\n')

    shell("train", "small.toml", *LABELS, "--data.train", "train.jsonl", code=3)

    assert 'the field "letters" is not a string' in capsys.readouterr().err
