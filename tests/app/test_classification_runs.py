"""Classification through the shell: the whole path on tiny data, its bad inputs, and the bits of a run cut anywhere."""

import io
import json
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import etude
from etude.__main__ import main
from etude.data.tokens.tokenizers import EOS
from etude.tasks.classification.build import build_task
from etude.tasks.classification.processor import LabelProcessor
from etude.tasks.config import load_config

CONFIG = """
[task]
type = "classification"
class_weights = "balanced"
metrics = ["accuracy", "balanced_accuracy", "f1_macro", "f1_per_class"]
[data]
train = "train.tsv"
val = "val.tsv"
test = "val.tsv"
[tokenizer]
type = "char"
[model]
d_model = 16
heads = 2
layers = 1
feedforward = 32
[optimizer]
learning_rate = 0.01
[loss]
label_smoothing = 0.1
[train]
max_duration = "24 steps"
eval_every = "6 steps"
save_every = "6 steps"
log_every = "1 step"
batch_size = 8
keep_last = 9
device = "cpu"
[log]
progress = false
tensorboard = false
"""
ROWS = [
    (word * times, kind)
    for times in (1, 2, 3)
    for word, kind in (("abc ", "early"), ("bca ", "early"), ("xyz ", "late"))
]
TRAINED = [*ROWS, *ROWS, ("zzz", "late")]


def table(rows, header="text\tlabel"):
    return "\n".join([header, *("\t".join(row) for row in rows)]) + "\n"


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.tsv").write_text(table(TRAINED))
    (tmp_path / "val.tsv").write_text(table([("cab abc", "early"), ("zyx", "late"), ("c", "early")]))
    (tmp_path / "small.toml").write_text(CONFIG)
    return tmp_path


def shell(*words, code=0):
    assert main(list(words)) == code


def weights(run):
    return Path(run, "checkpoints/last/model.safetensors").read_bytes()


def rows(run):
    return [json.loads(line) for line in Path(run, "metrics.jsonl").read_text().splitlines()]


def asked(monkeypatch, text):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))


def test_the_whole_path(place, capsys, monkeypatch):
    shell("check", "small.toml")
    shell("plan", "small.toml", "--json")
    planned = json.loads(capsys.readouterr().out.splitlines()[-1])
    shell("train", "small.toml")
    last = rows("runs/small")[-1]
    assert (planned["steps"], planned["tokens"]) == (24, last["tokens"])
    assert last["val/accuracy"] == last["val/f1/late"] == 1
    labels = json.loads(Path("runs/small/tokenizers/labels.json").read_text())
    assert labels == {"labels": ["early", "late"], "counts": [12, 7]}
    capsys.readouterr()

    shell("validate", "runs/small", "--json")
    assert json.loads(capsys.readouterr().out)["val/balanced_accuracy"] == 1
    shell("test", "runs/small")
    assert Path("runs/small/outputs/test.txt").read_text() == "early\nlate\nearly\n"
    assert Path("runs/small/outputs/test.reference.txt").read_text() == "early\nlate\nearly\n"
    assert Path("runs/small/outputs/test.confusion.tsv").read_text() == "\tearly\tlate\nearly\t2\t0\nlate\t0\t1\n"
    capsys.readouterr()

    shell("export", "runs/small", "out")
    for name in ("train.tsv", "val.tsv"):
        Path(name).unlink()  # predicting needs no data
    capsys.readouterr()
    asked(monkeypatch, "abc\nzy\n")
    shell("predict", "runs/small")
    assert capsys.readouterr().out == "early\nlate\n"
    asked(monkeypatch, "abc\n")
    shell("predict", "runs/small", "--json")
    answer = json.loads(capsys.readouterr().out)
    assert (answer["source"], answer["prediction"], set(answer["scores"])) == ("abc", "early", {"early", "late"})
    assert sum(answer["scores"].values()) == pytest.approx(1)
    assert answer["score"] == answer["scores"]["early"]
    asked(monkeypatch, "abc\n")
    shell("predict", "out", "--checkpoint", "out")
    assert capsys.readouterr().out == "early\n"
    assert etude.Run("runs/small").predict(["zzy", "abc"]) == ["late", "early"]


