"""A line in, a line out: of white space, too long, or no text at all; and the scores that the written files give."""

import json
import math
from pathlib import Path

import pytest
import sacrebleu

import etude
from etude.__main__ import main
from etude.base.errors import DataError

CONFIG = """
[task]
type = "translation"
beam_size = 2
[data]
train = "train.jsonl"
val = "train.jsonl"
test = "test.jsonl"
[tokenizer]
type = "word"
[model]
d_model = 16
positions = "learned"
max_positions = 16
heads = 2
encoder_layers = 1
decoder_layers = 1
feedforward = 32
dropout = 0.0
[optimizer]
learning_rate = 1e-2
[train]
max_duration = "40 steps"
batch_size = 4
eval_every = "40 steps"
device = "cpu"
precision = "float32"
[log]
progress = false
tensorboard = false
"""
PAIRS = [
    ("alpha", "well- known words are here today"),
    ("bravo", "two small dogs play in the park"),
    ("charlie", "the old man reads a good book"),
    ("delta", "she drinks a cup of green tea"),
]
BROKEN = ["well-\nknown words are here today", "two small dogs\nplay in the park", PAIRS[2][1], "she drinks\r\ntea"]
GOOD, LONG = ["alpha", "bravo delta", "delta"], "alpha " * 40
BLANK = ["", " ", "   ", "\t", "\u00a0", "\u3000", "\u2028", "\u2003\u00a0"]


def write_pairs(path, pairs):
    path.write_text("".join(json.dumps({"source": a, "target": b}) + "\n" for a, b in pairs))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("lines")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        write_pairs(place / "train.jsonl", PAIRS)
        write_pairs(place / "test.jsonl", zip([a for a, _ in PAIRS], BROKEN, strict=True))
        Path("toy.toml").write_text(CONFIG)
        etude.train("toy.toml")
    return place


@pytest.fixture(autouse=True)
def inside(place, monkeypatch):
    monkeypatch.chdir(place)


@pytest.fixture
def predicted(capsys):
    """The lines that the shell writes for a file of them, what it says, and its code."""

    def predicted(content, *flags):
        Path("lines.txt").write_bytes(content if isinstance(content, bytes) else content.encode())
        code = main(["predict", "runs/toy", "lines.txt", *flags])
        captured = capsys.readouterr()
        return captured.out.split("\n")[:-1], captured.err, code

    return predicted


def test_white_space_of_any_kind_gives_an_empty_line(predicted):
    lines, _, code = predicted("\n".join(["alpha", *BLANK, "delta"]) + "\n")

    assert code == 0
    assert lines[1:-1] == [""] * len(BLANK)
    assert all((lines[0], lines[-1]))


def test_white_space_has_the_empty_translation_in_python_too():
    assert etude.Run("runs/toy").predict(BLANK) == [""] * len(BLANK)


