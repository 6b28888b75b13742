"""From files of samples to prepared rows: kinds, bad samples, and a cache that is whole or not there."""

import json
import os

import numpy as np
import pytest
from hf_folders import CHATML, PAIRS, TEXTS, answers, texts, tokenizer, write_lines

from etude.base.errors import ConfigError, DataError, StorageError
from etude.data.feeds.batching import Batching
from etude.data.files.skipped import Policy, write_skipped
from etude.tasks.hf import rows as hf_rows
from etude.tasks.hf.chat import Encoder
from etude.tasks.hf.feed import hf_feed
from etude.tasks.hf.rows import prepare_rows
from etude.tasks.hf.samples import Asked, Conversation, Fields, Text, open_samples

WORDS = tokenizer()
ENCODER = Encoder(WORDS, seq2seq=False)
CHAT = Encoder(tokenizer(CHATML), seq2seq=False)
TALK = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]


def opened(split, fields=Fields(), **options):  # noqa: B008 - a constant
    return open_samples(split, fields, **options)


def prepared(split, cache, policy=Policy(), encoder=ENCODER, length=50):  # noqa: B008 - a constant
    return prepare_rows(opened(split), encoder, cache, policy, length=length)


LINES = {
    "texts": ({"text": "a cat"}, Text("a cat")),
    "answers": ({"prompt": "a", "answer": "b", "text": "c"}, Asked("a", "b")),
    "talks": ({"messages": TALK, "prompt": "x"}, Conversation(TALK)),
    "pairs": ({"source": "a", "target": "b"}, Asked("a", "b")),
}


@pytest.mark.parametrize("kind", LINES)
def test_the_fields_of_the_first_line_say_what_the_samples_are(kind, tmp_path):
    line, sample = LINES[kind]

    assert list(opened(write_lines(tmp_path / "a.jsonl", [line])).samples()) == [sample]