def test_outputs_hold_text_label_prediction_and_scores(place):
    shell("train", "small.toml", "--train.max_duration", "6 steps")

    found = saved(place / "runs/small/outputs", "val")

    assert found["source"] == ["cab abc", "zyx", "c"]
    assert found["target"] == ["early", "late", "early"]
    assert found["sample"] == [0, 1, 2]
    for scores, prediction in zip(found["scores"], found["prediction"], strict=True):
        assert prediction == ["early", "late"][max((0, 1), key=scores.__getitem__)]


def saved(folder, split):
    path = next(folder.glob(f"{split}.*"))
    if path.suffix == ".jsonl":
        lines = [json.loads(line) for line in path.read_text().splitlines()]
    else:
        lines = pytest.importorskip("pyarrow.parquet").read_table(path).to_pylist()
    lines.sort(key=lambda line: line["sample"])
    return {name: [line[name] for line in lines] for name in lines[0]}


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_cut_anywhere_ends_in_the_same_bits(place, workers):
    shell("train", "small.toml")
    for steps in ("7 steps", "16 steps", "24 steps"):
        shell("train", "small.toml", "--run.name", "cut", "--train.max_duration", steps, "--data.workers", str(workers))

    assert weights("runs/cut") == weights("runs/small")


def test_it_is_forked(place):
    shell("train", "small.toml")

    shell("fork", "runs/small", "--at", "12 steps", "--optimizer.learning_rate", "0.001")

    losses = [
        {r["step"]: r["train/loss"] for r in rows(f"runs/{n}") if "train/loss" in r} for n in ("small", "small-fork-12")
    ]
    assert all(losses[0][step] == losses[1][step] for step in range(1, 13))
    assert losses[0][24] != losses[1][24]


def test_the_first_loss_is_torchs_over_all_samples_however_batches_are_cut(place):
    words = ("--train.max_duration", "1 step", "--model.dropout", "0")
    shell("train", "small.toml", *words, "--train.batch_size", "19")
    shell("train", "small.toml", *words, "--run.name", "parts", "--train.accumulate", "3")

    config = load_config("small.toml").config
    processor = LabelProcessor.stored(Path("runs/small/tokenizers"))
    task = build_task(config, processor).eval()
    logits = torch.cat([task.model(torch.tensor([[*processor.tokenizer.encode(text), EOS]])) for text, _ in TRAINED])
    labels = torch.tensor([processor.labels.index(label) for _, label in TRAINED])
    weight = torch.tensor([19 / 24, 19 / 14])
    expected = F.cross_entropy(logits, labels, weight=weight, label_smoothing=0.1).item()
    for run in ("small", "parts"):
        assert rows(f"runs/{run}")[0]["train/loss"] == pytest.approx(expected, abs=1e-5)


