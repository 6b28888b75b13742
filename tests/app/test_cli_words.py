"""The shell before any verb runs: start-up, help, words, flags, and how an error ends."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.__main__ import main
from etude.app.cli import main as shell
from etude.app.cli.parsing import parse, split
from etude.app.cli.verbs import BY_NAME, LATER, VERBS
from etude.base import errors

HEAVY = ("torch", "pydantic", "rich", "numpy", "tokenizers", "tensorboard")


class Raising:
    """A verb that raises."""

    def __init__(self, error):
        self.error = error

    def run(self, arguments, overrides):
        raise self.error


@pytest.fixture
def ended_by(monkeypatch, capsys):
    """Let a verb raise; give the exit code, and what stood on stdout and stderr."""

    def ended_by(error, *words):
        monkeypatch.setattr(shell, "choose", lambda _: Raising(error))
        monkeypatch.setattr(shell, "parse", lambda _, __: (None, []))
        code = main(["verb", *words])
        return code, *capsys.readouterr()

    return ended_by


def test_help_imports_nothing_heavy():
    start = "import sys; from etude.__main__ import main; main(['--help']); "
    look = f"print([name for name in {HEAVY} if name in sys.modules])"

    done = subprocess.run([sys.executable, "-c", start + look], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[-1] == "[]"


def test_a_translation_imports_no_other_task(tmp_path):
    """A run starts in little more than the time of `import torch`."""
    (tmp_path / "pairs.tsv").write_text("source\ttarget\n" + "one two\tuno dos\n" * 8)
    (tmp_path / "first.toml").write_text(
        '[task]\ntype = "translation"\n[data]\ntrain = "pairs.tsv"\n[tokenizer]\ntype = "word"\n'
        "[model]\nd_model = 8\nheads = 2\nencoder_layers = 1\ndecoder_layers = 1\nfeedforward = 8\n"
        '[train]\nmax_duration = "1 step"\nbatch_size = 8\nmonitor = "train/loss"\n'
    )
    start = "import sys; from etude.__main__ import main; code = main(['train', 'first.toml']); "
    look = "print(code, sorted({name.split('.')[2] for name in sys.modules if name.startswith('etude.tasks.') "
    look += "and name.endswith('.type')}))"

    done = subprocess.run(
        [sys.executable, "-c", start + look], capture_output=True, text=True, check=True, cwd=tmp_path
    )

    assert done.stdout.splitlines()[-1] == "0 ['translation']"


def test_what_a_verb_imports_is_no_longer_searched_for_garbage():
    start = "import gc; from etude.__main__ import main; main(['runs', 'nowhere']); "

    done = subprocess.run(
        [sys.executable, "-c", start + "print(gc.isenabled(), gc.get_freeze_count() > 10_000)"],
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.splitlines()[-1] == "True True"


def test_closed_streams_are_no_error():
    close = "import os, sys; [os.close(number) for number in range(3)]; "
    start = "os.execv(sys.executable, [sys.executable, '-m', 'etude', '--help'])"

    done = subprocess.run([sys.executable, "-c", close + start], check=False)

    assert done.returncode == 0


def test_the_shell_works_without_home_and_in_the_c_locale():
    words = [sys.executable, "-m", "etude", "runs", "nirgends-\udcff"]

    done = subprocess.run(words, env={"LC_ALL": "C", "PATH": os.environ["PATH"]}, capture_output=True, check=False)

    assert done.returncode == 5
    assert done.stderr == b"etude: nirgends-\\udcff is not a folder; etude runs DIR lists the runs in DIR.\n"


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_the_help_of_every_verb_shows_its_example(verb, capsys):
    code = main([verb.name, "--help"])

    assert code == 0
    assert verb.example in capsys.readouterr().out


def test_the_help_names_every_verb(capsys):
    code = main(["--help"])

    shown = capsys.readouterr().out
    assert code == 0
    assert all(f"\n  {verb.name} " in shown for verb in VERBS)


def test_no_verb_is_a_usage_error_that_shows_the_help(capsys):
    code = main([])

    assert code == 2
    assert "usage:" in capsys.readouterr().err


def test_the_version_is_told(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("etude ")


MISTAKES = {
    "trian a.toml": '"trian" is not a verb of etude; did you mean train?',
    "--jsn train": "--jsn is not a flag of etude itself; the verb comes first, as in etude train CONFIG.",
    "frobnicate": '"frobnicate" is not a verb of etude; etude --help lists them.',
    "predict r --frobnicate": "--frobnicate is not a flag of etude predict; etude predict --help lists them.",
    "predict r --jsno": "--jsno is not a flag of etude predict; did you mean --json?",
    "predict r --beamsize=3": "--beamsize is not a flag of etude predict; did you mean --beam-size?",
    "train a.toml b.toml": '"b.toml" is one word too many for etude train; etude train --help shows how.',
    "train": "etude train: the following arguments are required: CONFIG; etude train --help shows how.",
    "train --train.clip_grad 1": "etude train: the following arguments are required: CONFIG; "
    "etude train --help shows how.",
    "predict r --n-best x": "etude predict: argument --n-best: invalid int value: 'x'; etude predict --help shows how.",
    "runs --run.name x": "etude runs takes no config values, but got --run.name.",
}


@pytest.mark.parametrize("words", MISTAKES)
def test_a_wrong_word_is_one_line_that_names_the_nearest(words, capsys):
    code = main(words.split())

    assert (code, capsys.readouterr().err) == (2, f"etude: {MISTAKES[words]}\n")


@pytest.mark.parametrize("word", LATER)
def test_a_word_of_the_design_that_is_not_there_yet_is_told_of_in_one_line(word, capsys):
    code = main([word, "x"])

    assert code == 2
    assert (
        capsys.readouterr().err
        == f'etude: "etude {word}" is planned, but not in this version; etude --help lists the verbs.\n'
    )


def test_overrides_and_flags_may_stand_in_any_order():
    plain, overrides = split(
        ["--a.b", "1 epoch", "c.toml", "--d.e=-1", "--json", "--callbacks", "net.py:C", "--f.g", "--h.i", "2"]
    )

    assert plain == ["c.toml", "--json"]
    assert overrides == ["--a.b", "1 epoch", "--d.e=-1", "--callbacks", "net.py:C", "--f.g", "--h.i", "2"]


def test_a_flag_may_stand_between_the_words_of_a_verb():
    arguments, _ = parse(BY_NAME["predict"], ["runs/a", "--json", "lines.txt"])

    assert (arguments.run, arguments.file, arguments.json) == ("runs/a", "lines.txt", True)


def test_behind_two_dashes_nothing_is_an_override():
    assert split(["a", "--", "--b.c", "d"]) == (["a", "--", "--b.c", "d"], [])


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.EtudeError, 1),
        (errors.ConfigError, 2),
        (errors.DataError, 3),
        (errors.DivergedError, 4),
        (errors.StorageError, 5),
        (errors.DistributedError, 6),
        (errors.RefusedError, 7),
    ],
)
def test_every_kind_of_error_ends_with_its_own_code(kind, code, ended_by):
    assert ended_by(kind("It is so.")) == (code, "", "etude: It is so.\n")


def test_many_problems_are_six_lines_with_the_rest_counted(ended_by):
    _, _, told = ended_by(errors.ConfigError([f"Problem {n}." for n in range(9)]))

    assert told.splitlines() == [*(f"etude: Problem {n}." for n in range(5)), "etude: and 4 more problems."]


def test_six_problems_are_all_told(ended_by):
    _, _, told = ended_by(errors.ConfigError([f"Problem {n}." for n in range(6)]))

    assert told.splitlines() == [f"etude: Problem {n}." for n in range(6)]


def test_control_characters_in_an_error_are_escaped(ended_by):
    _, _, told = ended_by(errors.DataError("Not \x1b[31mred\x07."))

    assert told == "etude: Not \\x1b[31mred\\x07.\n"


def test_what_nobody_foresaw_is_one_line_without_a_traceback(ended_by):
    code, out, told = ended_by(ZeroDivisionError("division\nby zero"))

    assert (code, out, told) == (1, "", "etude: ZeroDivisionError: division by zero (--debug shows the traceback)\n")


def test_debug_shows_the_traceback(ended_by):
    _, _, told = ended_by(errors.DataError("It is so."), "--debug")

    assert "Traceback" in told
    assert told.endswith("etude: It is so.\n")


def test_ctrl_c_before_training_ends_with_130(ended_by):
    assert ended_by(KeyboardInterrupt())[0] == 130


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGTERM, 143), (signal.SIGUSR1, 75)])
def test_a_signal_unwinds_what_is_going_on_and_is_told_by_its_code(number, expected, monkeypatch, capsys):
    left = []

    class Waiting:
        def run(self, arguments, overrides):
            try:
                os.kill(os.getpid(), number)
                time.sleep(5)
            finally:
                left.append("tidy")

    monkeypatch.setattr(shell, "choose", lambda _: Waiting())
    monkeypatch.setattr(shell, "parse", lambda _, __: (None, []))

    code = main(["verb"])

    assert (code, left, capsys.readouterr().err) == (expected, ["tidy"], f"etude: ended by {number.name}.\n")


def test_a_full_disk_behind_stdout_is_a_storage_error(monkeypatch, capsys):
    with Path("/dev/full").open("w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)

        code = main(["--help"])

    assert code == 5
    assert capsys.readouterr().err == "etude: Standard output cannot be written: No space left on device.\n"


def test_a_run_that_was_interrupted_and_saved_keeps_its_code(ended_by):
    assert ended_by(SystemExit(143))[0] == 143


def test_a_reader_that_has_gone_is_a_quiet_end(monkeypatch, capfd):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)

        code = main(["--help"])

    assert code == 141
    assert capfd.readouterr().err == ""


@given(
    st.sampled_from(VERBS),
    st.lists(st.text(max_size=6) | st.sampled_from(["--a.b", "--json", "--n-best", "=", "--", "-"])),
)
def test_any_words_are_parsed_or_refused_with_a_sentence(verb, words):
    if any(word in {"-h", "--help"} for word in words):
        return
    with suppress(errors.ConfigError):
        parse(verb, words)