def test_fields_may_have_names_of_their_own(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", [{"q": "a", "a": "b", "t": "c", "turns": TALK}])

    found = [next(opened(path, fields).samples()) for fields in (Fields(prompt="q", answer="a"), Fields(text="t"), Fields(messages="turns"))]  # fmt: skip  # noqa: E501

    assert found == [Asked("a", "b"), Text("c"), Conversation(TALK)]
    assert list(opened(path, source="q", target="t").samples()) == [Asked("a", "c")]


def test_folders_and_lists_are_read_in_the_order_of_their_names(tmp_path):
    (tmp_path / "in").mkdir()
    for name, text in {"b.txt": "two", "a.md": "one", ".c.txt": "hidden", "in/d.txt": "three"}.items():
        (tmp_path / name).write_text(text)

    source = opened(tmp_path)

    assert list(source.samples()) == [Text("one"), Text("two"), Text("three")]
    assert source.place(2) == (str(tmp_path / "in" / "d.txt"), 1)


def test_tables_are_prompts_and_answers(tmp_path):
    (tmp_path / "a.tsv").write_text("source\ttarget\nx\ty\n")

    assert list(opened(tmp_path / "a.tsv").samples()) == [Asked("x", "y")]


def test_samples_of_several_files_have_their_places(tmp_path):
    paths = [answers(tmp_path / "a.jsonl"), texts(tmp_path / "b.jsonl")]

    source = opened(paths)

    assert source.place(len(PAIRS)) == (str(paths[1]), 1)
    assert len(source) == len(PAIRS) + len(TEXTS)


UNUSABLE = {
    "missing": (lambda path: path / "no.jsonl", "does not exist"),
    "empty folder": (lambda path: path, "holds no file"),
    "two kinds": (lambda path: [texts(path / "a.jsonl"), write_text(path / "b.txt", b"b")], "are of two kinds"),
    "no field": (lambda path: write_lines(path / "a.jsonl", [{"x": 1}]), 'line 1: the fields are "x", but must hold'),
    "no json": (lambda path: write_text(path / "a.jsonl", b"{"), "line 1: invalid JSON"),
}


def write_text(path, content):
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("name", UNUSABLE)
def test_files_that_cannot_be_used_are_named(name, tmp_path):
    make, said = UNUSABLE[name]

    with pytest.raises(DataError, match=said):
        opened(make(tmp_path))


BAD = {
    "no json": (b"{", "invalid JSON"),
    "no object": (b"[]", "not a JSON object"),
    "no field": (b'{"prompt": "a"}', 'there is no field "answer"'),
    "a number": (b'{"prompt": "a", "answer": 3}', 'the field "answer" is not a string'),
    "empty": (b'{"prompt": "a", "answer": " "}', "the answer is empty"),
    "half a character": (b'{"prompt": "a", "answer": "\\ud800"}', "half a surrogate pair"),
    "no text": (b'{"prompt": "\xff", "answer": "b"}', "invalid UTF-8"),
    "too long": (json.dumps({"prompt": "a", "answer": "cat " * 30}).encode(), "more than data.max_length = 20"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_sample_is_named_or_left_out_and_listed(name, tmp_path):
    line, reason = BAD[name]
    path = write_text(tmp_path / "a.jsonl", b'{"prompt": "a", "answer": "b"}\n' + line + b"\n")

    with pytest.raises(DataError, match=r"a\.jsonl, line 2: .*") as told:
        prepared(path, tmp_path, Policy(max_length=20))
    table = prepared(path, tmp_path, Policy(20, "skip", 1))
    write_skipped(tmp_path / "skipped.jsonl", [(table, opened(path))])

    assert reason in str(told.value)
    listed = json.loads((tmp_path / "skipped.jsonl").read_text())
    assert (len(table), table.skipped, listed["line"], reason in listed["reason"]) == (1, 1, 2, True)


def test_more_than_may_be_skipped_is_an_error(tmp_path):
    path = write_text(tmp_path / "a.jsonl", b'{"prompt": "a", "answer": "b"}\n{}\n{}\n')

    with pytest.raises(DataError, match=r"2 of 3 samples .* data\.max_skipped allows 1"):
        prepared(path, tmp_path, Policy(None, "skip", 1))


def test_a_text_that_is_no_utf8_is_named(tmp_path):
    with pytest.raises(DataError, match=r"a\.txt, line 1: invalid UTF-8 \(byte 0xff"):
        prepared(write_text(tmp_path / "a.txt", b"a\xff"), tmp_path)


def test_texts_are_no_samples_for_a_sequence_to_sequence_model(tmp_path):
    with pytest.raises(ConfigError, match="needs samples of prompt and answer"):
        prepared(texts(tmp_path / "t.jsonl"), tmp_path, encoder=Encoder(tokenizer(ends=True), seq2seq=True))


def test_rows_are_those_of_the_encoder(tmp_path):
    table = prepared(answers(tmp_path / "a.jsonl"), tmp_path)

    for index, pair in enumerate(PAIRS):
        ids, counted, source = (table.gather(name, np.array([index]))[0] for name in ("ids", "counted", "sources"))
        size = table.values("bytes", np.array([index])).item()
        row = ENCODER.answer(*pair)
        assert (ids.tolist(), counted.tolist(), source.tolist(), size) == (row.ids, row.counted, row.source, row.bytes)
    assert table.total("targets") == sum(sum(ENCODER.answer(*pair).counted) for pair in PAIRS)


def test_what_is_prepared_is_opened_again_and_another_content_is_not(tmp_path, monkeypatch):
    path = answers(tmp_path / "a.jsonl")
    first = prepared(path, tmp_path)
    monkeypatch.setattr(hf_rows, "_rows", lambda *_: pytest.fail("tokenised once more"))

    assert prepared(path, tmp_path).fingerprint == first.fingerprint

    monkeypatch.undo()
    others = [
        prepared(path, tmp_path, Policy(max_length=40)),
        prepared(path, tmp_path, encoder=CHAT),
        prepared(path, tmp_path, encoder=Encoder(CHAT.tokenizer, seq2seq=False, system="be short")),
        prepared(path, tmp_path, length=20),
    ]
    path.write_text(path.read_text() + '{"prompt": "a", "answer": "b"}\n')
    others.append(prepared(path, tmp_path))
    assert len({first.fingerprint, *(table.fingerprint for table in others)}) == 6


@pytest.mark.parametrize("name", ["ids.values", "manifest.json"])
def test_a_damaged_cache_is_made_anew(name, tmp_path):
    path = texts(tmp_path / "t.jsonl")
    table = prepared(path, tmp_path)
    (table.folder / name).write_bytes(b"{}")

    again = prepared(path, tmp_path)

    assert again.gather("ids", np.array([3]))[0].tolist() == next(ENCODER.text(TEXTS[3], 50)).ids


def test_a_preparation_that_fails_leaves_nothing(tmp_path, monkeypatch):
    path = texts(tmp_path / "t.jsonl")
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "full")))

    with pytest.raises(StorageError, match="No space left on device"):
        prepared(path, tmp_path / "cache")

    assert not [found for found in (tmp_path / "cache" / "hf").iterdir() if found.suffix != ".lock"]


