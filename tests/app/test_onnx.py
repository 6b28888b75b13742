"""Exported graphs: a fresh session of onnxruntime gives what torch gives, for batches and lengths of any size."""

import json
import os
import shlex
import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from speech_corpora import spoken, write_place

import etude
from etude.__main__ import main
from etude.app.export import export
from etude.base.errors import ConfigError
from etude.data.tokens.tokenizers import load_tokenizer
from etude.tasks.classification.onnx import Outputs
from etude.tasks.onnx_form import Drawing, Given, write_onnx
from etude.tasks.speech_recognition.onnx import Logs, drawing_of

SHORT = "--train.max_duration '2 steps' --train.device cpu --log.progress false --log.tensorboard false"
TEXT = """
[task]
type = "classification"
[data]
train = "train.tsv"
val = "train.tsv"
[tokenizer]
type = "char"
[model]
type = "embedding"
d_model = 8
"""
TABLE = """
[task]
type = "classification"
[data]
type = "tabular"
train = "rows.csv"
val = "rows.csv"
inputs = ["size", "colour"]
targets = ["price"]
[model]
hidden = [8]
"""
SOUND = """
[task]
type = "classification"
[data]
type = "audio"
train = "sounds.csv"
val = "sounds.csv"
label = "speaker"
features = { mel_bins = 20, deltas = 1 }
[model]
type = "cnn"
d_model = 8
layers = 1
subsample = "stack"
pooling = "attention"
"""
PAIRS = """
[task]
type = "translation"
[data]
train = "pairs.tsv"
val = "pairs.tsv"
[tokenizer]
type = "char"
[model]
d_model = 8
heads = 2
encoder_layers = 1
decoder_layers = 1
feedforward = 8
"""
QUICK = {
    "ctc": "small.toml --model.bidirectional false --model.subsampling 1 --model.d_model 8",
    "table": "table.toml",
}
CONFORMER = "--model.type conformer --model.d_model 8 --model.layers 1 --model.heads 2 --model.feedforward 8"
SLOW = {
    "blstm": "small.toml",
    "conformer": f"small.toml {CONFORMER}",
    "causal": f"small.toml {CONFORMER} --model.causal true --model.chunk 4",
    "transducer": "small.toml --loss.type transducer --model.transducer.d_model 8",
    "sound": "sound.toml",
    "text": "text.toml",
    "text, lstm": "text.toml --model.type lstm --model.layers 1",
    "text, encoder": "text.toml --model.type encoder --model.heads 2 --model.layers 1 --model.positions rotary",
}
"""Each takes 5 to 10 seconds of the exporter's."""
RUNS = {**QUICK, **SLOW}


