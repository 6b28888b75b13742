import contextlib
import os
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from etude.base.config.command import parse, value_of
from etude.base.config.loading import load
from etude.base.config.reading import read
from etude.base.errors import ConfigError

GARBAGE = st.text(st.sampled_from(list("[]{}=.,\"'\\#\n\r\t -+_:azAZ019\x00é")), max_size=60)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "x.toml is empty: a config needs at least one section, such as [train]."),
        (b"# nothing\n", "x.toml is empty: a config needs at least one section, such as [train]."),
        (b"[run]\nname = '\xff'\n", "x.toml must be UTF-8 text, but holds the byte 0xff (x.toml, line 2)."),
        (b"[run]\nname = \n", "x.toml is not valid TOML: invalid value (x.toml, line 2)."),
        (b"a = 1\na = 2\n", "x.toml is not valid TOML: cannot overwrite a value (x.toml, line 2)."),
        (b"a = " + b"[" * 5000, "x.toml nests its values too deeply to be read."),
        (b"a." * 100 + b"b = 1", "x.toml nests its values more than 64 levels deep."),
    ],
)
def test_a_file_that_is_no_config_gets_one_sentence(content, sentence, tmp_path, monkeypatch, root):
    monkeypatch.chdir(tmp_path)
    Path("x.toml").write_bytes(content)

    with pytest.raises(ConfigError) as caught:
        load(root, "x.toml")

    assert caught.value.problems == (sentence,)


def test_a_file_that_cannot_be_opened_gets_one_sentence(tmp_path, monkeypatch, root):
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()

    for name, end in [("none.toml", "does not exist"), ("folder", "is a folder"), ("a\0b", "cannot be read")]:
        with pytest.raises(ConfigError, match=end):
            load(root, name)


def test_an_endless_file_and_one_that_would_wait_are_refused(tmp_path):
    os.mkfifo(tmp_path / "fifo.toml")

    with pytest.raises(ConfigError, match="must be a regular file, but is a device"):
        read(Path("/dev/zero"))
    with pytest.raises(ConfigError, match="must be a regular file, but is a FIFO"):
        read(tmp_path / "fifo.toml")


def test_a_key_of_very_many_parts_takes_no_memory(tmp_path):
    path = tmp_path / "x.toml"
    for text in (".".join(["a"] * 60_000) + " = 1", "[" + ".".join(['"a"'] * 60_000) + "]", "a = {" + "b." * 60_000):
        path.write_text(text)
        tracemalloc.start()

        with pytest.raises(ConfigError, match="nests its values more than 64 levels deep"):
            read(path)

        assert tracemalloc.get_traced_memory()[1] < 50e6
        tracemalloc.stop()


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60) | GARBAGE.map(str.encode))
@example(b"a = " + b"9" * 5000)
@example(b"\xef\xbb\xbfa = 1")
@example(b"a = [[1, {b = 2}],\r\n 3]\r\n")
def test_any_bytes_are_a_config_or_a_config_error(tmp_path_factory, root, content):
    path = tmp_path_factory.getbasetemp() / "fuzz.toml"
    path.write_bytes(content)

    with pytest.raises(ConfigError):
        load(root, path)


@settings(max_examples=200, deadline=None)
@given(st.lists(GARBAGE | st.sampled_from(["--run.name", "--train.limit", "--a.b=", "--", "--x"]), max_size=4))
def test_any_arguments_are_overrides_or_a_config_error(root, arguments):
    with contextlib.suppress(ConfigError):
        load(root, None, arguments)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("1e-3", 1e-3),
        ("true", True),
        ("none", "none"),
        ("16 epochs", "16 epochs"),
        ('"5"', "5"),
        ("[1, 'a']", [1, "a"]),
        ("{ a = 1 }", {"a": 1}),
        ("5#b", "5#b"),
        ("a\nb = 1", "a\nb = 1"),
        ("1\nb = 1", "1\nb = 1"),
        ("2024-01-01", "2024-01-01"),
        ("", ""),
        ("-1.5", -1.5),
    ],
)
def test_a_value_is_toml_or_a_bare_word(text, value):
    assert value_of(text) == value


def test_flags_come_in_two_spellings():
    found = parse(["--a.b", "1", "--a.c=x=y", "--a.d", "-1"])

    assert [(override.key, override.value) for override in found] == [
        (("a", "b"), 1),
        (("a", "c"), "x=y"),
        (("a", "d"), -1),
    ]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--a.b"], "--a.b needs a value after it, as in --a.b VALUE (on the command line)."),
        (["--a.b", "--c.d", "1"], "--a.b needs a value after it, as in --a.b VALUE (on the command line)."),
        (["a.b", "1"], '"a.b" is not expected here: an override is written --section.key VALUE.'),
        (["--", "1"], "-- must name a key, as in --train.clip_grad 1.0 (on the command line)."),
        (["--a", "[1"], "--a must be valid TOML or a bare word, but is [1 (--a on the command line)."),
        (["--a", "\udcff"], "--a must be valid UTF-8 (--a on the command line)."),
    ],
)
def test_a_wrong_flag_gets_one_sentence(arguments, sentence):
    with pytest.raises(ConfigError) as caught:
        parse(arguments)

    assert caught.value.problems[0] == sentence


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("patience = off", "off is written false there"),
        ("patience = None  # never", "None is written false there"),
        ("compile = Yes", "Yes is written true there"),
        ("type = transformer", 'transformer is written "transformer" there'),
        ('a."b c" = data/train.tsv', 'data/train.tsv is written "data/train.tsv" there'),
    ],
)
def test_a_bare_word_is_answered_with_how_toml_writes_it(line, said, tmp_path):
    (tmp_path / "c.toml").write_text(f"[train]\n{line}\n")

    with pytest.raises(ConfigError) as error:
        read(tmp_path / "c.toml")

    assert f"c.toml is not valid TOML: {said}" in str(error.value)
