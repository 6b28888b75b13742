"""A task of the user's own, in one folder outside the package: Etude does with it what it does with any."""

import io
import json
import shutil
import sys
from pathlib import Path

import pytest

import etude
from etude.__main__ import main
from etude.tasks.config import load_config
from etude.tasks.own import task_type

CONFIG = """
[task]
type = "toy/toy.py:TOY"
[data]
train = "train.numbers"
val = "val.numbers"
test = "val.numbers"
[train]
max_duration = "20 steps"
eval_every = "5 steps"
save_every = "5 steps"
log_every = "1 step"
batch_size = 4
keep_last = 9
device = "cpu"
[optimizer]
learning_rate = 0.05
[log]
progress = false
tensorboard = false
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    shutil.copytree(Path(__file__).parent / "toy", tmp_path / "toy")
    rows = [(a, b, 2 * a - b + 1) for a in range(6) for b in range(5)]
    lines = [";".join(map(str, row)) for row in rows]
    (tmp_path / "train.numbers").write_text("\n".join(lines))
    (tmp_path / "val.numbers").write_text("\n".join(lines[::7]))
    (tmp_path / "toy.toml").write_text(CONFIG)
    return tmp_path


def shell(*words, code=0):
    assert main(list(words)) == code


def rows(run):
    kept = [json.loads(line) for line in Path(run, "metrics.jsonl").read_text().splitlines()]
    clocks = ("_seconds", "_per_second", "_memory")
    return [{k: v for k, v in row.items() if not k.startswith("time/") and not k.endswith(clocks)} for row in kept]


def weights(run):
    return Path(run, "checkpoints/last/model.safetensors").read_bytes()


def test_it_is_trained_checked_and_planned(place, capsys):
    shell("check", "toy.toml")
    said = capsys.readouterr().out
    assert "33 parameters" in said

    shell("plan", "toy.toml", "--json")
    planned = json.loads(capsys.readouterr().out)
    shell("train", "toy.toml")

    last = rows("runs/toy")[-1]
    assert (planned["steps"], planned["tokens"], planned["estimated"]) == (20, last["tokens"], [])
    assert last["val/loss"] < 0.2
    assert json.loads(Path("runs/toy/tokenizers/scale.json").read_text())["inputs"] == 2


def test_a_run_cut_anywhere_ends_in_the_same_bits(place):
    shell("train", "toy.toml")
    for steps in ("7 steps", "12 steps", "20 steps"):
        shell("train", "toy.toml", "--run.name", "cut", "--train.max_duration", steps)

    assert weights("runs/cut") == weights("runs/toy")
    kept = [row for row in rows("runs/cut") if row["step"] > 12]
    assert kept == [row for row in rows("runs/toy") if row["step"] > 12]


def test_it_is_forked(place):
    shell("train", "toy.toml")

    shell("fork", "runs/toy", "--at", "8 steps", "--optimizer.learning_rate", "0.01")

    kept = [[row for row in rows(f"runs/{name}") if "train/loss" in row] for name in ("toy", "toy-fork-8")]
    losses = [{row["step"]: row["train/loss"] for row in run} for run in kept]
    assert all(losses[0][step] == losses[1][step] for step in range(1, 9))
    assert losses[0][20] != losses[1][20]


def test_a_fork_takes_other_data_where_an_epoch_ends_alone(place, capsys):
    shell("train", "toy.toml")

    shell("fork", "runs/toy", "--at", "3 steps", "--data.separator", ",", code=7)

    assert "data.separator" in capsys.readouterr().err


def test_it_is_tested_validated_predicted_and_exported(place, capsys, monkeypatch):
    shell("train", "toy.toml")
    capsys.readouterr()

    shell("validate", "runs/toy", "--allow-code", "--json")
    best = min(row["val/loss"] for row in rows("runs/toy") if "val/loss" in row)
    assert json.loads(capsys.readouterr().out)["val/loss"] == pytest.approx(best)
    shell("test", "runs/toy", "--allow-code")
    assert len(Path("runs/toy/outputs/test.txt").read_text().splitlines()) == 5
    assert Path("runs/toy/outputs/test.reference.txt").read_text().split()[0] == "1.0"
    capsys.readouterr()

    for name in ("train.numbers", "val.numbers"):
        Path(name).unlink()  # predicting needs no data
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"3;2\n1;1\n")))
    shell("predict", "runs/toy", "--allow-code", "--json", "--task.decimals", "1")
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [answer["row"] for answer in answers] == ["3;2", "1;1"]
    assert answers[0]["prediction"] == pytest.approx(5, abs=2.5)
    assert float(etude.Run("runs/toy").predict(["3;2"])[0]) == pytest.approx(answers[0]["prediction"], abs=0.06)

    shell("export", "runs/toy", "out", "--allow-code")
    assert json.loads(Path("out/numbers.json").read_text())["scale"]["inputs"] == 2


def test_its_keys_are_checked_and_shown_like_those_of_any_task(place, capsys):
    shell("check", "toy.toml", "--model.widht", "3", code=2)
    assert "did you mean model.width?" in capsys.readouterr().err
    shell("show", "toy.toml")
    assert "separator" in capsys.readouterr().out
    (place / "val.numbers").write_text("1;2;3\n1;two;3\n")
    shell("train", "toy.toml", code=3)
    assert "val.numbers, line 2 must hold numbers" in capsys.readouterr().err


def test_flags_of_other_tasks_are_refused(place, capsys):
    shell("train", "toy.toml")

    shell("predict", "runs/toy", "--allow-code", "--n-best", "2", code=2)
    assert "--n-best is for translations" in capsys.readouterr().err
    shell("predict", "runs/toy", "--allow-code", "--prompt", "x", code=2)
    assert "--prompt is for a language model" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["predict", "test", "validate", "export"])
@pytest.mark.parametrize("how", ["itself", "extended"])
def test_code_of_a_foreign_run_is_not_imported_unless_allowed(verb, how, place, capsys):
    run = place / "runs" / "foreign"
    run.mkdir(parents=True)
    spy = place / "spy.py"
    spy.write_text("import pathlib\npathlib.Path(__file__).with_name('imported').touch()\n" + "class TOY: pass\n")
    task = f'[task]\ntype = "{spy}:TOY"\n'
    (place / "base.toml").write_text(task)
    own = task if how == "itself" else 'extends = "../../base.toml"\n'
    (run / "config.toml").write_text(own)

    shell(verb, str(run), *(["out"] if verb == "export" else []), code=7)

    assert "--allow-code" in capsys.readouterr().err
    assert not (place / "imported").exists()


OWN = """
import etude