def feed(table, *, pack=None, **options):
    return hf_feed(table, Batching(seed=1, **options), seq2seq=False, pad=0, pack=pack)


@pytest.mark.parametrize("options", [{"batch_size": 4}, {"batch_tokens": 60}, {"batch_size": 1, "pack": 20}])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_feed_goes_on_right_behind_any_batch(options, workers, tmp_path):
    table = prepared(texts(tmp_path / "t.jsonl"), tmp_path)
    whole = [delivery.batch.inputs.tolist() for delivery in feed(table, **options).epoch(3)]
    positions = [delivery.position for delivery in feed(table, **options).epoch(3)]

    made = feed(table, workers=workers, **options)
    found = [delivery.batch.inputs.tolist() for delivery in made.epoch(3, positions[1])]
    made.close()

    assert found == whole[2:]
    assert whole != [delivery.batch.inputs.tolist() for delivery in feed(table, **options).epoch(4)]


@pytest.mark.parametrize("options", [{"batch_size": 4}, {"batch_tokens": 60}, {"batch_size": 1, "pack": 20}])
def test_targets_are_counted_without_making_batches(options, tmp_path):
    made = feed(prepared(texts(tmp_path / "t.jsonl"), tmp_path), **options)

    counted = [delivery.batch for delivery in made.counted().epoch(2)]

    assert counted == [delivery.batch.tokens for delivery in made.epoch(2)]


def test_a_feed_tells_its_targets(tmp_path):
    table = prepared(texts(tmp_path / "t.jsonl"), tmp_path)

    assert feed(table, batch_size=4).targets == table.total("targets")
    assert feed(table, batch_size=4, limit=1).targets == pytest.approx(table.total("targets") * 4 / len(table), rel=0.2)


def test_evaluation_takes_every_row_once_with_little_padding(tmp_path):
    table = prepared(texts(tmp_path / "t.jsonl"), tmp_path)

    batches = [delivery.batch for delivery in feed(table, batch_size=3, evaluation=True).epoch(0)]

    assert sorted(np.concatenate([batch.indices for batch in batches]).tolist()) == list(range(len(table)))
    assert np.mean([batch.padding for batch in batches]) < 0.25


def test_a_picture_and_an_empty_note_among_texts_are_left_out_and_counted(tmp_path):
    heard = []
    for name, content in {"a.txt": b"one", "b.png": b"\x89PNG", "c.md": b"two", "d.txt": b" "}.items():
        (tmp_path / name).write_bytes(content)

    source = opened(tmp_path, notice=heard.append)

    assert list(source.samples()) == [Text("one"), Text("two")]
    assert heard == [
        f"{tmp_path}: 1 files are left out, which are not text by their names, such as b.png.",
        "1 of 3 files hold no text and are left out.",
    ]


def test_the_pair_of_two_kinds_is_named_rightly(tmp_path):
    for name in ("a.txt", "b.md", "c.jsonl"):
        (tmp_path / name).write_text("{}")

    with pytest.raises(DataError, match=r"a\.txt and .*c\.jsonl are of two kinds"):
        opened(tmp_path)
