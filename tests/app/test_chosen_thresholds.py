"""Thresholds that validations choose: kept with the weights, used wherever these predict, and the same after a cut."""

import csv
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from sklearn import metrics as sk

import etude
from etude.__main__ import main

CONFIG = """
[task]
type = "classification"
thresholds = "f1"
metrics = ["f1_macro", "f1_per_class"]
by = "place"
[data]
type = "tabular"
train = "train.csv"
val = "val.csv"
test = "test.csv"
inputs = ["size", "weight"]
labels = ["ripe", "rare"]
[model]
hidden = [8]
[optimizer]
learning_rate = 0.02
[train]
max_duration = "24 steps"
eval_every = "6 steps"
save_every = "2 steps"
batch_size = 16
keep_last = 99
device = "cpu"
[log]
progress = false
tensorboard = false
"""
ONE = ("--data.labels", "false", "--data.label", "kind", "--task.metrics", '["f1_macro", "f1_per_class"]')
NAMES = ["size", "weight", "place", "kind", "ripe", "rare"]


def write(path, first, count):
    draw = np.random.default_rng(first)
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(NAMES)
        for number in range(count):
            size, weight = draw.normal(size=2)
            rare = int(size + 0.5 * draw.normal() > 1.2)
            ripe = "" if number % 9 == 4 else int(weight + draw.normal() > 0)
            table.writerow([f"{size:.3f}", f"{weight:.3f}", "ab"[number % 2], ["no", "yes"][rare], ripe, rare])


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for first, (split, count) in enumerate({"train": 96, "val": 40, "test": 30}.items()):
        write(tmp_path / f"{split}.csv", first, count)
    (tmp_path / "small.toml").write_text(CONFIG)
    return tmp_path


def shell(*words, code=0):
    assert main(list(words)) == code


def told(capsys, *words):
    capsys.readouterr()
    shell(*words, "--json")
    return json.loads(capsys.readouterr().out)


def best_row(run):
    rows = [json.loads(line) for line in Path(run, "metrics.jsonl").read_text().splitlines()]
    return min((row for row in rows if "val/loss" in row), key=lambda row: row["val/loss"])


def saved(run, split):
    table = pytest.importorskip("pyarrow.parquet").read_table(Path(run, "outputs", f"{split}.parquet"))
    return sorted(table.to_pylist(), key=lambda line: line["sample"])


def truth(split, column):
    with Path(f"{split}.csv").open() as file:
        return np.array([row[column] for row in csv.DictReader(file)])


def largest_f1(true, scores):
    precision, recall, _ = sk.precision_recall_curve(true, scores)
    return (2 * precision * recall / np.maximum(precision + recall, 1e-12)).max()


@pytest.mark.parametrize("words", [(), ("--train.ema_decay", "0.8")], ids=["weights", "averaged"])
def test_they_make_f1_largest_on_val_and_serve_test_and_predict(place, words, capsys, monkeypatch):
    shell("train", "small.toml", *words)

    row, val = best_row("runs/small"), saved("runs/small", "val")
    for at, label in enumerate(("rare", "ripe")):
        scores, cells = np.array([line["scores"][1 - at] for line in val]), truth("val", label)
        known = cells != ""
        assert row[f"val/f1/{label}"] == pytest.approx(largest_f1(cells[known] == "1", scores[known]))
        threshold = np.float32(row[f"val/threshold/{label}"])
        assert [label in line["prediction"] for line in val] == list(scores >= threshold)
        groups = truth("val", "place")
        for group in "ab":
            part = known & (groups == group)
            expected = sk.f1_score(cells[part] == "1", scores[part] >= threshold, zero_division=0)
            assert row[f"val/f1/{label}/by/{group}"] == pytest.approx(expected)

    again = told(capsys, "validate", "runs/small")
    assert {name: again[name] for name in ("val/f1_macro", "val/f1/rare")} == {
        name: row[name] for name in ("val/f1_macro", "val/f1/rare")
    }
    tested = told(capsys, "test", "runs/small")
    assert not any("threshold" in name for name in (*tested, *again))
    thresholds = np.array([row["val/threshold/ripe"], row["val/threshold/rare"]], np.float32)
    lines = saved("runs/small", "test")
    predicted = np.array([line["scores"] for line in lines], np.float32) >= thresholds
    expected = sk.f1_score(truth("test", "rare") == "1", predicted[:, 1])
    assert tested["test/f1/rare"] == pytest.approx(expected)
    shell("export", "runs/small", "out")
    for run, options in (("runs/small", ()), ("out", ("--checkpoint", "out"))):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(Path("test.csv").read_bytes())))
        capsys.readouterr()
        shell("predict", run, *options)
        assert capsys.readouterr().out.splitlines() == [";".join(line["prediction"]) for line in lines]


