"""Runs of the hf task through the shell: trained, gone on with without the model's folder, predicted, exported."""

import json
import math
import shutil
import sys
from pathlib import Path

import pytest
import torch

import etude
from etude.__main__ import main
from etude.base.errors import ConfigError

sys.path.insert(0, str(Path(__file__).parents[1] / "tasks"))

from hf_folders import CHATML, PAIRS, answers, folder, texts, write_lines

CONFIG = """
[task]
type = "hf"
max_tokens = 8
[model]
type = "hf"
path = "model"
[data]
train = "talks.jsonl"
val = "talks.jsonl"
[train]
max_duration = "4 steps"
batch_size = 4
save_every = "1 step"
ema_decay = 0.9
device = "cpu"
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder(tmp_path / "model", "llama", CHATML)
    talks = [{"messages": [{"role": "user", "content": a}, {"role": "assistant", "content": b}]} for a, b in PAIRS]
    write_lines(tmp_path / "talks.jsonl", talks)
    (tmp_path / "chat.toml").write_text(CONFIG)
    return tmp_path


def metrics(run):
    return [
        json.loads(line)["val/loss"] for line in Path(run, "metrics.jsonl").read_text().splitlines() if "val/" in line
    ]


def test_a_run_goes_on_predicts_and_is_exported_without_the_models_folder(place, capsys):
    etude.train("chat.toml")
    shutil.rmtree("model")
    etude.train("chat.toml", {"train.max_duration": "6 steps"})
    run = etude.Run("runs/chat")
    told = run.validate()
    capsys.readouterr()

    assert main(["export", "runs/chat", "out"]) == 0
    (place / "lines.txt").write_text("say cat twice\n\n")
    assert main(["predict", "runs/chat", "lines.txt"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (place / "other.toml").write_text(CONFIG.replace('"model"', '"out"').replace("4 steps", "1 steps"))
    etude.train("other.toml", {"optimizer.learning_rate": 0.0, "train.ema_decay": False})

    assert lines == [next(run.load().predict(["say cat twice"]))[0].text.replace("\n", " "), ""]
    assert told["val/loss"] == pytest.approx(min(metrics("runs/chat")))
    assert metrics("runs/other")[0] == pytest.approx(told["val/loss"], rel=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {"data.packing": "documents", "data.block_size": 40},
        {"train.batch_tokens": 80},
        {"train.batch_size": {"schedule": "linear", "warmup": "0 steps", "peak": 2, "end": 4}},
        {"train.overfit": 1},
        {"loss.z_loss": 1e-3, "loss.label_smoothing": 0.1},
        {"model.from_scratch": True},
        {"task.chat_template": False, "data.train": "answers.jsonl", "data.val": "answers.jsonl"},
        {"data.train": "texts.jsonl", "data.val": "texts.jsonl", "data.block_size": 8},
        {"data.max_length": 20, "data.on_bad_sample": "skip", "data.max_skipped": "100%"},
    ],
    ids=str,
)
def test_every_key_changes_the_run(changes, place):
    answers(place / "answers.jsonl")
    texts(place / "texts.jsonl")

    etude.train("chat.toml", {"run.name": "plain"})
    etude.train("chat.toml", {"run.name": "changed", **changes})

    rows = [Path("runs", name, "metrics.jsonl").read_text() for name in ("plain", "changed")]
    losses = [[json.loads(line).get("train/epoch_loss") for line in text.splitlines()] for text in rows]
    assert losses[0] != losses[1] or metrics("runs/plain") != metrics("runs/changed")


def test_an_unknown_loss_is_refused(place):
    with pytest.raises(ConfigError, match=r'loss\.type "mse" compares numbers, but hf predicts tokens'):
        etude.train("chat.toml", {"loss.type": "mse"})


def test_a_wrong_key_names_the_nearest(place):
    with pytest.raises(ConfigError, match=r"did you mean data\.prompt\?"):
        etude.train("chat.toml", {"data.promt": "x"})


def test_prompts_of_the_command_line_and_scores_are_those_of_the_model(place, capsys, monkeypatch):
    etude.train("chat.toml")
    model, texts = etude.Run("runs/chat").load(), ["one two", "a longer line of it"]
    capsys.readouterr()

    def predicted(*flags):
        assert main(["predict", "runs/chat", *flags]) == 0
        return capsys.readouterr().out.splitlines()

    Path("lines.txt").write_text("".join(f"{text}\n" for text in texts))
    assert predicted("--prompt", texts[0], "--prompt", texts[1]) == predicted("lines.txt")
    scores = [line.split("\t") for line in predicted("--score", "lines.txt")]
    assert predicted("--score", "--prompt", texts[0]) == ["\t".join(scores[0])]
    for text, (nats, bits, shown) in zip(texts, scores, strict=True):
        (row,) = model.encoder.text(text, model.row_length())
        ids = torch.tensor([row.ids])
        with torch.no_grad():
            chances = model.model(input_ids=ids).logits.float().log_softmax(-1)[0, :-1]
        counted = torch.tensor(row.counted)[1:]
        wanted = float(chances.gather(1, ids[0, 1:, None])[:, 0][counted].sum())
        assert (float(nats), shown) == (pytest.approx(wanted, abs=1e-4), text)
        assert float(bits) == pytest.approx(-wanted / math.log(2) / len(text.encode()), abs=1e-4)
    (scored,) = map(json.loads, predicted("--score", "--json", "--prompt", texts[0]))
    assert (scored["text"], scored["log_probability"]) == (texts[0], pytest.approx(float(scores[0][0]), abs=1e-5))
    for flags, said in {
        ("--score", "--n-best", "2"): "--score tells how likely text is and completes nothing: leave out --n-best",
        ("--prompt", "a", "lines.txt"): "--prompt takes the place of an input: leave out FILE, or --prompt",
    }.items():
        assert main(["predict", "runs/chat", *flags]) == 2
        assert said in capsys.readouterr().err
