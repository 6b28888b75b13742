"""Prepared pairs are the pairs of the source, tokenised once, whole or not at all."""

import json
import os
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.base.errors import DataError
from etude.data.files.names import AlignedFiles
from etude.data.files.parallel import SIDES, BadSampleError, ListedPairs, open_pairs
from etude.data.files.skipped import Policy, write_skipped
from etude.data.store.fitting import fit_tokenizers
from etude.data.store.pairs import prepare_pairs
from etude.data.store.table import Table
from etude.data.tokens.config import BpeConfig, ByteConfig, CharConfig, FileConfig, TokenizerPair, WordConfig
from etude.data.tokens.training import train_tokenizer

BYTES = dict.fromkeys(SIDES, train_tokenizer(ByteConfig(), []))
LEAVE_OUT = Policy(on_bad_sample="skip", max_skipped="100%")


def written(folder, count=300, name="pairs.tsv"):
    path = folder / name
    path.write_text("source\ttarget\n" + "".join(f"number {n}\tZahl é {n * n}\n" for n in range(count)))
    return path


def texts_of(table, side, rows):
    ids, lengths = table.gather(side, np.asarray(rows, dtype=np.int64))
    return [BYTES[side].decode(part) for part in np.split(ids, np.cumsum(lengths)[:-1])]


