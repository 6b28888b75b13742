"""The generated corpus of numbers in words, each with its language."""

import pytest

from etude.base.errors import ConfigError
from etude.data.corpora import LABELLED, generate, languages
from etude.data.corpora.languages import LANGUAGES, labelled_numbers

pytest.importorskip("num2words")


def test_it_is_the_same_for_a_seed_and_another_for_another():
    first = list(labelled_numbers("train", 1, 40))

    assert list(labelled_numbers("train", 1, 60))[:40] == first
    assert list(labelled_numbers("train", 2, 40)) != first
    assert len({text for text, _ in first}) == 40


def test_no_text_of_val_or_test_stands_in_train():
    train = {text for text, _ in labelled_numbers("train", 1, 1500)}

    for split in ("val", "test"):
        rows = list(labelled_numbers(split, 1, 200))
        assert {label for _, label in rows} == set(LANGUAGES)
        assert not train & {text for text, _ in rows}


def test_it_is_written_as_a_table_of_text_and_label(tmp_path):
    paths = generate(*LABELLED, tmp_path, sizes={"train": 3, "val": 2, "test": 2})

    lines = paths["train"].read_text(encoding="utf-8").splitlines()
    assert lines[0] == "text\tlabel"
    assert [tuple(line.split("\t")) for line in lines[1:]] == list(labelled_numbers("train", 1, 3))


def test_more_than_there_is_is_a_sentence(monkeypatch):
    monkeypatch.setattr(languages, "_row", lambda _split, _chance: ("one", "english"))
    monkeypatch.setattr(languages, "_PATIENCE", 10)

    with pytest.raises(ConfigError, match="has no 2 different rows for val"):
        list(labelled_numbers("val", 1, 2))