BAD = {
    "no label": ("text\tlabel\na b\tearly\nc d\n", "val.tsv, line 3: the line has 1 column, but 2 columns are needed"),
    "an empty label": ("text\tlabel\na b\t \n", "val.tsv, line 2: the label is empty"),
    "an empty text": ("text\tlabel\na b\tearly\n  \tlate\n", "val.tsv, line 3: the text is empty"),
    "an unknown label": (
        "text\tlabel\na\tearly\nb\tnoon\n",
        'val.tsv, line 3: the label "noon" is none of the training data, which has early',
    ),
    "no column of labels": ("text\tkind\na\tearly\n", 'line 1: there is no column "label", beside "text"'),
    "other names": ("sentence\tclass\na\tearly\n", 'set data.text = "sentence" and data.label = "class"'),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_sample_is_named(case, place, capsys):
    content, told = BAD[case]
    (place / "val.tsv").write_text(content)

    shell("train", "small.toml", code=3)

    assert told in capsys.readouterr().err


def test_a_text_without_a_position_is_named_before_the_first_step(place, capsys):
    shell("train", "small.toml", "--model.positions", "learned", "--model.max_positions", "12", code=3)

    assert "train.tsv, line 8 has 13 tokens, the end included" in capsys.readouterr().err


def test_a_text_beyond_the_token_budget_is_named_before_the_first_step(place, capsys):
    shell("train", "small.toml", "--train.batch_size", "false", "--train.batch_tokens", "12", code=3)

    said = capsys.readouterr().err
    assert "train.tsv, line 8" in said
    assert "13 tokens" in said


def test_a_table_without_names_is_text_and_label(place, capsys):
    (place / "train.tsv").write_text("a b\tearly\nz\tlate\n")
    words = ("--data.val", "false", "--train.max_duration", "2 steps")

    shell("train", "small.toml", *words)
    shell("train", "small.toml", *words, "--run.name", "counted", "--data.text", "1", "--data.label", "2")

    assert "is a sample, and its first column is the text, its second the label" in capsys.readouterr().err
    assert weights("runs/counted") == weights("runs/small")


def test_schedules_drive_dropout_and_smoothing(place):
    rate = '{ schedule = "linear", from = 0.0, to = 0.4, over = "4 steps" }'
    shell(
        "train",
        "small.toml",
        "--train.max_duration",
        "4 steps",
        "--model.dropout",
        rate,
        "--loss.label_smoothing",
        rate,
    )

    kept = [row for row in rows("runs/small") if "train/loss" in row]
    assert [row["train/dropout"] for row in kept] == pytest.approx([0, 0.1, 0.2, 0.3])
    assert [row["train/label_smoothing"] for row in kept] == pytest.approx([0, 0.1, 0.2, 0.3])


def test_bad_samples_are_left_out_and_listed_where_asked(place):
    (place / "val.tsv").write_text("text\tlabel\na\tearly\nb\tnoon\n\tlate\nz\tlate\n")

    words = ("--data.on_bad_sample", "skip", "--data.max_skipped", "50%", "--train.max_duration", "2 steps")
    shell("train", "small.toml", *words)

    listed = [json.loads(line) for line in Path("runs/small/skipped.jsonl").read_text().splitlines()]
    assert [entry["line"] for entry in listed] == [3, 4]
    assert "noon" in listed[0]["reason"]


def test_one_label_is_no_classification(place, capsys):
    (place / "train.tsv").write_text(table([("a", "early"), ("b", "early")]))

    shell("train", "small.toml", code=3)

    assert 'train.tsv has one label, "early", but there must be two or more.' in capsys.readouterr().err


def test_a_blank_line_has_an_empty_label_and_costs_no_other_its_own(place, capsys, monkeypatch):
    shell("train", "small.toml")
    capsys.readouterr()

    asked(monkeypatch, "abc\n\n \u2003\nzzz\n")
    shell("predict", "runs/small")
    lines = capsys.readouterr().out
    asked(monkeypatch, "\nzzz\n")
    shell("predict", "runs/small", "--json")
    objects = [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    assert lines == "early\n\n\nlate\n"
    assert objects[0] == {"source": "", "prediction": "", "score": 0.0, "scores": {}}
    assert objects[1]["prediction"] == "late"


def test_json_lines_and_spreadsheets_give_the_same_samples(place, capsys):
    samples = [("a, b", "1"), ('say "x"', "0"), ("c", "1")]
    objects = [json.dumps({"words": text, "kind": int(label)}) for text, label in samples]
    (place / "train.jsonl").write_text("\n".join(objects))
    cells = 'kind,words\n1,"a, b"\n0,"say ""x"""\n1,c\n'
    (place / "train.csv").write_text(cells)
    words = ("--data.text", "words", "--data.label", "kind", "--data.val", "false", "--train.max_duration", "3 steps")

    for name in ("jsonl", "csv"):
        shell("train", "small.toml", "--run.name", name, "--data.train", f"train.{name}", *words)

    assert weights("runs/jsonl") == weights("runs/csv")


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--loss.type", "mse"), "classification predicts labels"),
        (("--loss.z_loss", "0.1"), "task.class_weights needs"),
        (("--data.source", "a"), "it is for pairs of texts"),
        (("--data.train", "numbers"), "number_languages"),
    ],
)
def test_keys_that_do_not_fit_are_told_of(flags, told, place, capsys):
    shell("check", "small.toml", *flags, code=2 if flags[0] != "--data.train" else 3)

    assert told in capsys.readouterr().err
