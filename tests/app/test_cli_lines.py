"""Lines as they come: in order, at once, and with the place of what is no text."""

import io
import os
import queue
import subprocess
import sys
import threading
from argparse import Namespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.app.cli.lines import LARGEST, Lines
from etude.app.cli.predict import Input, asked_by, write_out
from etude.base.errors import ConfigError
from etude.tasks.best_lines import BestLines
from etude.tasks.language_model.predictor import Completions
from etude.tasks.language_model.task import Completion, Scored
from etude.tasks.task_type import Asked, Predictor
from etude.tasks.translation.task import Translation


class Echo:
    """Predicts each line itself, and turned around."""

    def predict(self, lines, **_):
        return iter([[Translation(text, -1.0, -2.0), Translation(text[::-1], -3.0, -4.0)] for text in lines])


def asked(out, *, json=False, **flags):
    """What a command line with these flags asks for."""
    return asked_by(Namespace(json=json, batch_size=4), flags, out)


def answered(content, *, out=None, json=False, **flags):
    out = out or io.StringIO()
    answers = BestLines(Echo()).answers(Input(io.BytesIO(content), "input"), asked(out, json=json, **flags))
    write_out(answers, out)
    return out.getvalue()


@given(st.lists(st.text(st.characters(exclude_characters="\r\n\ufeff", codec="utf-8")), max_size=80))
def test_every_line_is_answered_once_and_in_order(lines):
    content = "".join(f"{line}\n" for line in lines)

    assert answered(content.encode()) == content


def test_ends_of_lines_may_be_of_either_kind_and_the_last_may_be_missing():
    assert answered(b"\xef\xbb\xbfa\r\n\nb") == "a\n\nb\n"


def test_an_answer_comes_before_the_input_ends():
    reader, writer = os.pipe()
    answers = queue.Queue()

    class Out(io.StringIO):
        def write(self, text):
            answers.put(text)
            return len(text)

    out = Out()
    with os.fdopen(reader, "rb") as stream:
        parts = BestLines(Echo()).answers(Input(stream, "input"), Asked())
        thread = threading.Thread(target=write_out, args=(parts, out))
        thread.start()
        for text in (b"one\n", b"two\n"):
            os.write(writer, text)

            assert answers.get(timeout=30) == text.decode()
        os.close(writer)
        thread.join(5)


def test_windows_grow_while_lines_are_plenty_and_hold_all_of_them():
    sizes = [len(window) for window in Lines(io.BytesIO(b"x\n" * 5000), "input").windows()]

    assert sum(sizes) == 5000
    assert max(sizes) <= LARGEST


def test_a_line_that_is_no_text_is_told_of_and_the_others_are_answered():
    out = io.StringIO()
    questions = Input(io.BytesIO(b"good\nno\xff\ntoo\n"), "input")

    write_out(BestLines(Echo()).answers(questions, Asked()), out)

    assert out.getvalue() == "good\n\ntoo\n"
    assert questions.code() == 3


class Choosy(Echo):
    """Has no answer to some texts, and one to several together only where it has one to each."""

    def __init__(self, error=RuntimeError):
        self.error = error

    def predict(self, lines, **_):
        for text in lines:
            if "bad" in text:
                raise self.error(f"cannot say {text}")
            yield from super().predict([text])


@given(st.lists(st.sampled_from(["good", "bad", "too"]), max_size=60))
def test_whichever_lines_have_no_answer_the_others_get_theirs(lines):
    lines = [f"{line} {number}" for number, line in enumerate(lines)]
    questions = Input(io.BytesIO("".join(f"{line}\n" for line in ["good", *lines]).encode()), "input")

    found = list(BestLines(Choosy()).answers(questions, Asked()))

    assert found == ["good\n", *("\n" if "bad" in line else f"{line}\n" for line in lines)]


def test_what_no_line_survives_is_an_error_of_the_code():
    questions = Input(io.BytesIO(b"bad\nbad\n"), "input")

    with pytest.raises(ZeroDivisionError, match="cannot say bad"):
        list(BestLines(Choosy(ZeroDivisionError)).answers(questions, Asked()))


def test_a_config_that_cannot_predict_is_no_fault_of_a_line():
    questions = Input(io.BytesIO(b"good\nbad\n"), "input")

    with pytest.raises(ConfigError, match="cannot say bad"):
        list(BestLines(Choosy(ConfigError)).answers(questions, Asked()))


class Plain(Predictor):
    """A predictor of a user's own, which knows nothing of flaws."""

    def answers(self, questions, asked):
        return (f"{line}!\n" for window in questions.lines() for line in window)


def test_a_predictor_of_ones_own_gets_an_empty_line_and_the_shell_says_why(capsys):
    questions = Input(io.BytesIO(b"good\nno\xff\n"), "input")

    assert list(Plain().answers(questions, Asked())) == ["good!\n", "!\n"]
    assert capsys.readouterr().err == "etude: input, line 2: invalid UTF-8 (byte 0xff at position 3).\n"
    assert questions.code() == 3


def test_json_gives_source_prediction_score_and_as_many_predictions_as_asked():
    one = answered("a\u00e9\n".encode(), json=True, n_best=2)

    assert one == (
        '{"source": "a\u00e9", "prediction": "a\u00e9", "score": -1.0, '
        '"predictions": [{"text": "a\u00e9", "score": -1.0}, {"text": "\u00e9a", "score": -3.0}]}\n'
    )


def test_several_plain_predictions_stand_under_the_number_of_their_line():
    assert answered(b"ab\ncd\n", n_best=2) == (
        "1\t-1.000000\tab\n1\t-3.000000\tba\n2\t-1.000000\tcd\n2\t-3.000000\tdc\n"
    )


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_control_characters_are_escaped_for_a_terminal_alone():
    here, there = Terminal(), io.StringIO()
    for out in (here, there):
        answered(b"a\x1b[31m\n", out=out)

    assert here.getvalue() == "a\\x1b[31m\n"
    assert there.getvalue() == "a\x1b[31m\n"


class Red:
    """Completes and scores whatever it is given."""

    config = Namespace(samples=2)

    def predict(self, window, **_):
        return ([Completion("\x1b[31m", -1.0, 1, "eos")] * 2 for _ in window)

    def score(self, window):
        return (Scored(-1.0, [("", -1.0)], 8) for _ in window)


@pytest.mark.parametrize("options", [{}, {"raw": True}, {"score": True}])
def test_completions_and_scores_are_escaped_for_a_terminal_too(options):
    here, there = Terminal(), io.StringIO()
    for out in (here, there):
        given = asked(out, prompt=["\x1b[31m"], **options)
        write_out(Completions(Red()).answers(Input(io.BytesIO(), "input"), given), out)

    assert here.getvalue() == there.getvalue().replace("\x1b", "\\x1b")
    assert "\x1b[31m" in there.getvalue()


def test_a_process_ends_quietly_while_it_still_waits_for_lines():
    code = (
        "import sys\n"
        "from etude.app.cli.predict import _standard_input\n"
        "from etude.app.cli.lines import Lines\n"
        "print(next(Lines(_standard_input(), 'input').windows()))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdin.write(b"one\n")
        process.stdin.flush()

        code = process.wait(30)

        assert (code, process.stdout.read(), process.stderr.read()) == (0, b"['one']\n", b"")
