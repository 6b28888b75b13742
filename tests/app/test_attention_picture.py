"""The picture of `etude predict --attention`, and `Run.attention`."""

import io
import os
import sys
import threading
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

import etude
from etude.__main__ import main
from etude.base.errors import ConfigError, DataError

CONFIG = """
[task]
type = "translation"
beam_size = 2
metrics = []

[data]
train = "train.tsv"
val = "train.tsv"

[tokenizer]
type = "word"

[model]
d_model = 8
heads = 2
encoder_layers = 1
decoder_layers = 2
feedforward = 8

[train]
max_duration = "4 steps"
batch_size = 8
device = "cpu"

[log]
progress = false
tensorboard = false
"""
OWN = CONFIG.replace(
    "[model]\nd_model = 8\nheads = 2\nencoder_layers = 1\ndecoder_layers = 2\nfeedforward = 8",
    '[model]\ntype = "own_model.py:Own"',
)
MODEL = """
from torch import nn

class Own(nn.Module):
    def __init__(self, source_vocabulary, target_vocabulary):
        super().__init__()
        self.table = nn.Embedding(target_vocabulary, target_vocabulary)

    def forward(self, source, decoder_input):
        return self.table(decoder_input)

    def encode(self, source):
        return source

    def start(self, memory, width=1):
        return Rows()

    def step(self, tokens, cache):
        return self.table(tokens), cache

class Rows:
    def reorder(self, rows):
        pass

    def keep(self, sentences):
        pass
"""
LABELS = """
[task]
type = "classification"

[data]
train = "labels.tsv"
val = "labels.tsv"

[tokenizer]
type = "char"
"""
WORDS = ("one", "two", "three", "four")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a run of a transformer, and one of a model without attention."""
    folder = tmp_path_factory.mktemp("attention")
    rows = "".join(f"{a} {b}\t{b} {a}\n" for a in WORDS for b in WORDS)
    (folder / "train.tsv").write_text(f"source\ttarget\n{rows}")
    (folder / "tiny.toml").write_text(CONFIG)
    (folder / "own.toml").write_text(OWN)
    (folder / "own_model.py").write_text(MODEL)
    before = Path.cwd()
    os.chdir(folder)
    try:
        assert main(["train", "tiny.toml"]) == main(["train", "own.toml"]) == 0
        yield folder
    finally:
        os.chdir(before)


@pytest.fixture
def predict(place, monkeypatch, capsys):
    """Predict lines with flags: exit code, what was printed and what was said."""

    def run(content, *words, run="runs/tiny"):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        capsys.readouterr()
        code = main(["predict", run, *words])
        said = capsys.readouterr()
        return code, said.out, said.err

    yield run
    for left in place.glob("*.svg"):
        left.unlink()


def labels(text):
    """The labels of each layer of a picture."""
    found = [node.text for node in ET.fromstring(text).iter("{http://www.w3.org/2000/svg}text")]  # noqa: S314 - our own
    starts = [place for place, one in enumerate(found) if one.startswith("layer ")]
    return [found[a + 1 : b] for a, b in zip(starts, [*starts[1:], None], strict=True)]


def test_the_first_line_is_drawn_and_every_line_is_answered_as_ever(place, predict):
    plain = predict(b"one two\nthree\n")[1]

    code, out, said = predict(b"one two\nthree\n", "--attention", "one.svg")

    assert (code, out) == (0, plain)
    assert "Written: one.svg" in said
    translation = plain.splitlines()[0].split()
    layers = labels((place / "one.svg").read_text())
    assert [[one.lstrip("▁") for one in layer] for layer in layers] == [
        ["one", "two", "<eos>", *translation, "<eos>"]
    ] * 2


def test_a_run_from_python_gives_what_the_shell_draws(place, predict):
    predict(b"one two\n", "--attention", "one.svg")

    found = etude.Run("runs/tiny").attention("one two")

    assert found.svg() == (place / "one.svg").read_text()
    assert found.weights.shape == (2, 2, len(found.target), 3)


def test_options_are_those_of_predict():
    run = etude.Run("runs/tiny")

    found = run.attention("one two", beam_size=1)

    assert [one.strip() for one in found.target] == [*run.predict("one two", beam_size=1)[0].split(), "<eos>"]
    with pytest.raises(ConfigError, match="beam_sise is not an option of predict; did you mean beam_size"):
        run.attention("one two", beam_sise=1)


@pytest.fixture(autouse=True)
def _in_place(place):
    """Every test runs in the folder."""


def test_a_blank_line_and_one_that_is_no_text_are_passed_over(place, predict):
    code, out, said = predict(b"\nno\xff\n  \nthree\n", "--attention", "one.svg")

    assert code == 3
    assert out.count("\n") == 4
    assert "line 2: invalid UTF-8" in said
    assert labels((place / "one.svg").read_text())[0][:2] == ["▁three", "<eos>"]


@pytest.mark.parametrize("content", [b"", b"\n \n"])
def test_where_no_line_has_a_translation_there_is_no_picture_and_that_is_said(content, place, predict):
    code, out, said = predict(content, "--attention", "one.svg")

    assert code == 3
    assert out == "\n" * content.count(b"\n")
    assert "--attention one.svg is not written: no line has a translation." in said
    assert not (place / "one.svg").exists()


def test_a_blank_text_from_python_is_refused():
    with pytest.raises(DataError, match="The text is blank"):
        etude.Run("runs/tiny").attention(" ")


@pytest.mark.parametrize("words", [["--json"], ["--n-best", "2"], ["--output", "out.txt"], ["--batch-size", "1"]])
def test_the_picture_does_not_depend_on_how_the_answers_are_written(words, place, predict):
    predict(b"one two\nthree four\n", "--attention", "one.svg")
    expected = (place / "one.svg").read_bytes()

    code, _, _ = predict(b"one two\n", "--attention", "two.svg", *words)

    assert code == 0
    assert (place / "two.svg").read_bytes() == expected


@pytest.mark.parametrize(
    ("name", "code", "told"),
    [
        ("one.png", 2, "--attention draws SVG, so it must end in .svg, but is one.png"),
        ("nowhere/one.svg", 5, "nowhere is not a folder"),
    ],
)
def test_a_file_that_could_not_be_the_picture_is_refused_before_anything_is_computed(name, code, told, predict):
    found = predict(b"one\n", "--attention", name)

    assert found[:2] == (code, "")
    assert told in found[2]


def test_a_model_without_attention_is_told_of_in_one_sentence_and_no_answer_is_given(place, predict):
    words = ["--attention", "one.svg", "--output", "out.txt", "--allow-code"]
    (place / "out.txt").unlink(missing_ok=True)

    code, _, said = predict(b"one two\n", *words, run="runs/own")

    assert code == 2
    assert "Own does not tell how it attends to the source" in said
    assert not list(place.glob("out.txt")) + list(place.glob("one.svg"))


def test_a_run_of_another_task_is_told_of(place, predict):
    rows = "".join(f"{word}\t{'odd' if number % 2 else 'even'}\n" for number, word in enumerate(WORDS * 4))
    (place / "labels.tsv").write_text(f"text\tlabel\n{rows}")
    (place / "labels.toml").write_text(LABELS + CONFIG[CONFIG.index("[train]") :])
    assert main(["train", "labels.toml"]) == 0

    code, out, said = predict(b"one\n", "--attention", "one.svg", run="runs/labels")

    assert (code, out) == (2, "")
    assert "--attention is for translations, but this run's task is classification." in said
    with pytest.raises(ConfigError, match="no attention to a source"):
        etude.Run("runs/labels").attention("one")


def test_a_link_stays_and_what_it_leads_to_is_written_whole(place, predict):
    (place / "real.svg").write_text("old")
    (place / "link.svg").symlink_to("real.svg")

    assert predict(b"one\n", "--attention", "link.svg")[0] == 0
    assert (place / "link.svg").is_symlink()
    assert labels((place / "real.svg").read_text())


def test_a_fifo_is_written_to(place, predict):
    fifo = place / "picture"
    os.mkfifo(fifo)
    read = []
    reader = threading.Thread(target=lambda: read.append(fifo.read_text()), daemon=True)
    reader.start()

    code, _, _ = predict(b"one\n", "--attention", "picture")

    reader.join(30)
    assert code == 0
    assert labels(read[0])
