"""Text tokenised once: what the tables hold, what decides them, and what tokenizer they are made with."""

import json
import pickle
from pathlib import Path

import pytest
from text_corpora import BYTES, content_of, table_of, written

from etude.base.errors import DataError
from etude.data.files.pair_sources import BadSampleError
from etude.data.files.skipped import Policy, write_skipped
from etude.data.files.text_source import open_texts
from etude.data.files.text_split import SplitRule
from etude.data.store import text_prepared
from etude.data.store.text_fitting import fit_text_tokenizer
from etude.data.store.text_prepared import prepare_texts
from etude.data.tokens.config import BpeConfig, CharConfig, WordConfig
from etude.data.tokens.tokenizers import EOS
from etude.data.tokens.training import train_tokenizer

LEAVE_OUT = Policy(on_bad_sample="skip", max_skipped="50%")


def texts_of(path):
    return [json.loads(line)["text"] for line in path.read_text().splitlines()]


@pytest.mark.parametrize("shard", [7, 64, 1 << 26])
def test_a_table_is_the_stream_of_its_documents_however_it_is_sharded(tmp_path, monkeypatch, shard):
    monkeypatch.setattr(text_prepared, "SHARD_TOKENS", shard)
    path = written(tmp_path, 20)

    table = prepare_texts(open_texts(path), BYTES, tmp_path / "cache").parts["all"]

    stream = [EOS]
    for text in texts_of(path):
        stream += [*BYTES.encode(text), EOS]
    assert table.read(0, table.targets + 1).tolist() == stream[:-1] + stream[:1]
    assert table.read(-3, 9).tolist() == (stream[-4:-1] + stream)[:9]
    assert table.starts.tolist() == [1, *(place + 1 for place in range(1, len(stream)) if stream[place] == EOS)]
    assert [BYTES.decode(table.ids(n)) for n in range(len(table))] == texts_of(path)
    assert len(list((tmp_path / "cache" / "texts").rglob("all-*.ids"))) == -(-len(stream) // shard)


def test_a_long_document_is_one_whatever_pieces_it_is_tokenised_in(tmp_path):
    text = "Some words, again and again.\n" * 10_000
    tokenizer = train_tokenizer(BpeConfig(vocab_size=300), [text])

    table = table_of(tmp_path, [text, "short"], tokenizer)

    assert table.ids(0).tolist() == tokenizer.encode(text)
    assert table.ids(1).tolist() == tokenizer.encode("short")


def test_another_process_maps_the_same_files(tmp_path):
    table = table_of(tmp_path, ["one", "two"])

    other = pickle.loads(pickle.dumps(table))  # noqa: S301 - our own

    assert other.read(0, 9).tolist() == table.read(0, 9).tolist()
    assert len(pickle.dumps(table)) < 1000


def test_any_number_of_processes_gives_the_same_tables(tmp_path, monkeypatch):
    monkeypatch.setattr(text_prepared, "LOT_PIECES", 16)
    path, seen = written(tmp_path), []
    rule = SplitRule((0.8, 0.2))

    one = prepare_texts(open_texts(path), BYTES, tmp_path / "one", rule, processes=1)
    two = prepare_texts(
        open_texts(path), BYTES, tmp_path / "two", rule, processes=2, report=lambda *done: seen.append(done)
    )

    size = path.stat().st_size
    assert content_of(one.folder) == content_of(two.folder)
    assert seen == sorted(seen)
    assert seen[-1] == (size, size)


def test_lossless_tokenizers_count_every_byte_and_others_by_a_factor(tmp_path):
    texts = ["The Quick brown é fox.\n" * 30, "Another Text"]
    lossless = table_of(tmp_path, texts, train_tokenizer(BpeConfig(vocab_size=300), texts), "a")
    lossy = table_of(tmp_path, texts, train_tokenizer(WordConfig(), texts[:1]), "b")

    assert lossless.factor == 1.0
    assert lossy.factor != 1.0
    for table in (lossless, lossy):
        counted = table.token_bytes[table.read(0, table.targets)].sum() - table.prefix * len(table)
        assert counted * table.factor == pytest.approx(len("".join(texts).encode()), rel=1e-12)
        assert table.bytes == len("".join(texts).encode())


def test_the_same_content_is_prepared_once_and_changed_content_again(tmp_path):
    path, cache, reports = written(tmp_path), tmp_path / "cache", []

    def prepared():
        return prepare_texts(open_texts(path, cache=cache), BYTES, cache, report=lambda *done: reports.append(done))

    first, again = prepared(), prepared()
    told = len(reports)
    path.write_text(path.read_text().replace("Document", "Dokument"))
    changed = prepared()

    assert again.folder == first.folder
    assert len(reports) > told
    assert changed.folder != first.folder
    assert "Dokument" in BYTES.decode(changed.parts["all"].ids(0))


@pytest.mark.parametrize(
    "other",
    [
        {"rule": SplitRule((0.5, 0.5))},
        {"policy": LEAVE_OUT},
        {"tokenizer": train_tokenizer(CharConfig(), ["Document é 0123456789.\n"])},
    ],
)
def test_everything_that_decides_a_table_is_in_its_name(tmp_path, other):
    corpus = open_texts(written(tmp_path))
    known = {"tokenizer": BYTES, "cache": tmp_path / "cache"}

    assert prepare_texts(corpus, **known).folder != prepare_texts(corpus, **(known | other)).folder


def with_bad(folder):
    path = folder / "bad.jsonl"
    path.write_text('{"text": "one"}\n{"body": 1}\n{"text": "two"}\n{"text": "  "}\n{"text": "three"}\n')
    return path


def test_a_bad_document_ends_the_preparation_with_its_place(tmp_path):
    with pytest.raises(BadSampleError, match=r'bad\.jsonl, line 2: there is no field "text"'):
        prepare_texts(open_texts(with_bad(tmp_path)), BYTES, tmp_path / "cache")


def test_bad_documents_are_left_out_and_listed_on_request(tmp_path):
    tables = prepare_texts(open_texts(with_bad(tmp_path)), BYTES, tmp_path / "cache", policy=LEAVE_OUT)
    table = tables.parts["all"]

    count = write_skipped(tmp_path / "skipped.jsonl", [(table, table)])

    assert [BYTES.decode(table.ids(n)) for n in range(len(table))] == ["one", "two", "three"]
    assert table.skipped == count == 2
    listed = [json.loads(line) for line in (tmp_path / "skipped.jsonl").read_text().splitlines()]
    assert [(skip["line"], skip["reason"]) for skip in listed] == [
        (2, 'there is no field "text", but "body"; data.text names the field'),
        (4, "the document is empty"),
    ]


@pytest.mark.parametrize(("allowed", "told"), [("10%", "2 of 5 documents"), (1, "2 documents")])
def test_too_many_bad_documents_are_an_error_also_when_others_were_allowed_before(tmp_path, allowed, told):
    strict = LEAVE_OUT._replace(max_skipped=allowed)
    corpus = open_texts(with_bad(tmp_path))
    with pytest.raises(DataError, match=told):
        prepare_texts(corpus, BYTES, tmp_path / "cache", policy=strict)
    prepare_texts(corpus, BYTES, tmp_path / "cache", policy=LEAVE_OUT)

    with pytest.raises(DataError, match=r"2 of 5 documents .* but data\.max_skipped allows"):
        prepare_texts(corpus, BYTES, tmp_path / "cache", policy=strict)


def test_a_corpus_without_a_document_is_told(tmp_path):
    (tmp_path / "none.jsonl").write_text("")

    with pytest.raises(DataError, match="holds no document that can be used"):
        prepare_texts(open_texts(tmp_path), BYTES, tmp_path / "cache")


def test_a_file_that_changes_meanwhile_is_noticed(tmp_path):
    path = written(tmp_path)
    corpus = open_texts(path)

    with pytest.raises(DataError, match="has changed while it was read"):
        prepare_texts(
            corpus, BYTES, tmp_path / "cache", processes=1, report=lambda *_: path.write_text(path.read_text() + " ")
        )

    assert [place.suffix for place in (tmp_path / "cache" / "texts").iterdir()] == [".lock"]


def test_a_tokenizer_learns_from_the_training_part_alone_and_is_kept(tmp_path):
    path, cache, rule = tmp_path / "t.txt", tmp_path / "cache", SplitRule((0.5, 0.5))
    path.write_text("abc" * 10 + "xyz" * 10)
    reports = []

    def fitted(rule):
        return fit_text_tokenizer(
            CharConfig(), open_texts(path), cache, rule, report=lambda *done: reports.append(done)
        )

    first, told = fitted(rule), len(reports)
    again = fitted(rule)

    assert first.size == 4 + 3
    assert again.fingerprint() == first.fingerprint()
    assert len(reports) == told
    assert fitted(None).size == 4 + 6


def test_a_tokenizer_learns_from_an_even_sample_of_a_huge_corpus_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("etude.data.store.text_fitting.SAMPLE_BYTES", 100)
    (tmp_path / "texts").mkdir()
    for number in range(10):
        (tmp_path / "texts" / f"{number}.txt").write_text(chr(ord("a") + number) * 30)
    heard = []

    tokenizer = fit_text_tokenizer(
        CharConfig(), open_texts(tmp_path / "texts"), tmp_path / "cache", notice=heard.append
    )

    assert heard == [
        f"The tokenizer is trained on every 3rd piece of {tmp_path}/texts/0.txt and 9 more, evenly spread."
    ]
    assert [bool(tokenizer.encode(letter) != [1]) for letter in "abcdefghij"] == [n % 3 == 0 for n in range(10)]


def test_a_tokenizer_learns_from_the_training_part_of_each_of_several_corpora(tmp_path):
    for name, text in (("a", "abcxyz"), ("b", "klm123")):
        (tmp_path / f"{name}.txt").write_text(text)
    corpora = [open_texts(tmp_path / f"{name}.txt") for name in "ab"]
    seen = []

    tokenizer = fit_text_tokenizer(
        CharConfig(), corpora, tmp_path / "cache", SplitRule((0.5, 0.5)), report=lambda *done: seen.append(done)
    )

    assert sorted(letter for letter in "abcklmxyz123" if tokenizer.encode(letter) != [1]) == list("abcklm")
    assert seen == sorted(seen)
    assert seen[-1] == (12, 12)


def test_a_tokenizer_is_not_trained_past_a_bad_document_unless_it_is_left_out(tmp_path):
    corpus = open_texts(with_bad(tmp_path))

    with pytest.raises(BadSampleError, match="line 2"):
        fit_text_tokenizer(CharConfig(), corpus, tmp_path / "cache")

    assert fit_text_tokenizer(CharConfig(), corpus, tmp_path / "cache", policy=LEAVE_OUT).size == 4 + 7


def test_a_file_without_text_among_others_is_counted_and_costs_nothing(tmp_path):
    (tmp_path / "notes").mkdir()
    for name, text in {"a.md": "one two", "b.md": "", "c.md": " \n", "d.md": "three"}.items():
        (tmp_path / "notes" / name).write_text(text)
    corpus = open_texts(tmp_path / "notes")
    tokenizer = fit_text_tokenizer(CharConfig(), corpus, tmp_path / "cache")

    table = prepare_texts(corpus, tokenizer, tmp_path / "cache").parts["all"]

    assert (table.documents, table.skipped) == (2, 2)
    assert [(Path(skip.file).name, skip.reason) for skip in table.skips()] == [
        ("b.md", "the document is empty"),
        ("c.md", "the document is empty"),
    ]


def test_a_file_in_utf_16_is_named_as_such(tmp_path):
    (tmp_path / "a.txt").write_bytes("once upon a time".encode("utf-16"))
    corpus = open_texts(tmp_path / "a.txt")

    with pytest.raises(BadSampleError, match=r"a\.txt, line 1: the text is in UTF-16: save it as UTF-8"):
        fit_text_tokenizer(CharConfig(), corpus, tmp_path / "cache")
