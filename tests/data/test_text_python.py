"""The corpus that is there wherever Python is."""

import sys

import pytest
from text_corpora import read

from etude.base.errors import ConfigError, DataError
from etude.data.corpora import python_sources
from etude.data.corpora.python_sources import docstrings, documents, source_files, text_corpus
from etude.data.files.text_source import open_texts


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize(("name", "least"), [("python", 8_000_000), ("python_docs", 500_000)])
def test_a_corpus_is_there_by_name_and_the_same_the_second_time(cache, monkeypatch, name, least):
    heard = []
    if name == "python_docs":  # all docstrings take some seconds to find
        monkeypatch.setattr(python_sources, "source_files", lambda library: source_files(library / "asyncio"))

    corpus = open_texts(name, cache=cache, notice=heard.append)
    again = open_texts(name, cache=cache, notice=heard.append)

    texts = [text for _, _, text in read(corpus)]
    assert sum(map(len, texts)) > least
    assert len(texts) > 90
    assert again.fingerprint() == corpus.fingerprint()
    assert heard == [f"Collecting the corpus {name} from Python's own library in {cache}/corpora/{name}."]


def test_a_corpus_that_was_changed_is_made_again(tmp_path, monkeypatch):
    monkeypatch.setattr(python_sources, "documents", lambda _: iter([("a.py", "x = 1\n")]))
    path = text_corpus("python", tmp_path)
    whole = path.read_text()
    path.write_text(whole + "more\n")

    assert text_corpus("python", tmp_path).read_text() == whole


def test_topics_come_first_then_sources_without_tests_and_tables(tmp_path, monkeypatch):
    for name in (
        "b.py",
        "a/c.py",
        "test/t.py",
        "a/tests/u.py",
        "encodings/v.py",
        "site-packages/w.py",
        "x.txt",
        "e.py",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("" if name == "e.py" else f"# {name}\n")
    monkeypatch.setattr(python_sources.sysconfig, "get_path", lambda _: str(tmp_path))

    names = [name for name, _ in documents("python")]

    assert names[-2:] == ["a/c.py", "b.py"]
    assert "assert" in names[:-2]
    assert names[:-2] == sorted(names[:-2])
    assert [path.name for path in source_files(tmp_path)] == ["c.py", "b.py", "e.py"]


def test_docstrings_stand_under_what_they_describe():
    methods = '    def m(self):\n        """A method."""\n    def n(self): ...\n'
    source = f'"""A module."""\nclass C:\n    """A class."""\n{methods}'

    assert docstrings(source) == "A module.\n\nC\n\nA class.\n\nm\n\nA method.\n"
    assert docstrings("print 'no Python 3'") == ""


def test_an_unknown_name_and_a_python_without_sources_are_told(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="There is no text corpus 'perl'; there are: python, python_docs"):
        text_corpus("perl", tmp_path)
    monkeypatch.setattr(python_sources.sysconfig, "get_path", lambda _: str(tmp_path))
    with pytest.raises(DataError, match="This Python has no sources"):
        text_corpus("python", tmp_path)


def test_another_python_collects_its_own(tmp_path, monkeypatch):
    texts = iter([[("a.py", "one")], [("a.py", "two")]])
    monkeypatch.setattr(python_sources, "documents", lambda _: iter(next(texts)))
    first = text_corpus("python", tmp_path).read_text()
    monkeypatch.setattr(sys, "version", "4.0")

    assert text_corpus("python", tmp_path).read_text() != first
