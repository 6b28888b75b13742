"""Numbers as people write them: read on the command line, and told in TOML's spelling in a file."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.base.config.command import value_of
from etude.base.config.loading import load
from etude.base.config.numbers import misspelled, toml_spelling
from etude.base.config.section import Section
from etude.base.errors import ConfigError


class Train(Section):
    rate: float = 0.0
    name: str = ""
    rates: tuple[float, ...] = ()


class Root(Section):
    train: Train = Train()


WRITTEN = [".001", "1.e-3", "1E-4", "+.5", "-.5", "5.", "001e-6", "1_0.e-4", "00.5", "1e+3", "0.1", "12", "-3"]


@pytest.mark.parametrize("text", WRITTEN)
def test_a_number_of_the_command_line_is_what_a_person_means(text):
    wanted = float(text.replace("_", ""))

    assert value_of(text) == wanted
    assert load(Root, None, ["--train.rate", text]).config.train.rate == wanted
    assert load(Root, None, [f"--train.rates=[{text}, 1.0]"]).config.train.rates == (wanted, 1.0)
    assert value_of(f'{{ a = {text}, b = "{text}" }}') == {"a": wanted, "b": text}


@given(
    st.from_regex(r"[+-]?([0-9]{1,6}\.?[0-9]{0,6}|\.[0-9]{1,6})([eE][+-]?[0-9]{1,2})?", fullmatch=True).filter(
        lambda text: "." in text or "e" in text.lower()
    )
)
def test_whatever_a_person_writes_is_read_as_python_reads_it(text):
    assert value_of(text) == float(text)
    assert tomllib.loads(f"value = {toml_spelling(text)}")["value"] == float(text)


@pytest.mark.parametrize("text", [".", "..5", "1.2.3", "0.1.", "e5", "1e", ".e3", "1,5", "v1.5", "007", "1 .5"])
def test_what_is_no_number_stays_a_word(text):
    assert value_of(text) == text


def test_a_name_that_looks_like_a_number_stays_as_it_was_written():
    assert load(Root, None, ["--train.name", "1.e-3"]).config.train.name == "1.e-3"


def test_what_stands_in_quotes_or_a_comment_is_left_alone():
    assert toml_spelling("""{ a = ".5", b = '1.', c = .5 } # .7""") == """{ a = ".5", b = '1.', c = 0.5 } # .7"""
    assert misspelled('name = ".5"  # .7') is None


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("rate = .001", ".001 is written 0.001 there"),
        ("rate = 1.e-3  # small", "1.e-3 is written 1.0e-3 there"),
        ("rates = [0.5, 001e-6]", "001e-6 is written 1e-6 there"),
        ("rate = 1e", "expected newline"),
    ],
)
def test_a_file_that_toml_does_not_read_is_told_the_right_spelling(line, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.toml").write_text(f"[train]\n{line}\n")

    with pytest.raises(ConfigError, match=r"^run\.toml is not valid TOML: .* \(run\.toml, line 2\)\.$") as refused:
        load(Root, tmp_path / "run.toml")

    assert said in str(refused.value)
