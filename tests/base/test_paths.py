"""A path that begins with `~` is below the home folder, wherever a user writes one."""

from pathlib import Path

import pytest

from etude.app.cli.parsing import parse
from etude.app.cli.verbs import BY_NAME, VERBS
from etude.base.config.loading import load
from etude.base.errors import DataError
from etude.base.paths import user_path
from etude.data.files.parallel import open_pairs
from etude.data.files.text_source import open_texts
from etude.data.tokens.tokenizers import load_tokenizer
from etude.tasks.config import load_config

PLACES = {"CONFIG", "SECOND", "RUN", "FILE", "DIR", "A", "B"}
"""What the help of a verb calls a file or folder."""


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home folder, and a current one beside it."""
    for name in ("home", "here"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "home"


def test_the_home_folder_is_meant_at_the_beginning_alone(home):
    assert user_path("~") == home
    assert user_path(Path("~/runs/a")) == home / "runs/a"
    assert user_path("./~/a") == Path("~/a")
    assert user_path("runs/~") == Path("runs/~")
    assert user_path("~nobody-of-this-name/a") == Path("~nobody-of-this-name/a")


def paths():
    """The positions and flags of every verb that name a path."""
    for verb in VERBS:
        for number, argument in enumerate(verb.arguments):
            if argument.options.get("metavar") in PLACES:
                yield pytest.param(verb.name, number, id=f"{verb.name} {argument.names[0]}")


@pytest.mark.parametrize(("verb", "number"), [*paths()])
def test_every_path_of_the_command_line_may_begin_with_it(verb, number, home):
    arguments = BY_NAME[verb].arguments
    name = arguments[number].options.get("dest", arguments[number].names[0].lstrip("-").replace("-", "_"))
    words = ["--at", "1 step"] if verb == "fork" else []
    words += ["--from", "slangmod"] if verb == "convert" else []
    for argument in arguments:
        needed = not argument.names[0].startswith("-") and argument.options.get("nargs") != "?"
        if argument is arguments[number]:
            flag = argument.names[0]
            words += [f"{flag}=~/a"] if flag.startswith("-") else ["~/a"]
        elif needed:
            words.append(argument.options.get("choices", ["other"])[0])

    found, _ = parse(BY_NAME[verb], words)

    assert getattr(found, name) in (str(home / "a"), [str(home / "a")])


def test_a_config_its_keys_and_what_it_extends_may_begin_with_it(home):
    (home / "base.toml").write_text('[task]\ntype = "translation"\n[run]\ndir = "~/runs"\n')
    (home / "run.toml").write_text(
        'extends = "~/base.toml"\n[data]\ntrain = ["~/a.tsv", "b.tsv"]\n'
        'val = { source = "~/v.en", target = "~/v.de" }\n[[callbacks]]\ntype = "~/own.py:Own"\n'
    )
    (home / "own.py").write_text("class Own:\n    def on_fit_end(self, run, reason): ...\n")

    config = load_config("~/run.toml", ["--data.test=~/c.tsv", "--log.tensorboard", "false"]).config

    assert config.folder == home / "runs" / "run"
    assert [*config.data.train] == [home / "a.tsv", home / "b.tsv"]
    assert config.data.val.source == home / "v.en"
    assert config.data.test == home / "c.tsv"
    assert config.callbacks[0].type == f"{home}/own.py:Own"


def test_a_config_that_is_not_there_is_named_in_full(home):
    from etude.tasks.config import Config

    with pytest.raises(Exception, match=rf"{home}/gone.toml does not exist"):
        load(Config, "~/gone.toml")


def test_data_and_tokenizers_opened_from_python_may_begin_with_it(home):
    (home / "pairs.tsv").write_text("source\ttarget\na b\tc d\n")
    (home / "text.txt").write_text("a b\n")

    assert len(open_pairs([Path("~/pairs.tsv")])) == 1
    assert [file.path for file in open_texts(Path("~/text.txt")).files] == [home / "text.txt"]
    with pytest.raises(DataError, match=str(home)):
        load_tokenizer("~/tokenizer.json")
