"""How a run ends is a value: a finished run is found finished, whatever ended it and however it was told."""

import json
from dataclasses import replace

import pytest
from small_runs import Regression, loaders, rows, trainer

import etude
from etude.__main__ import main
from etude.app.python import trainer as face
from etude.app.results.summary import FINISHED, state
from etude.base.durations import Duration
from etude.train import fit as train_fit
from etude.train.end import End, Kind

TEXTS = (
    "enough",
    "early exit: good enough",
    "early stopping: x",
    "max_duration reached by hand",
    "paused: look at it",
    "paused at 5 steps",
    "interrupted",
    "interrupted by SIGTERM",
)


class Asking(etude.Callback):
    """Asks for a stop at a step at which no validation is due."""

    def __init__(self, text, step=4):
        self.text = text
        self.step = step

    def on_step_end(self, run, outcome):
        return etude.Stop(self.text) if run.progress.step == self.step else None


class Worse(Regression):
    """Never better than at its first validation."""

    def validation_step(self, batch):
        return etude.Loss(self.layers(batch[0]).sum() * 0 + 1.0 + self.progress.step, 1)


def fit(folder, task=Regression, **options):
    given = {"eval_every": "3 steps", **options}
    return trainer(folder, **given).fit(task(), *loaders())


ENDS = {
    "length": (lambda: {"max_duration": "4 steps"}, Kind.LENGTH),
    "patience": (lambda: {"patience": 2, "task": Worse}, Kind.PATIENCE),
    "EarlyStopping": (lambda: {"callbacks": [etude.EarlyStopping(patience=2)], "task": Worse}, Kind.ASKED),
} | {text: (lambda text=text: {"callbacks": [Asking(text)]}, Kind.ASKED) for text in TEXTS}


@pytest.mark.parametrize("name", ENDS)
def test_a_finished_run_is_found_finished_with_its_end_validated(name, tmp_path):
    options, kind = ENDS[name]
    first = fit(tmp_path, **options())
    before = (tmp_path / "metrics.jsonl").read_bytes()
    said = []

    again = fit(tmp_path, **options(), say=said.append)

    assert (tmp_path / "metrics.jsonl").read_bytes() == before
    assert (first.end.kind, again.end) == (kind, first.end)
    assert first.reason == again.reason == first.end.says
    assert again.progress == first.progress
    assert f"Nothing to do: the run is finished ({first.reason})." in said
    assert max(row["step"] for row in rows(tmp_path) if "val/loss" in row) == first.progress.step
    assert state(tmp_path) == FINISHED


@pytest.mark.parametrize("name", ["length", *TEXTS])
def test_a_longer_max_duration_continues_it_as_if_it_had_not_ended(name, tmp_path):
    options, _ = ENDS[name]
    fit(tmp_path / "cut", **options())
    fit(tmp_path / "straight", max_duration="6 steps")

    longer = fit(tmp_path / "cut", max_duration="6 steps")

    assert (longer.end.kind, longer.progress.step) == (Kind.LENGTH, 6)
    assert rows(tmp_path / "cut") == rows(tmp_path / "straight")


def test_more_patience_continues_a_run_that_lost_it(tmp_path):
    lost = fit(tmp_path, task=Worse, patience=2)

    longer = fit(tmp_path, task=Worse, patience=3)

    assert longer.progress.step > lost.progress.step
    assert longer.end.kind is Kind.PATIENCE


def test_a_pause_saves_without_a_validation_and_goes_on(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        run_job = train_fit.fit
        patch.setattr(face, "run_job", lambda job: run_job(replace(job, pause=Duration(4, "steps"))))
        paused = fit(tmp_path)
    fit(tmp_path / "straight")

    assert (paused.end, paused.progress.step) == (End(Kind.PAUSED, "paused at 4 steps"), 4)
    assert not any("val/loss" in row for row in rows(tmp_path) if row["step"] == 4)

    assert fit(tmp_path).end.kind is Kind.LENGTH
    assert rows(tmp_path) == rows(tmp_path / "straight")


@pytest.mark.parametrize("text", TEXTS)
def test_an_end_that_a_checkpoint_of_before_tells_by_its_sentence_is_read(text):
    told = {"ended": {"reason": text, "until": ["3 epochs"]}, "part stop": {"stop": text}}

    assert End.read(told) == End(Kind.ASKED, text)


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("max_duration reached: 3 epochs", Kind.LENGTH),
        ("early stopping: val/loss has not improved for 2 validations", Kind.PATIENCE),
        ("interrupted by SIGINT", Kind.INTERRUPTED),
        ("paused at 7 steps", Kind.PAUSED),
        ("enough", Kind.ASKED),
    ],
)
def test_of_those_sentences_the_runs_own_are_known_by_how_they_begin(reason, kind):
    assert End.read({"ended": {"reason": reason, "until": []}, "part stop": {"stop": None}}) == End(kind, reason)
    assert End.read({"ended": {"reason": reason, "until": []}}) == End(kind, reason)


@pytest.mark.parametrize("ended", [None, 3, {}, {"kind": "tired", "says": "x"}, {"kind": "asked"}])
def test_what_tells_of_no_end_is_none(ended):
    assert End.read({"ended": ended}) is None


@pytest.mark.parametrize("kind", Kind)
def test_an_end_is_saved_and_read_with_both_fields(kind):
    end = End(kind, "why")

    assert End.read({"ended": json.loads(json.dumps(end.state_dict()))}) == end


def test_a_finished_run_is_found_finished_from_the_shell(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pairs.tsv").write_text("source\ttarget\n" + "".join(f"a{n}\tb{n}\n" for n in range(40)))
    (tmp_path / "c.toml").write_text(
        """
[task]
type = "translation"
metrics = []
[data]
train = "pairs.tsv"
val = "pairs.tsv"
[tokenizer]
type = "byte"
[model]
d_model = 8
heads = 2
encoder_layers = 1
decoder_layers = 1
feedforward = 8
[optimizer]
learning_rate = 0.0
[train]
max_duration = "12 steps"
eval_every = "2 steps"
batch_size = 8
device = "cpu"
[log]
progress = false
tensorboard = false
[callbacks.early]
type = "etude:EarlyStopping"
patience = 2
"""
    )
    assert main(["train", "c.toml"]) == 0
    before = (tmp_path / "runs/c/metrics.jsonl").read_bytes()
    capsys.readouterr()

    assert main(["train", "c.toml"]) == 0

    assert "Nothing to do: the run is finished (early stopping: val/loss" in capsys.readouterr().err
    assert (tmp_path / "runs/c/metrics.jsonl").read_bytes() == before
    assert state(tmp_path / "runs/c") == FINISHED
    assert main(["train", "c.toml", "--train.max_duration=14 steps"]) == 0
    assert json.loads((tmp_path / "runs/c/metrics.jsonl").read_text().splitlines()[-1])["step"] > 6