def content_of(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_a_table_holds_every_pair_in_order(tmp_path):
    source = open_pairs(written(tmp_path))

    table = prepare_pairs(source, BYTES, tmp_path / "cache")

    assert len(table) == len(source) == table.samples
    assert table.skipped == 0
    for place, side in enumerate(SIDES):
        expected = [pair[place] for pair in source.rows(0, len(source))]
        assert texts_of(table, side, range(300)) == expected
        assert table.lengths(side).tolist() == [len(text.encode()) for text in expected]
        assert table.total(side) == sum(table.lengths(side))


@given(rows=st.lists(st.integers(0, 299), max_size=40))
def test_rows_are_gathered_in_any_order(rows, shared_table):
    ids, lengths = shared_table.gather("target", np.array(rows, dtype=np.int64))

    assert ids.dtype == lengths.dtype == np.int64
    assert ids.tolist() == [i for n in rows for i in BYTES["target"].encode(f"Zahl é {n * n}")]
    assert lengths.tolist() == [len(f"Zahl é {n * n}".encode()) for n in rows]


@pytest.fixture(scope="module")
def shared_table(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shared")
    return prepare_pairs(open_pairs(written(folder)), BYTES, folder / "cache")


def test_a_second_call_opens_what_the_first_has_made(tmp_path, monkeypatch):
    source = open_pairs(written(tmp_path))
    first = prepare_pairs(source, BYTES, tmp_path / "cache")
    monkeypatch.setattr("etude.data.store.pairs.encoded", None)

    again = prepare_pairs(open_pairs(written(tmp_path, name="renamed.tsv")), BYTES, tmp_path / "cache")

    assert again.folder == first.folder
    assert sorted(path.suffix for path in first.folder.parent.iterdir()) == ["", ".lock"]


def test_what_decides_the_ids_decides_the_table(tmp_path):
    source = open_pairs(written(tmp_path))
    chars = fit_tokenizers(CharConfig(), source, tmp_path / "cache")
    tables = [
        prepare_pairs(source, BYTES, tmp_path / "cache"),
        prepare_pairs(source, chars, tmp_path / "cache"),
        prepare_pairs(source, BYTES | {"target": chars["target"]}, tmp_path / "cache"),
        prepare_pairs(source, BYTES, tmp_path / "cache", Policy(max_length=50)),
        prepare_pairs(open_pairs(written(tmp_path, count=301)), BYTES, tmp_path / "cache"),
    ]

    assert len({table.fingerprint for table in tables}) == len({table.folder for table in tables}) == 5


def test_ids_take_four_bytes_only_where_two_are_too_few(tmp_path):
    words = [f"w{n}" for n in range(66_000)]
    large = train_tokenizer(WordConfig(vocab_size=70_000), words)
    source = ListedPairs([("w1 w65999", "w0")], "words")

    small = prepare_pairs(source, BYTES, tmp_path / "cache")
    wide = prepare_pairs(source, dict.fromkeys(SIDES, large), tmp_path / "cache")

    assert (small.folder / "target.values").stat().st_size == 2 * small.total("target")
    assert (wide.folder / "target.values").stat().st_size == 4 * wide.total("target")
    assert wide.gather("source", np.array([0]))[0].tolist() == large.encode("w1 w65999")


def bad_pairs(folder):
    path = folder / "bad.tsv"
    path.write_bytes(
        b"source\ttarget\nok\tok\nonly\nok2\tok2\n\xff\tx\nok3\tok3\ntoo long for it\tx\nok4\t \nok5\tok5\n"
    )
    return open_pairs(path)


def test_a_bad_sample_ends_the_preparation_with_its_line(tmp_path):
    with pytest.raises(BadSampleError, match=r"bad.tsv, line 3: the line has 1 column, but 2 columns are needed"):
        prepare_pairs(bad_pairs(tmp_path), BYTES, tmp_path / "cache")

    assert [path.suffix for path in (tmp_path / "cache" / "tables").iterdir()] == [".lock"]


def test_a_text_over_the_limit_is_a_bad_sample(tmp_path):
    source = ListedPairs([("four", "four"), ("four", "fives")], "made")

    with pytest.raises(BadSampleError, match=r"made, line 2: the target has 5 tokens, more than data.max_length = 4"):
        prepare_pairs(source, BYTES, tmp_path / "cache", Policy(max_length=4))


def test_every_sample_left_out_is_listed_with_its_reason(tmp_path):
    source = bad_pairs(tmp_path)

    table = prepare_pairs(source, BYTES, tmp_path / "cache", LEAVE_OUT._replace(max_length=9))
    number = write_skipped(tmp_path / "skipped.jsonl", [(table, source), (table, source)])

    listed = [json.loads(line) for line in (tmp_path / "skipped.jsonl").read_text().splitlines()]
    assert texts_of(table, "source", range(len(table))) == ["ok", "ok2", "ok3", "ok5"]
    assert table.skipped == 4
    assert number == len(listed) == 8
    assert listed[:4] == listed[4:]
    assert [(entry["line"], entry["reason"]) for entry in listed[:4]] == [
        (3, "the line has 1 column, but 2 columns are needed"),
        (5, "invalid UTF-8 (byte 0xff at position 1)"),
        (7, "the source has 15 tokens, more than data.max_length = 9"),
        (8, "the target is empty"),
    ]
    assert {entry["file"] for entry in listed} == {str(tmp_path / "bad.tsv")}
    assert [source[table.origin(row)].source for row in range(len(table))] == ["ok", "ok2", "ok3", "ok5"]


@pytest.mark.parametrize("allowed", ["10%", 3, "49%"])
def test_more_left_out_than_allowed_is_an_error_also_when_it_is_in_the_cache(tmp_path, allowed):
    source = bad_pairs(tmp_path)
    policy = LEAVE_OUT._replace(max_length=9)

    for _ in range(2):
        with pytest.raises(
            DataError, match=r"\d of 8 samples in .*bad.tsv cannot be used, but data.max_skipped allows"
        ):
            prepare_pairs(source, BYTES, tmp_path / "cache", policy._replace(max_skipped=allowed))
        prepare_pairs(source, BYTES, tmp_path / "cache", policy)


def test_a_file_without_a_usable_row_is_an_error(tmp_path):
    with pytest.raises(DataError, match="holds no sample that can be used"):
        prepare_pairs(ListedPairs([("", "x")], "made"), BYTES, tmp_path / "cache", LEAVE_OUT)


@settings(max_examples=15, deadline=None)
@given(flaws=st.sets(st.integers(0, 30)), count=st.integers(32, 40))
def test_a_row_knows_which_sample_it_was(flaws, count, tmp_path_factory):
    source = ListedPairs([("" if n in flaws else str(n), "x") for n in range(count)], "made")

    table = prepare_pairs(source, BYTES, tmp_path_factory.getbasetemp() / "origins", LEAVE_OUT)

    assert [table.origin(row) for row in range(len(table))] == [n for n in range(count) if n not in flaws]


def test_a_table_travels_to_another_process_by_its_place(tmp_path):
    table = prepare_pairs(open_pairs(written(tmp_path)), BYTES, tmp_path / "cache")

    sent = pickle.dumps(table)

    assert len(sent) < 300
    assert texts_of(
        pickle.loads(sent),  # noqa: S301 - what this test has just made
        "source",
        [7],
    ) == ["number 7"]


def test_fitted_tokenizers_are_shared_or_two_and_kept_by_content(tmp_path, monkeypatch):
    source, cache = open_pairs(written(tmp_path)), tmp_path / "cache"
    two = TokenizerPair(source=CharConfig(), target=BpeConfig(vocab_size=300))
    shared, own = fit_tokenizers(CharConfig(), source, cache), fit_tokenizers(two, source, cache)
    monkeypatch.setattr("etude.data.store.fitting.train_tokenizer", None)

    again = fit_tokenizers(two, source, cache)

    assert shared["source"] is shared["target"]
    assert "é" in shared["source"].decode(shared["source"].encode("é"))
    assert "é" not in own["source"].decode(own["source"].encode("é"))
    assert [again[side].fingerprint() for side in SIDES] == [own[side].fingerprint() for side in SIDES]


def test_a_damaged_tokenizer_of_the_cache_is_trained_again(tmp_path):
    source, cache = open_pairs(written(tmp_path)), tmp_path / "cache"
    first = fit_tokenizers(CharConfig(), source, cache)["source"]
    for path in (cache / "tokenizers").iterdir():
        path.write_text("{}")

    assert fit_tokenizers(CharConfig(), source, cache)["source"].fingerprint() == first.fingerprint()


def test_tokenizers_learn_from_good_samples_alone(tmp_path):
    source = bad_pairs(tmp_path)

    with pytest.raises(BadSampleError, match="line 3"):
        fit_tokenizers(CharConfig(), source, tmp_path / "cache")
    fitted = fit_tokenizers(CharConfig(), source, tmp_path / "cache", LEAVE_OUT)["source"]
    fitted.save(tmp_path / "own.json")

    assert fitted.size == 4 + len(set("ok235too long for itx"))
    given_file = fit_tokenizers(FileConfig(path=tmp_path / "own.json"), source, tmp_path / "cache")["target"]
    assert given_file.fingerprint() == fitted.fingerprint()


def test_real_pairs_come_back_from_their_tokens(tmp_path, multi30k):
    split = AlignedFiles(source=multi30k / "val.en", target=multi30k / "val.de")
    source = open_pairs(split, cache=tmp_path)
    tokenizers = fit_tokenizers(BpeConfig(vocab_size=2000), source, tmp_path)

    table = prepare_pairs(source, tokenizers, tmp_path)

    for place, side in enumerate(SIDES):
        ids, lengths = table.gather(side, np.arange(len(source)))
        texts = [tokenizers[side].decode(part) for part in np.split(ids, np.cumsum(lengths)[:-1])]
        assert texts == [pair[place] for pair in source.rows(0, len(source))]


def test_a_table_opens_by_its_folder(tmp_path):
    table = prepare_pairs(open_pairs(written(tmp_path)), BYTES, tmp_path / "cache")

    assert Table(table.folder).fingerprint == table.fingerprint
    assert os.access(table.folder, os.R_OK)