def shell(*words, code=0):
    assert main(list(words)) == code


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with data and configs."""
    folder = tmp_path_factory.mktemp("onnx")
    before = Path.cwd()
    os.chdir(folder)
    write_place(folder)
    Path("sounds.csv").write_text(Path("train.csv").read_text())
    Path("pairs.tsv").write_text("source\ttarget\n" + "a b\tb a\n" * 8)
    Path("train.tsv").write_text("text\tlabel\n" + "a bc\tyes\nbb c\tno\n" * 8)
    Path("rows.csv").write_text("size,colour,price\n" + "1.5,red,10\n,green,12\n2.5,red,15\n" * 6)
    for name, config in (("text", TEXT), ("table", TABLE), ("sound", SOUND), ("pairs", PAIRS)):
        Path(f"{name}.toml").write_text(config)
    os.chdir(before)
    return folder


@pytest.fixture(autouse=True)
def inside(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    capsys.readouterr()


def exported(name):
    """A run of its kind and the folder of its graph, made when they are first asked for."""
    folder = Path("out", name)
    if not folder.exists():
        shell("train", *shlex.split(RUNS[name]), "--run.name", name, *shlex.split(SHORT))
        shell("export", f"runs/{name}", str(folder), "--format", "onnx")
    return folder


def session(name):
    return onnxruntime.InferenceSession(exported(name) / "model.onnx", providers=["CPUExecutionProvider"])


def facts(name):
    return json.loads((exported(name) / "model.json").read_text())


def network(name):
    """What a graph is of, in torch."""
    task = etude.Run(f"runs/{name}").load(device="cpu")
    if hasattr(task, "goal"):
        return Outputs(task.model, task.goal)
    heads = task.model.heads
    return Logs(task.model, heads["ctc"]) if "ctc" in heads else task.model


def padded(lengths, width):
    draw = torch.Generator().manual_seed(len(lengths))
    features = torch.randn(len(lengths), max(lengths), width, generator=draw)
    return features, torch.tensor(lengths)


def texts(*rows):
    return (torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True),)


def rows(*numbers):
    return torch.tensor(numbers)[:, None], torch.arange(len(numbers))[:, None] % 3


FRAMES = [padded([1], 20), padded([17, 30, 2], 20), padded([200, 0], 20)]
WORDS = [texts([4]), texts([5, 6, 7, 4], [4], [6, 5]), texts([4, 5] * 100)]
BATCHES = {
    **dict.fromkeys(("ctc", "blstm", "conformer", "causal", "transducer"), FRAMES),
    **dict.fromkeys(("text", "text, lstm", "text, encoder"), WORDS),
    "sound": [padded([1], 40), padded([7, 40, 3, 1], 40)],
    "table": [rows(0.5), rows(torch.nan, 1.0, -2.0, 0.0)],
}
"""Of sizes that neither the exporter nor its check has seen."""


@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(name, marks=pytest.mark.acceptance) for name in SLOW)])
def test_a_graph_gives_what_torch_gives_for_batches_of_any_size(name):
    graph, model, told = session(name), network(name), facts(name)

    for batch in BATCHES[name]:
        inputs = dict(zip(told["inputs"], (part.numpy() for part in batch), strict=True))
        found = graph.run(list(told["outputs"]), inputs)

        with torch.no_grad():
            expected = model(*batch)
        for one, other in zip(found, expected if isinstance(expected, tuple) else (expected,), strict=True):
            np.testing.assert_allclose(one, other.numpy(), rtol=1e-4, atol=1e-5)
    assert told["difference"] < told["tolerance"] == 1e-4


def test_a_sequence_gives_in_a_batch_what_it_gives_alone():
    graph = session("ctc")
    features, _ = padded([40, 15], 20)

    both, lengths = graph.run(None, {"features": features.numpy(), "lengths": np.array([40, 15])})
    alone, _ = graph.run(None, {"features": features[1:, :15].numpy(), "lengths": np.array([15])})

    assert lengths.tolist() == [40, 15]
    np.testing.assert_allclose(both[1:, :15], alone, rtol=0, atol=1e-5)


def test_what_lies_beside_a_graph_says_how_to_use_it():
    ctc, table = facts("ctc"), facts("table")

    assert sorted(path.name for path in Path("out/ctc").iterdir()) == ["model.json", "model.onnx", "tokenizers"]
    assert (ctc["rate"], ctc["blank"], ctc["features"]["mel_bins"], ctc["seconds_a_frame"]) == (8000, 0, 20, 0.01)
    assert ctc["inputs"]["features"]["shape"] == ["batch", "length", 20]
    assert list(ctc["outputs"]) == ["log_probabilities", "frame_lengths"]
    assert sorted(ctc["tokens"][4:]) == [" ", "a", "b", "c"]
    assert load_tokenizer(Path("out/ctc/tokenizers/shared.json")).size == len(ctc["tokens"])
    assert table["targets"]["means"] == [pytest.approx(37 / 3)]
    assert [column["name"] for column in table["columns"]["numbers"]] == ["size"]


def test_a_graph_reads_a_recording_as_the_run_does():
    graph = session("ctc")
    run = etude.Run("runs/ctc").load(device="cpu")
    features, (frames,) = run.front_end.made([torch.from_numpy(spoken("ab c", seed=9))])
    inputs = {"features": features[None].numpy(), "lengths": np.array([frames])}
    logs, _ = graph.run(None, inputs)
    best = logs[0].argmax(-1)

    labels = [one for one, before in zip(best, [0, *best], strict=False) if one not in (0, before)]
    ((found,),) = run.predict([spoken("ab c", seed=9)])
    assert tuple(labels) == found.tokens


def test_without_ctc_the_encoder_alone_is_drawn():
    shell("train", "small.toml", "--run.name", "other", "--loss.type", "transducer", *shlex.split(SHORT))
    task = etude.Run("runs/other").load(device="cpu")
    shutil.rmtree("runs/other")

    drawing = drawing_of(task)

    assert (drawing.network, list(drawing.outputs)) == (task.model, ["frames", "frame_lengths"])


# -- what is refused -------------------------------------------------------------------------------------------------


class Deciding(torch.nn.Module):
    """Does one thing or another, as its input says."""

    def forward(self, numbers):
        return numbers if numbers.sum() > 0 else -numbers


def test_what_torch_cannot_export_is_said_in_a_sentence(tmp_path, capsys):
    drawing = Drawing(Deciding(), [Given("numbers", "numbers", ("batch", 3))], {"out": ""}, {})

    with pytest.raises(ConfigError, match="This model cannot be written as ONNX: torch's exporter does not take it"):
        write_onnx(drawing, None, tmp_path)

    assert "".join(capsys.readouterr()) == ""


KEYS = {
    'model.type = "gru" has no ONNX form': "text.toml --model.type gru",
    "model.windows has no ONNX form": "sound.toml --model.windows.frames 20 --model.windows.shift 10",
    "task.type = 'translation' has no ONNX form": "pairs.toml",
}


@pytest.mark.parametrize("told", KEYS)
def test_what_has_no_graph_of_any_size_is_refused_and_leaves_nothing(told, capsys):
    shell("train", *shlex.split(KEYS[told]), "--run.name", "other", *shlex.split(SHORT))
    capsys.readouterr()

    shell("export", "runs/other", "out/other", "--format", "onnx", code=ConfigError.exit_code)

    shutil.rmtree("runs/other")
    out, err = capsys.readouterr()
    assert (out, len(err.splitlines())) == ("", 1)
    assert told in err
    assert not Path("out/other").exists()


def test_a_graph_that_differs_from_torch_is_refused(monkeypatch, tmp_path):
    drawing = Drawing(torch.nn.Tanh(), [Given("numbers", "numbers", ("batch", 3))], {"out": ""}, {})
    monkeypatch.setattr("etude.tasks.onnx_form.TOLERANCE", -1.0)

    with pytest.raises(ConfigError, match="gives out that differ from torch's by up to"):
        write_onnx(drawing, None, tmp_path)


def test_without_the_libraries_their_extra_is_named(monkeypatch, capsys):
    exported("table")
    monkeypatch.setattr("etude.tasks.onnx_form.find_spec", lambda name: None if name == "onnxruntime" else name)

    shell("export", "runs/table", "out/other", "--format", "onnx", code=ConfigError.exit_code)

    assert "onnxruntime, which is not installed: run pip install 'etude[onnx]'" in capsys.readouterr().err


def test_a_form_that_there_is_not_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="--format must be auto or onnx, but is onyx"):
        export("runs/table", tmp_path / "out", form="onyx")