class Answer:
    def answers(self, questions, asked):
        for window in questions.lines():
            yield "".join(f"{line}!\\n" for line in window)
    def best(self, texts):
        return (f"{text}!" for text in texts)
    def tested(self, outputs):
        return None

class Mine(etude.Task):
    task_type = "language_model"

    def __init__(self, model):
        super().__init__()
        self.model = model

    def training_step(self, batch):
        return self.model(batch.inputs).float().square().mean()

    def predictor(self):
        return Answer()

    def export(self, folder):
        (folder / "mine.txt").write_text("mine")
        return "a text."

class Lost(Mine):
    task_type = "nowhere"
"""
TEXT = """
[data]
train = "text.txt"
val = "text.txt"
[tokenizer]
type = "byte"
[model]
type = "lstm"
d_model = 8
layers = 1
[train]
max_duration = "2 steps"
device = "cpu"
[log]
progress = false
tensorboard = false
"""


@pytest.fixture
def own(place):
    (place / "own.py").write_text(OWN)
    (place / "text.txt").write_text("some text that goes on and on. " * 40)
    (place / "own.toml").write_text('[task]\ntype = "own.py:Mine"\n' + TEXT)
    return place


def test_a_class_of_a_task_may_say_its_data_its_predictor_and_its_export(own, capsys, monkeypatch):
    shell("train", "own.toml")
    capsys.readouterr()

    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a\nb\n")))
    shell("predict", "runs/own", "--allow-code")
    assert capsys.readouterr().out == "a!\nb!\n"
    assert etude.Run("runs/own").predict(["x"]) == ["x!"]
    shell("test", "runs/own", "--allow-code", "--data.test", "text.txt")
    shell("export", "runs/own", "out", "--allow-code")
    assert Path("out/mine.txt").read_text() == "mine"


def test_a_class_that_names_no_task_of_the_table_is_told_so(own, capsys):
    shell("check", "own.toml", "--task.type", "own.py:Lost", code=2)

    assert "which must be one of translation, language_model, hf" in capsys.readouterr().err


def test_the_type_of_a_task_is_found_from_its_config_alone(own):
    assert type(task_type(load_config("toy.toml").config)).__name__ == "Toy"
    assert task_type(load_config("own.toml").config).config.__name__ == "TextRun"
