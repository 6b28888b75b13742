"""Language models from a config: trained, gone on with, measured, forked, and what is wrong said in a sentence."""

import json
import shutil
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from texts_of_runs import CARRIED, CONFIG, LSTM, folder, rows, train, values, weights
from torch import nn

import etude
from etude.__main__ import main

NETS = """
import etude
from torch import nn

class Net(nn.Module):
    def __init__(self, vocabulary, width=8):
        super().__init__()
        self.table = nn.Embedding(vocabulary, width)
        self.out = nn.Linear(width, vocabulary)

    def forward(self, tokens):
        return self.out(self.table(tokens))

class Mine(etude.Task):
    def __init__(self, model, loss):
        super().__init__()
        self.model, self.loss = model, loss

    def training_step(self, batch):
        return self.loss(self.model(batch.inputs), batch.targets)

    def validation_step(self, batch):
        return self.training_step(batch)
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder(tmp_path / "texts")
    folder(tmp_path / "others", files=4, seed=2)
    (tmp_path / "lm.toml").write_text(CONFIG)
    (tmp_path / "net.py").write_text(NETS)
    return tmp_path


MIXTURE = [{"path": "texts", "weight": 3}, {"path": "others"}]
FALLING = {"schedule": "piecewise", "points": [["0 epochs", 1.0], ["2 epochs", 0.1]]}
GROWING = {"schedule": "piecewise", "points": [["0 epochs", 8], ["2 epochs", 16]]}
CHANGES = {
    "lstm": LSTM,
    "gru": {**LSTM, "model.type": "gru"},
    "preset": {"model.preset": "gpt2"},
    "positions": {"model.positions": "sinusoidal"},
    "norm": {"model.norm": "post"},
    "qk_norm": {"model.qk_norm": True},
    "tie_output": {"model.tie_output": False},
    "dropout": {"model.dropout": 0.3},
    "layer_drop": {"model.layer_drop": 0.5},
    "vocabulary_multiple": {"model.vocabulary_multiple": 64},
    "packing": {"data.packing": "documents"},
    "order": {"data.order": "contiguous"},
    "mixture": {"data.train": MIXTURE},
    "block_size": {"data.block_size": 8},
    "batch_tokens": {"train.batch_tokens": 32},
    "accumulate": {"train.accumulate": 2},
    "overfit": {"train.overfit": 1},
    "limit_val": {"train.limit_val": 1},
    "split": {"data.split": [0.5, 0.5]},
    "split_by": {"data.split": [0.5, 0.5], "data.split_by": "document"},
    "separator": {"data.document_separator": "\n"},
    "z_loss": {"loss.z_loss": 0.01},
    "label_smoothing": {"loss.label_smoothing": 0.1},
    "mup": {"init.scheme": "mup", "init.base_width": 8},
    "tokenizer": {"tokenizer.type": "char"},
    "ema": {"train.ema_decay": 0.9},
    "own model": {"model": {"type": "net.py:Net"}},
    "own task": {"task": {"type": "net.py:Mine"}, "model.type": "decoder"},
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """What a run logs of which nothing was changed."""
    place = tmp_path_factory.mktemp("plain")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        folder(place / "texts")
        (place / "lm.toml").write_text(CONFIG)
        return rows(train())


@pytest.mark.parametrize("name", CHANGES)
def test_every_key_changes_the_run(name, plain, place):
    changed = rows(train(CHANGES[name]))

    keys = ("train/loss", "val/loss")
    assert [[row.get(key) for key in keys] for row in changed] != [[row.get(key) for key in keys] for row in plain]
    assert changed[-1]["step"] == 6


def test_the_metrics_say_how_good_a_model_is_and_how_busy_the_machine(place):
    run = train({"task.metrics": ["perplexity", "bits_per_byte", "accuracy"]})

    logged = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    val = next(row for row in logged if "val/loss" in row)
    assert val["val/perplexity"] == pytest.approx(torch.tensor(val["val/loss"]).exp().item(), rel=1e-5)
    assert 0 < val["val/bits_per_byte"] < 10
    assert 0 <= val["val/accuracy"] <= 1
    stepped = [row for row in logged if "train/loss" in row][-1]
    assert stepped["train/flops_per_second"] > 0
    assert 0 < stepped["time/flops_utilization"] < 2


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        # 16-wide: attention 4 x 16 x 16, gated feed-forward 3 x 16 x 64, output of V x 16, attention over 16 tokens
        ({}, lambda vocabulary: 6 * (4 * 256 + 3 * 16 * 64 + vocabulary * 16) + 12 * 16 * 16),
        (LSTM, lambda vocabulary: 6 * (2 * 4 * 16 * 16 + vocabulary * 16)),
    ],
    ids=["decoder", "lstm"],
)
def test_the_start_tells_parameters_and_operations(changes, told, place, capsys):
    run = train(changes)

    vocabulary = etude.Run(run).load().tokenizer.size
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("Data:"))
    assert "parameters, " in line
    assert "without embeddings" in line
    assert f"{told(vocabulary) / 1e6:,.3g} MFLOP per training token" in line


RESUMED = {
    "decoder": {"model.dropout": 0.1},
    "carried state": {**CARRIED, "train.accumulate": 2, "model.dropout": 0.2, "model.variational": True},
    "packed documents": {"data.packing": "documents", "train.batch_tokens": 40, "train.ema_decay": 0.9},
    "mixture": {
        "data.train": [{"path": "texts", "weight": FALLING}, {"path": "others"}],
        "data.block_size": GROWING,
        "train.limit_train": 3,
    },
    "overfit": {"train.overfit": 2, "train.accumulate": 2},
}


@pytest.mark.parametrize("name", RESUMED)
def test_a_run_that_is_cut_ends_as_an_unbroken_one_does(name, place):
    changes = RESUMED[name] | {"optimizer.learning_rate": 1e-2}
    whole = train(changes, "whole")

    for end in ("3 steps", "4 steps", "6 steps"):
        cut = train({**changes, "train.max_duration": end}, "cut")

    assert weights(cut) == weights(whole)
    assert values(cut, "train/loss") == values(whole, "train/loss")


@pytest.mark.parametrize("changes", [CARRIED, {**CARRIED, "train.tbptt_steps": False}, {}], ids=["tbptt", "carry", ""])
def test_validate_and_test_give_what_the_run_logged(changes, place):
    run = etude.Run(train({**changes, "data.test": "texts", "optimizer.learning_rate": 0.05}))

    assert run.validate(weights="last")["val/loss"] == pytest.approx(values(run.folder, "val/loss")[-1], rel=1e-6)
    again = etude.Run(run.folder, overrides={"data.val": "texts"}).validate(weights="last")
    assert run.test(weights="last")["test/loss"] == pytest.approx(again["val/loss"], rel=1e-6)


def test_a_carried_state_is_what_a_loop_by_hand_carries(place):
    changes = {"data.val": "others", "train.eval_batch_size": 1, "optimizer.learning_rate": 0.05}
    run = etude.Run(train({**CARRIED, **changes}))

    task = run.load("last")
    stream = [3]  # the end of a text, which stands before the first as well
    for file in sorted(Path("others").iterdir()):
        stream += [*task.tokenizer.encode(file.read_text()), 3]
    total, state = 0.0, None
    with torch.no_grad():
        for token, target in pairwise(stream):
            hidden, state = task.model.hidden(torch.tensor([[token]]), state)
            logits = hidden[0] @ task.model.output_weight.T
            total += nn.functional.cross_entropy(logits, torch.tensor([target])).item()
    assert run.validate(weights="last")["val/loss"] == pytest.approx(total / (len(stream) - 1), rel=1e-5)


def test_a_state_is_carried_along_the_text_unless_said_otherwise(place):
    by_name = train({**CARRIED, "data.order": "contiguous"}, "named")

    assert values(train(CARRIED), "train/loss") == values(by_name, "train/loss")


def test_an_overfitted_run_is_measured_on_its_batches(place):
    run = etude.Run(train({"train.overfit": 1}))

    logged = values(run.folder, "val/loss")[-1]
    assert run.validate(weights="last")["val/loss"] == pytest.approx(logged, rel=1e-6)
    assert run.test(weights="last")["test/loss"] == pytest.approx(logged, rel=1e-6)


def test_the_third_part_of_the_text_is_the_test(place):
    run = etude.Run(train({"data.split": [0.5, 0.25, 0.25]}))

    assert run.test()["test/loss"] != run.validate()["val/loss"]


def test_changed_text_is_refused(place, capsys):
    train()
    with Path("texts/03.txt").open("a") as file:
        file.write("one more.\n")

    assert main(["train", "lm.toml", "--run.name", "lm"]) == 7
    assert "The content of data.train" in capsys.readouterr().err


def test_a_fork_shares_its_first_steps(place, capsys):
    run = train()

    assert main(["fork", str(run), "--at", "2 steps", "--optimizer.learning_rate", "0.1"]) == 0
    forked = Path("runs/lm-fork-2")
    assert values(forked, "train/loss")[:2] == values(run, "train/loss")[:2]
    assert weights(forked) != weights(run)
    capsys.readouterr()
    assert main(["diff", str(run), str(forked)]) == 0
    assert "optimizer.learning_rate" in capsys.readouterr().out


@pytest.mark.parametrize("verb", ["check", "plan", "show"])
@pytest.mark.parametrize("changes", [[], ["--data.packing", "documents"], ["--train.overfit", "1"]], ids=str)
def test_a_config_is_looked_at_without_a_run(verb, changes, place, capsys):
    assert main([verb, "lm.toml", *changes]) == 0

    assert "block_size" in capsys.readouterr().out or verb != "show"
    assert not Path("runs/lm").exists()


def test_the_composed_config_runs_as_it_is(place):
    run = train({"model.size": "tiny", "model.preset": "llama", "data.block_size": 8})
    before = weights(run)
    shutil.copy(run / "config.toml", "again.toml")
    shutil.rmtree(run)

    etude.train("again.toml")

    assert weights(run) == before


BAD = {
    "an empty folder": (3, ["--data.train", "empty"], "data.train names the folder", "holds no file of text"),
    "nothing there": (3, ["--data.train", "gone"], "does not exist; corpora by name are python, python_docs"),
    "binary files": (3, ["--data.train", "binary"], "which holds no file of text"),
    "no text": (3, ["--data.train", "bad.txt"], "bad.txt, line 1: invalid UTF-8 (byte 0xff)"),
    "cut short": (3, ["--data.train", "cut.txt.gz"], "cut.txt.gz, line 1: the compressed file is damaged"),
    "another field": (
        3,
        ["--data.train", "b.jsonl"],
        'there is no field "text", but "body"; data.text names the field',
    ),
    "an empty file": (3, ["--data.train", "empty.txt"], "empty.txt, line 1: the document is empty"),
    "one document": (3, ["--data.train", "one.txt", "--data.split_by", "document"], "which are too few for 3 parts"),
    "no data": (2, ["--data.train", "none"], "data.train is not set: name a file or folder of text"),
    "a key of pairs": (2, ["--data.source", "x"], "data.source is not a key of [data]; it is for pairs of texts"),
    "a limit of pairs": (2, ["--data.max_length", "9"], "the length of a row of text is data.block_size"),
    "two files": (2, ["--data.train", '{ source = "a", target = "b" }'], "data.train must be a path or a list"),
    "no positions": (
        2,
        ["--model.positions", "learned", "--model.max_positions", "8"],
        "data.block_size reaches 16, but model.max_positions is 8",
    ),
    "no state": (2, ["--train.tbptt_steps", "4"], "a decoder has none"),
    "shuffled": (
        2,
        ["--data.order", "shuffled"],
        "train.carry_hiddens carries hidden states",
        "data.order is shuffled",
    ),
    "packed": (2, ["--data.packing", "documents"], "train.carry_hiddens carries hidden states", "begins with none"),
    "no weights": (2, ["--data.train", '[{ path = "texts", weight = 0 }]'], "a part whose weight is more than 0"),
    "no parts": (2, ["--data.split", "false", "--train.patience", "2"], "train.patience needs validation data"),
    "a mixture to judge by": (2, ["--data.val", '[{ path = "texts" }]'], "a mixture is for data.train"),
    "shares": (2, ["--data.split", "[0.5, 0.6]"], "two or three positive shares that add up to 1"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_a_sentence(name, place, capsys):
    for made in ("empty", "binary"):
        (place / made).mkdir()
    (place / "binary/a.bin").write_bytes(b"\0\1")
    (place / "bad.txt").write_bytes(b"\xff")
    (place / "cut.txt.gz").write_bytes(b"\x1f\x8bnothing")
    (place / "b.jsonl").write_text('{"body": "x"}\n')
    (place / "empty.txt").write_text("")
    (place / "one.txt").write_text("hello old world")
    code, flags, *told = BAD[name]
    if name in {"shuffled", "packed"}:
        flags = [*flags, "--model.type", "lstm", "--model.layers", "1", "--train.carry_hiddens", "true"]

    assert main(["train", "lm.toml", *flags]) == code

    error = capsys.readouterr().err
    assert all(part in error for part in told)
    assert len(error.split("etude: ")[-1].splitlines()) == 1


def test_weights_that_fall_to_nothing_are_refused_before_the_first_step(place):
    falling = {**FALLING, "points": [["0 epochs", 1.0], ["1 epochs", 0.0]]}
    changes = {"data.train": [{"path": "texts", "weight": falling}], "train.max_duration": "3 epochs"}
    changes["data.train"].append({"path": "others", "weight": 0})

    with pytest.raises(etude.errors.ConfigError, match=r"weights of data\.train are all 0"):
        train(changes)

    assert not Path("runs/lm/checkpoints").exists()


def test_two_tokenizers_are_refused(place, capsys):
    two = '[tokenizer.source]\ntype = "char"\n[tokenizer.target]\ntype = "char"\n'
    Path("lm.toml").write_text(CONFIG.replace('[tokenizer]\ntype = "bpe"\nvocab_size = 300\n', two))

    assert main(["train", "lm.toml"]) == 2
    assert "tokenizer must be one for all text" in capsys.readouterr().err


def test_a_key_of_text_is_named_where_pairs_are_meant(place, capsys):
    Path("tr.toml").write_text('[task]\ntype = "translation"\n[data]\ntrain = "numbers"\nblock_size = 8\n')

    assert main(["check", "tr.toml"]) == 2
    assert "data.block_size is not a key of [data]; it is for text" in capsys.readouterr().err


def test_keys_of_other_kinds_of_data_are_all_named():
    from etude.tasks.language_model.config import TextDataConfig
    from etude.tasks.translation.config import DataConfig

    pairs, text = set(DataConfig.model_fields), set(TextDataConfig.model_fields)
    assert set(DataConfig.foreign) == text - pairs
    assert set(TextDataConfig.foreign) == pairs - text


def test_a_run_without_a_validation_split_says_so(place, capsys):
    run = train({"data.split": False})

    for verb, key in (("validate", "data.val"), ("test", "data.test")):
        assert main([verb, str(run)]) == 2
        assert f"{key} is not set" in capsys.readouterr().err
    assert main(["validate", str(run), "--data.val", "others"]) == 0


@pytest.mark.parametrize(
    ("name", "changes"),
    [("more merges than text", {"tokenizer.vocab_size": 9000}), ("longer rows than text", {"data.block_size": 3000})],
)
def test_more_than_the_text_has_is_no_error(name, changes, place):
    assert len(values(train(changes), "train/loss")) == 6
