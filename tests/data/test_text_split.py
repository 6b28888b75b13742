"""Train, val and test of a corpus: functions of its text, every character in exactly one."""

import json

import pytest
from text_corpora import BYTES

from etude.base.errors import DataError
from etude.data.files import text_files, text_split
from etude.data.files.text_source import open_texts
from etude.data.files.text_split import SplitRule
from etude.data.store.text_prepared import prepare_texts


@pytest.fixture
def parts_of(tmp_path):
    """What each part of some documents holds: its documents' texts."""

    def make(texts, rule, name="t.jsonl"):
        path = tmp_path / name
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        return parts(path, rule)

    def parts(path, rule):
        tables = prepare_texts(open_texts(path), BYTES, tmp_path / "cache", rule).parts
        return {name: [BYTES.decode(table.ids(n)) for n in range(len(table))] for name, table in tables.items()}

    make.of_file = parts
    return make


TEXTS = [f"document {n} " * (1 + n % 7) for n in range(300)]


def test_without_a_rule_there_is_one_part(parts_of):
    assert parts_of(TEXTS, None) == {"all": TEXTS}


def test_documents_are_divided_whole_by_the_shares_each_into_one_part(parts_of):
    parts = parts_of(TEXTS, SplitRule((0.8, 0.15, 0.05)))

    assert [len(parts[name]) for name in ("train", "val", "test")] == [240, 45, 15]
    assert sorted(text for part in parts.values() for text in part) == sorted(TEXTS)
    assert parts["train"] == [text for text in TEXTS if text in set(parts["train"])]


def test_the_default_is_by_document_where_each_part_gets_one_and_else_by_position(parts_of):
    many = parts_of(TEXTS, SplitRule(), "many.jsonl")
    few = parts_of(TEXTS[:99], SplitRule(), "few.jsonl")

    assert {name: len(part) for name, part in many.items()} == {"train": 294, "val": 3, "test": 3}
    text = "".join(TEXTS[:99])
    assert {name: "".join(part) for name, part in few.items()} == {
        "train": text[: int(0.9 * len(text))],
        "val": text[int(0.9 * len(text)) :],
    }


def test_where_a_document_goes_depends_on_nothing_but_its_text(parts_of):
    whole = parts_of(TEXTS, SplitRule((0.5, 0.5)), "whole.jsonl")
    backwards = parts_of(TEXTS[::-1], SplitRule((0.5, 0.5)), "backwards.jsonl")

    assert backwards == {name: part[::-1] for name, part in whole.items()}


def test_equal_documents_stay_together(parts_of):
    parts = parts_of(TEXTS * 2, SplitRule((0.9, 0.1)))

    assert set(parts["train"]).isdisjoint(parts["val"])


def test_beyond_a_number_of_documents_the_hash_itself_is_compared(parts_of, monkeypatch):
    counted = parts_of(TEXTS, SplitRule((0.7, 0.3)), "counted.jsonl")
    monkeypatch.setattr(text_split, "RANKED", 50)
    compared = parts_of([*TEXTS[::-1], "another"], SplitRule((0.7, 0.3)), "compared.jsonl")

    assert 60 < len(compared["val"]) < 120
    # Both take the lowest hashes.
    assert set(compared["val"]) <= {*counted["val"], "another"} or set(counted["val"]) <= set(compared["val"])


@pytest.mark.parametrize("block", [3, 1000])
def test_by_position_the_first_characters_are_for_training_wherever_they_stand(parts_of, tmp_path, monkeypatch, block):
    monkeypatch.setattr(text_files, "BLOCK_BYTES", block)
    path = tmp_path / "t.txt"
    text = "é日a🎉" * 25
    path.write_text(text)

    parts = parts_of.of_file(path, SplitRule((0.7, 0.2, 0.1), "position"))

    assert parts == {"train": [text[:70]], "val": [text[70:90]], "test": [text[90:]]}


def test_a_document_across_a_border_is_cut_there(parts_of):
    parts = parts_of(["abcd", "efgh", "ijkl"], SplitRule((0.5, 0.5), "position"))

    assert parts == {"train": ["abcd", "ef"], "val": ["gh", "ijkl"]}


def test_a_border_between_documents_cuts_none(parts_of):
    parts = parts_of(["abcd", "efgh"], SplitRule((0.5, 0.5), "position"))

    assert parts == {"train": ["abcd"], "val": ["efgh"]}


def test_too_few_documents_to_divide_are_told(parts_of):
    with pytest.raises(DataError, match=r"holds 2 documents, which are too few for 3 parts: set data\.split_by"):
        parts_of(["a", "b"], SplitRule((0.8, 0.1, 0.1), "document"))


def test_a_part_without_a_document_is_told(parts_of):
    with pytest.raises(DataError, match="has no document for val"):
        parts_of(["same"] * 10, SplitRule((0.5, 0.5), "document"))


def test_tiny_shakespeare_is_divided_as_nanogpt_does(parts_of, tiny_shakespeare):
    text = tiny_shakespeare.read_text()

    parts = parts_of.of_file(tiny_shakespeare, SplitRule((0.9, 0.1)))

    # nanoGPT, data/shakespeare_char/prepare.py: 1,003,854 and 111,540 characters.
    assert parts == {"train": [text[:1_003_854]], "val": [text[1_003_854:]]}
    assert len(parts["val"][0]) == 111_540