def test_printed_scores_are_those_of_the_written_files(capsys):
    assert main(["test", "runs/toy", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    found, reference = (
        Path(f"runs/toy/outputs/{name}.txt").read_text(encoding="utf-8").split("\n")[:-1]
        for name in ("test", "test.reference")
    )

    assert len(found) == len(reference) == len(BROKEN)
    assert printed["test/bleu"] == pytest.approx(sacrebleu.corpus_bleu(found, [reference]).score)
    assert printed["test/chrf"] == pytest.approx(sacrebleu.corpus_chrf(found, [reference]).score)
    assert printed["test/bleu"] > 50


def mixed():
    """Good lines with bad ones between them."""
    return b"\n".join([b"alpha", LONG.encode(), b"bravo delta", b"no \xff text", b"", b"delta"]) + b"\n"


def test_a_bad_line_is_named_and_costs_no_other_its_answer(predicted):
    alone, _, _ = predicted("".join(f"{line}\n" for line in GOOD))

    lines, said, code = predicted(mixed())

    assert code == 3
    assert lines == [alone[0], "", alone[1], "", "", alone[2]]
    assert "lines.txt, line 2: A sequence of 42 tokens does not fit model.max_positions = 16" in said
    assert "lines.txt, line 4: invalid UTF-8 (byte 0xff at position 4)." in said
    assert said.splitlines()[-1] == "etude: 2 lines of lines.txt could not be answered."


def test_a_bad_line_holds_its_error_in_json(predicted):
    lines, _, code = predicted(mixed(), "--json")
    found = [json.loads(line) for line in lines]

    assert code == 3
    assert ["error" in one for one in found] == [False, True, False, True, False, False]
    assert found[1]["source"] == LONG
    assert found[1]["prediction"] is None
    assert "model.max_positions" in found[1]["error"]
    assert found[3]["error"] == "invalid UTF-8 (byte 0xff at position 4)"


def test_of_several_predictions_a_bad_line_has_one_that_is_empty(predicted):
    lines, _, code = predicted(mixed(), "--n-best", "2")

    assert code == 3
    assert [line for line in lines if line.startswith(("2\t", "4\t"))] == ["2\t-inf\t", "4\t-inf\t"]
    assert [line.split("\t")[0] for line in lines] == ["1", "1", "2", "3", "3", "4", "5", "6", "6"]


def test_a_file_of_answers_is_written_whole_though_a_line_is_bad(predicted):
    assert predicted(mixed(), "--output", "out.txt")[2] == 3
    assert len(Path("out.txt").read_text().splitlines()) == 6


def test_a_line_too_long_to_read_costs_no_other_its_answer(predicted, monkeypatch):
    monkeypatch.setattr("etude.app.cli.lines.LINE_BYTES", 16)
    alone, _, _ = predicted("alpha\ndelta\n")

    lines, said, code = predicted(f"alpha\n{'a' * 100}\ndelta\n")

    assert code == 3
    assert lines == [alone[0], "", alone[1]]
    assert "lines.txt, line 2: the line is longer than" in said


def test_many_bad_lines_are_counted_and_the_first_named(predicted, monkeypatch):
    monkeypatch.setattr("etude.app.cli.predict.TOLD", 3)

    lines, said, code = predicted(b"\xff\n" * 40)

    assert code == 3
    assert lines == [""] * 40
    assert len(said.splitlines()) == 4
    assert said.endswith("40 lines of lines.txt could not be answered, of which the first 3 are named above.\n")


def test_python_gets_the_others_and_a_warning():
    run = etude.Run("runs/toy")
    alone = run.predict(GOOD)

    with pytest.warns(UserWarning, match="^Text 2 has no prediction: A sequence of 42 tokens"):
        found = run.predict([GOOD[0], LONG, *GOOD[1:]])

    assert found == [alone[0], "", *alone[1:]]


def test_translations_of_the_others_come_with_a_warning_too():
    run = etude.Run("runs/toy")
    alone = list(run.translate(GOOD))

    with pytest.warns(UserWarning, match="Text 2 has no prediction: it must be a string, but is a float"):
        found = list(run.translate(iter([GOOD[0], math.nan, *GOOD[1:]])))

    # Scores to rounding: without the bad one, the same batches are of another size.
    for one, other in zip(found[:1] + found[2:], alone, strict=True):
        assert [each.text for each in one] == [each.text for each in other]
        assert [each.score for each in one] == pytest.approx([each.score for each in other], rel=1e-5)
    assert (found[1][0].text, found[1][0].score) == ("", -math.inf)


def test_a_text_that_is_asked_for_alone_raises_what_is_wrong():
    run = etude.Run("runs/toy")

    with pytest.raises(DataError, match="A sequence of 42 tokens"):
        run.predict(LONG)
    with pytest.raises(DataError, match="A sequence of 42 tokens"):
        list(run.translate(LONG))


def test_a_string_is_one_text():
    run = etude.Run("runs/toy")

    assert list(run.translate("bravo delta")) == list(run.translate(["bravo delta"]))