def test_of_two_labels_that_of_the_second_is_chosen(place, capsys):
    shell("train", "small.toml", *ONE)

    row, val = best_row("runs/small"), saved("runs/small", "val")
    scores = np.array([line["scores"][1] for line in val])
    assert row["val/f1/yes"] == pytest.approx(largest_f1(truth("val", "kind") == "yes", scores))
    assert [line["prediction"] == "yes" for line in val] == list(scores >= np.float32(row["val/threshold/yes"]))
    assert etude.Run("runs/small").predict([{"size": "9", "weight": "0"}]) == ["yes"]


def test_a_wrong_split_is_judged_by_what_val_chose(place, capsys):
    shell("train", "small.toml")
    kept = told(capsys, "validate", "runs/small", "--data.val", "test.csv")

    row = best_row("runs/small")
    scores = np.array([line["scores"] for line in saved("runs/small", "val")])
    assert scores.shape == (40, 2)
    test = told(capsys, "test", "runs/small")
    assert kept["val/f1/rare"] == test["test/f1/rare"]
    given = told(capsys, "test", "runs/small", "--task.thresholds", str(row["val/threshold/rare"]))
    assert given["test/f1/rare"] == test["test/f1/rare"]


@pytest.mark.parametrize("words", [(), ("--train.ema_decay", "0.8")], ids=["weights", "averaged"])
def test_a_run_cut_behind_a_validation_that_was_not_due_ends_in_the_same_bits(place, words):
    words = (*words, "--train.max_duration", "16 steps")
    shell("train", "small.toml", *words)
    for steps in ("7 steps", "16 steps"):
        shell("train", "small.toml", "--run.name", "cut", *words[:-1], steps)

    for step in (8, 10, 12, 14, 16):  # the last validation before 8 was at 7, and in the straight run at 6
        for weights in Path("runs/small/checkpoints", f"step-{step:08}").glob("*.safetensors"):
            assert weights.read_bytes() == Path("runs/cut", *weights.parts[2:]).read_bytes()
    found = load_file("runs/small/checkpoints/step-00000014/model.safetensors")
    assert (found["goal.thresholds.values"] != 0.5).all()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--data.val", "false"), "is chosen by validations: give data.val"),
        (("--train.save_outputs_every", "validation"), 'take train.save_outputs_every = "best"'),
        (("--data.labels", "false", "--data.label", "three"), "is for two labels, or several a sample"),
        (("--data.labels", "false", "--data.targets", "size", "--data.inputs", '["weight"]'), "but numbers are"),
        (("--task.thresholds", "f2"), 'task.thresholds must be "f1", but is "f2"'),
    ],
)
def test_where_nothing_can_be_chosen_it_is_said(place, words, says, capsys):
    for split in ("train", "val"):
        lines = Path(f"{split}.csv").read_text().splitlines()
        cells = ["three", *("xyz"[number % 3] for number in range(len(lines) - 1))]
        Path(f"{split}.csv").write_text("".join(f"{line},{cell}\n" for line, cell in zip(lines, cells, strict=True)))
    if "--data.targets" in words or "three" in words:
        words = (*words, "--task.metrics", "[]")

    shell("train", "small.toml", *words, code=2)

    assert says in capsys.readouterr().err


def test_weights_that_were_trained_without_have_none(place, capsys):
    shell("train", "small.toml", "--task.thresholds", "0.5")
    shell("validate", "runs/small", "--task.thresholds", "f1", code=7)

    assert 'task.thresholds = "f1" needs weights that were trained with it' in capsys.readouterr().err
