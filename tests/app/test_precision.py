"""What a validation, a test and a prediction compute in: what they ask for, else float32 on a CPU; and it is said."""

import io
import sys

import pytest
import torch
from python_face import Line, fit, line, trainer
from texts_of_runs import CONFIG, LSTM, folder
from torch import nn

import etude
from etude.__main__ import main
from etude.train.step.precision import Precision

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def reference(task, dtype=None):
    """The mean squared error and the outputs of a hand-written loop, under torch's autocast or without."""
    inputs, targets = line().tensors
    with torch.no_grad(), torch.autocast("cpu", dtype=dtype or torch.bfloat16, enabled=dtype is not None):
        outputs = task.net(inputs)
    return float((outputs - targets).square().mean()), outputs


@pytest.mark.parametrize(
    ("options", "dtype", "said"),
    [
        ({"precision": "bfloat16"}, torch.bfloat16, "bfloat16 on cpu"),
        ({"precision": "float32"}, None, "float32 on cpu"),
        ({"precision": "auto"}, None, "float32 on cpu"),
    ],
)
def test_a_trainer_evaluates_in_the_precision_that_it_was_told_and_says_so(options, dtype, said):
    told = []
    made, task = trainer(say=told.append, **options), Line()

    losses = [made.validate(task, line())["val/loss"], made.test(task, line())["test/loss"]]
    outputs = torch.cat(made.predict(task, line()))

    loss, wanted = reference(task, dtype)
    assert losses == pytest.approx([loss, loss], rel=1e-6)
    assert outputs.dtype is wanted.dtype
    torch.testing.assert_close(outputs, wanted, rtol=1e-5, atol=1e-6)
    assert told == [f"Validating in {said}.", f"Testing in {said}.", f"Predicting in {said}."]
    assert reference(task, torch.bfloat16)[0] != pytest.approx(reference(task)[0], rel=1e-6)


def test_a_run_of_bfloat16_on_a_cpu_is_judged_in_float32_and_says_so():
    told = []
    made, task = trainer(say=told.append, precision="bfloat16", learning_rate=1e-3), Line()

    result = made.fit(task, line(), line(), line())
    tested = made.test(weights="last")

    assert result.metrics["val/loss"] == pytest.approx(reference(task)[0], rel=1e-6)
    assert told.count("Training computes in bfloat16 on cpu, validation in float32.") == 1
    assert tested["test/loss"] == pytest.approx(reference(task, torch.bfloat16)[0], rel=1e-6)
    assert told[-1] == f"Testing with the last weights (step {result.progress.step}), in bfloat16 on cpu."


def test_a_run_that_computes_alike_says_once_what_in():
    told = []

    fit(line(), line(), say=told.append)
    fit(line(), None, say=told.append, precision="bfloat16")

    said = [sentence for sentence in told if "computes in" in sentence]
    assert said == ["Training computes in float32 on cpu.", "Training computes in bfloat16 on cpu."]


@pytest.mark.parametrize(
    ("device", "trained", "asked", "name"),
    [
        (CPU, "bfloat16", "auto", "float32"),
        (CPU, "float32", "bfloat16", "bfloat16"),
        (CPU, "bfloat16", "float32", "float32"),
        (GPU, "bfloat16", "auto", "bfloat16"),
        (GPU, "float32", "auto", "float32"),
        (GPU, "bfloat16", "float32", "float32"),
    ],
)
def test_the_default_is_float32_on_a_cpu_and_that_of_training_on_an_accelerator(device, trained, asked, name):
    assert Precision(trained, device).for_evaluation(asked).name == name


def lstm_is_computed_in(dtype):
    """Whether this processor has an LSTM in so narrow a format: without AVX-512, oneDNN has none."""
    try:
        with torch.no_grad(), torch.autocast("cpu", dtype=dtype):
            nn.LSTM(2, 2)(torch.zeros(1, 1, 2))
    except RuntimeError:
        return False
    return True


NARROW_LSTM = lstm_is_computed_in(torch.bfloat16)
RUNS = [
    "runs/lm",
    pytest.param("runs/lstm", marks=pytest.mark.skipif(not NARROW_LSTM, reason="no LSTM in bfloat16 here")),
    "runs/mt",
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Runs that were trained in bfloat16: two language models, and a translation that is searched when tested."""
    place = tmp_path_factory.mktemp("precision")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        folder(place / "texts")
        (place / "lm.toml").write_text(CONFIG)
        trained = {"train.precision": "bfloat16", "optimizer.learning_rate": 0.01, "log.tensorboard": False}
        etude.train("lm.toml", trained)
        if NARROW_LSTM:
            etude.train("lm.toml", {**LSTM, **trained, "run.name": "lstm"})
        pairs = "".join(f"{word} {word}s\t{word}s {word}\n" for word in ("one", "two", "three", "four"))
        (place / "pairs.tsv").write_text("source\ttarget\n" + 8 * pairs)
        (place / "mt.toml").write_text(
            '[task]\ntype = "translation"\nbeam_size = 2\nmetrics = ["bleu"]\n'
            '[data]\ntrain = "pairs.tsv"\nval = "pairs.tsv"\n'
            "[model]\nd_model = 16\nheads = 2\nencoder_layers = 1\ndecoder_layers = 1\nfeedforward = 32\n"
            '[tokenizer]\ntype = "word"\n[train]\nmax_duration = "4 steps"\nbatch_size = 8\ndevice = "cpu"\n'
        )
        etude.train("mt.toml", trained)
    return place


@pytest.mark.parametrize("run", RUNS)
def test_the_shell_tests_and_validates_in_what_its_flags_ask_for(run, place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    found = {}

    for flags in ((), ("--train.precision", "float32"), ("--train.precision", "bfloat16")):
        name = flags[-1] if flags else "float32"
        assert main(["validate", run, "--json", *flags]) == 0
        written = capsys.readouterr()
        assert f"computed in {name} on cpu:" in written.err
        found[flags] = written.out

    plain, alike, asked = found.values()
    assert plain == alike
    assert plain != asked
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert etude.Run(run).validate()["val/loss"] == pytest.approx(
            etude.Run(run, overrides={"train.precision": "bfloat16"}).validate()["val/loss"], rel=1e-6
        )


@pytest.mark.parametrize("run", RUNS)
def test_the_shell_predicts_in_what_its_flags_ask_for(run, place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    lines = b"one ones\ntwo\nthe red dog ran over the old house on the new hill\n"
    said = {}

    for precision in ("float32", "bfloat16"):
        monkeypatch.setattr(
            sys,
            "stdin",
            io.TextIOWrapper(io.BytesIO(lines)),
        )
        assert main(["predict", run, "--json", "--train.precision", precision]) == 0
        said[precision] = capsys.readouterr()

    assert said["float32"].err == ""
    assert said["bfloat16"].err == "Computed in bfloat16 on cpu.\n"
    assert said["float32"].out != said["bfloat16"].out
    assert not torch.is_autocast_enabled("cpu")


def test_what_is_computed_between_two_predictions_is_not_in_their_precision(place, monkeypatch):
    monkeypatch.chdir(place)
    found = etude.Run("runs/mt", overrides={"train.precision": "bfloat16"}).translate(iter(["one ones", "two"]))

    next(found)

    assert nn.functional.linear(torch.ones(1, 2), torch.ones(1, 2)).dtype is torch.float32
    assert len(list(found)) == 1
