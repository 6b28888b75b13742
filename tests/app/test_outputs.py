"""Saved outputs and callbacks of a run from a config: texts, scores, losses, and what the shell says."""

import json
import sys

import pytest

from etude.app.cli.main import main
from etude.app.running import train_run
from etude.app.runs.run import Run
from etude.callbacks import tables
from etude.metrics.text import CorpusScore
from etude.tasks.config import load_config

CONFIG = """
[task]
type = "translation"
eval_search_samples = 5
max_target_extra = 2

[data]
train = "pairs.tsv"
val = "val.tsv"
test = "val.tsv"
on_bad_sample = "skip"
max_skipped = 5

[tokenizer]
type = "char"

[model]
d_model = 8
heads = 2
encoder_layers = 1
decoder_layers = 1
feedforward = 8

[train]
max_duration = "2 epochs"
batch_size = 8
device = "cpu"
save_outputs = "all"

[log]
progress = false
tensorboard = false
"""

WATCHES = """
import etude

class Watches:
    def __init__(self, name):
        self.name, self.heard = name, []

    def on_fit_end(self, run):
        self.heard.append("fit_end")

    def on_validation_batch_end(self, run, batch, outputs):
        self.heard.append(outputs is None or len(outputs) == len(batch))

    def on_test_end(self, run, metrics):
        print(f"{self.name} heard of step {run.weights_step}")

    def on_predict_end(self):
        print(f"{self.name} heard of predictions")

    def state_dict(self):
        return {"heard": len(self.heard)}

    def load_state_dict(self, state):
        self.heard = ["before"] * state["heard"]

class Misspelt:
    def on_epok_end(self, run):
        pass
"""


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tables, "is_installed", lambda name: False)
    line = "{0} {1}\t{1} {0}\n"
    words = ["one", "two", "three", "four"]
    pairs = [line.format(a, b) for a in words for b in words]
    (tmp_path / "pairs.tsv").write_text("source\ttarget\n" + "".join(pairs) * 2)
    (tmp_path / "val.tsv").write_text("source\ttarget\nonly source\t\n" + "".join(pairs[:12]))
    (tmp_path / "watch.py").write_text(WATCHES)
    (tmp_path / "c.toml").write_text(CONFIG)
    return tmp_path


def train(home, more="", **overrides):
    (home / "c.toml").write_text(CONFIG + more)
    given = {key.replace("__", "."): value for key, value in overrides.items()}
    return train_run(load_config(home / "c.toml", given), say=lambda _: None)


def read(home, split):
    return [json.loads(line) for line in (home / f"runs/c/outputs/{split}.jsonl").read_text().splitlines()]


def mean_loss(rows):
    return sum(row["loss"] * row["tokens"] for row in rows) / sum(row["tokens"] for row in rows)


def test_translations_are_saved_with_texts_scores_and_the_loss_of_each(home):
    result = train(home)

    rows = sorted(read(home, "val"), key=lambda row: row["sample"])
    assert [row["sample"] for row in rows] == list(range(1, 13))  # the first of the file is left out
    assert (rows[0]["source"], rows[0]["target"]) == ("one one", "one one")
    assert sum(row["prediction"] is not None for row in rows) == 5
    assert mean_loss(rows) == pytest.approx(result.metrics["val/loss"], rel=1e-5)
    assert len(read(home, "train")) == 32
    assert {row["target"] for row in read(home, "train")} >= {"four four", "two one"}


def test_a_test_saves_the_best_translation_of_every_sample_beside_its_text(home, capsys):
    train(home)

    assert main(["test", "runs/c"]) == 0

    rows = sorted(read(home, "test"), key=lambda row: row["sample"])
    assert [row["prediction"] for row in rows] == (home / "runs/c/outputs/test.txt").read_text().splitlines()
    assert all(row["scores"] == sorted(row["scores"], reverse=True) for row in rows)
    assert "outputs/test.jsonl" in capsys.readouterr().err


def test_the_second_run_writes_nothing_again(home):
    train(home)
    before = {path: path.stat().st_mtime_ns for path in (home / "runs/c/outputs").iterdir()}

    train(home)

    assert {path: path.stat().st_mtime_ns for path in (home / "runs/c/outputs").iterdir()} == before


TABLE = '\n[callbacks.mine]\ntype = "watch.py:Watches"\nname = "Anna"\n'


def test_a_callback_keeps_its_state_under_the_name_of_its_table(home):
    train(home, TABLE)

    state = json.loads((home / "runs/c/checkpoints/last/state.json").read_text())

    assert any("callback mine" in key for key in json.dumps(state).split('"'))
    assert "[callbacks]" in (home / "runs/c/config.toml").read_text()


def test_callbacks_of_the_config_hear_of_test_and_predict_where_its_code_may_run(home, capsys):
    train(home, TABLE)
    run = Run(home / "runs/c")

    run.test()
    run.predict(["one two"])

    said = capsys.readouterr().out
    assert "Anna heard of step 8" in said
    assert "Anna heard of predictions" in said
    Run(home / "runs/c", allow_code=False).test()
    assert "Anna" not in capsys.readouterr().out


@pytest.mark.parametrize("verb", ["check", "train"])
def test_a_misspelt_event_is_refused_before_any_data_is_read(home, verb, capsys):
    more = '\n[callbacks.wrong]\ntype = "watch.py:Misspelt"\n'
    (home / "c.toml").write_text(CONFIG.replace('"pairs.tsv"', '"missing.tsv"') + more)

    assert main([verb, "c.toml"]) == 2

    said = capsys.readouterr().err
    assert "Misspelt.on_epok_end is not an event; did you mean on_epoch_end?" in said
    assert "missing.tsv" not in said


def test_a_logger_that_is_not_installed_is_refused_before_any_data_is_read(home, capsys, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "mlflow"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr("etude.callbacks.config.is_installed", lambda name: False)
    (home / "c.toml").write_text(CONFIG.replace('"pairs.tsv"', '"missing.tsv"') + 'loggers = ["mlflow"]\n')

    assert main(["check", "c.toml"]) == 2

    assert "log.loggers[0] is mlflow, which is not installed" in capsys.readouterr().err


def test_with_overfit_the_outputs_of_validation_are_those_of_the_samples_that_were_trained_on(home):
    (home / "val.tsv").write_text("source\ttarget\nfive five\tfive five\n")

    train(home, train__overfit=2)

    trained, judged = ({(row["sample"], row["target"]) for row in read(home, split)} for split in ("train", "val"))
    assert judged == trained
    assert "five five" not in {target for _, target in judged}


def test_with_overfit_translations_are_compared_with_the_texts_that_were_trained_on(home, monkeypatch):
    compared, update = [], CorpusScore.update

    def recorded(self, hypotheses, references):
        compared.extend(references)
        update(self, hypotheses, references)

    monkeypatch.setattr(CorpusScore, "update", recorded)

    train(home, train__overfit=2)

    assert compared
    assert set(compared) <= {row["target"] for row in read(home, "train")}
