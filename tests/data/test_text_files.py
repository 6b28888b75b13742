"""Which files make a corpus, and what documents they hold."""

import gzip
import json
import os
import sys

import pyarrow as pa
import pytest
import zstandard
from pyarrow import parquet
from text_corpora import read

from etude.base.errors import DataError
from etude.data.files import text_files, text_source
from etude.data.files.text_source import open_texts


def test_a_folder_is_read_recursively_in_the_order_of_its_paths_and_without_what_is_hidden(tmp_path):
    heard = []
    for name in ("b.txt", "a/z.py", "a/y.md", ".hidden.txt", ".git/x.txt", "picture.png", "a.rst"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"text of {name}")

    documents = read(open_texts(tmp_path, notice=heard.append))

    assert [text for _, _, text in documents] == [f"text of {name}" for name in ("a/y.md", "a/z.py", "a.rst", "b.txt")]
    assert heard == [f"1 files in {tmp_path} are not text and are left out (.png)."]


def test_a_list_is_read_in_its_order_and_a_named_file_may_be_called_anything(tmp_path):
    (tmp_path / "LICENSE").write_text("one")
    (tmp_path / "a.txt").write_text("two")

    documents = read(open_texts([tmp_path / "a.txt", tmp_path / "LICENSE"]))

    assert documents == [("a.txt", 1, "two"), ("LICENSE", 1, "one")]


def write_plain(path):
    path.write_bytes("first\r\nsecond\u2028 é\n".encode())


def write_gz(path):
    # Two members, as when logs are appended.
    path.write_bytes(gzip.compress(b"first\r\nsec") + gzip.compress("ond\u2028 é\n".encode()) + b"\0" * 100)


def write_zst(path):
    path.write_bytes(zstandard.compress(b"first\r\n") + zstandard.compress("second\u2028 é\n".encode()))


@pytest.mark.parametrize(
    ("name", "write"), [("t.txt", write_plain), ("t.txt.gz", write_gz), ("t.md.zst", write_zst), ("t.TXT", write_plain)]
)
def test_plain_text_comes_back_as_it_is_written_however_it_is_compressed(tmp_path, name, write, monkeypatch):
    monkeypatch.setattr(text_files, "BLOCK_BYTES", 3)
    write(tmp_path / name)

    assert read(open_texts(tmp_path / name)) == [(name, 1, "first\r\nsecond\u2028 é\n")]


def test_a_byte_order_mark_is_no_text(tmp_path):
    (tmp_path / "t.txt").write_bytes(b"\xef\xbb\xbfone")
    (tmp_path / "t.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "two"}\n')

    assert [text for _, _, text in read(open_texts(tmp_path))] == ["two", "one"]


@pytest.mark.parametrize("block", [1, 2, 5, 1000])
def test_a_separator_makes_documents_of_a_file_wherever_it_is_read_in_blocks(tmp_path, monkeypatch, block):
    monkeypatch.setattr(text_files, "BLOCK_BYTES", block)
    (tmp_path / "t.txt").write_text("one\nmore<|end|>two<|end|><|end|>\nthree <|en\n<|end|>\n")

    documents = read(open_texts(tmp_path / "t.txt", separator="<|end|>"))

    assert documents == [("t.txt", 1, "one\nmore"), ("t.txt", 2, "two"), ("t.txt", 2, "\nthree <|en\n")]


@pytest.mark.parametrize("name", ["t.jsonl", "t.ndjson", "t.jsonl.gz", "t.jsonl.zst"])
def test_a_line_of_json_is_a_document(tmp_path, name, monkeypatch):
    monkeypatch.setattr(text_files, "BLOCK_BYTES", 7)
    content = "".join(json.dumps({"id": n, "body": f"text\u2028{n}"}, ensure_ascii=False) + "\n" for n in range(3))
    packed = {"gz": gzip.compress, "zst": zstandard.compress}.get(name.rpartition(".")[2], bytes)(content.encode())
    (tmp_path / name).write_bytes(packed)

    documents = read(open_texts(tmp_path / name, field="body"))

    assert documents == [(name, n + 1, f"text\u2028{n}") for n in range(3)]


def test_a_row_of_parquet_is_a_document(tmp_path):
    table = pa.table({"id": range(1000), "text": [f"row {n}" if n != 7 else None for n in range(1000)]})
    parquet.write_table(table, tmp_path / "t.parquet", row_group_size=100)

    documents = read(open_texts(tmp_path / "t.parquet"))

    assert documents[7] == ("t.parquet", 8, "the row has no text")
    assert [text for _, _, text in documents if text.startswith("row ")] == [f"row {n}" for n in range(1000) if n != 7]


def test_a_parquet_file_without_the_column_says_which_it_has(tmp_path):
    parquet.write_table(pa.table({"body": ["x"]}), tmp_path / "t.parquet")

    with pytest.raises(DataError, match=r'no column "text", but "body"; data\.text names the column'):
        read(open_texts(tmp_path))


GOOD = '{"text": "good"}\n'


@pytest.mark.parametrize(
    ("name", "content", "line", "reason"),
    [
        ("t.txt", b"one\ntwo \xff\n", 2, "invalid UTF-8 (byte 0xff)"),
        ("t.txt", b"one\xc3", 1, "invalid UTF-8 (byte 0xc3)"),
        ("t.txt", b"", 1, "the document is empty"),
        ("t.txt", b" \n\t", 1, "the document is empty"),
        ("t.txt.gz", gzip.compress(b"one\ntwo\n" * 1000, mtime=0)[:-9], 2001, "the compressed file is cut short"),
        (
            "t.txt.zst",
            zstandard.compress(os.urandom(400_000).hex().encode())[:-9],
            1,
            "the compressed file is cut short",
        ),
        ("t.txt.gz", b"no gzip", 1, "the compressed file is damaged"),
        ("t.jsonl", f"{GOOD}{GOOD}[1]\n".encode(), 3, "the line is not a JSON object"),
        ("t.jsonl", f'{GOOD}{{"body": "x"}}\n'.encode(), 2, 'there is no field "text"'),
        ("t.jsonl", f'{GOOD}{{"text": 1}}\n'.encode(), 2, 'the field "text" is not a string'),
        ("t.jsonl", f'{GOOD}{{"text": ""}}\n'.encode(), 2, "the document is empty"),
        ("t.jsonl", f'{GOOD}{{"text": "\\ud800"}}\n'.encode(), 2, 'the field "text" holds half a surrogate pair'),
        ("t.jsonl", f"{GOOD}\n".encode(), 2, "invalid JSON (Expecting value)"),
        ("t.jsonl", GOOD.encode() + b"\xff\n", 2, "invalid UTF-8 (byte 0xff at position 1)"),
        ("t.jsonl.gz", gzip.compress(GOOD.encode() * 9, mtime=0)[:-9], 10, "the compressed file is cut short"),
        ("t.parquet", b"PAR1 no", 1, "the Parquet file cannot be read"),
    ],
)
def test_what_cannot_be_used_is_told_with_its_place(tmp_path, name, content, line, reason):
    (tmp_path / name).write_bytes(content)

    documents = read(open_texts(tmp_path / name))

    assert documents[-1][:2] == (name, line)
    assert documents[-1][2].startswith(reason)


def test_one_bad_document_among_separated_ones_costs_no_other(tmp_path):
    (tmp_path / "t.txt").write_bytes(b"one\n##two\n\xff##three\n")

    documents = read(open_texts(tmp_path / "t.txt", separator="##"))

    assert documents == [("t.txt", 1, "one\n"), ("t.txt", 3, "invalid UTF-8 (byte 0xff)"), ("t.txt", 3, "three\n")]


def test_a_line_of_json_that_is_too_long_is_told_and_the_next_one_read(tmp_path, monkeypatch):
    monkeypatch.setattr(text_source, "LINE_BYTES", 30)
    monkeypatch.setattr(text_files, "BLOCK_BYTES", 8)
    (tmp_path / "t.jsonl").write_text(json.dumps({"text": "x" * 99}) + "\n" + GOOD)

    assert [text for _, _, text in read(open_texts(tmp_path))] == ["the line is longer than 0 MiB", "good"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder / "none", "which does not exist; corpora by name are python, python_docs"),
        (lambda folder: folder, "which holds no file of text"),
        (lambda folder: folder / "t.parquet.gz", "Parquet is compressed in itself"),
    ],
)
def test_paths_that_hold_no_text_are_refused(tmp_path, make, message):
    (tmp_path / "t.parquet.gz").write_text("x")
    (tmp_path / "t.parquet.gz").rename(tmp_path / ".t") if make(tmp_path) == tmp_path else None

    with pytest.raises(DataError, match=message):
        open_texts(make(tmp_path))


def test_links_lead_to_files_and_folders_but_never_in_a_circle(tmp_path):
    (tmp_path / "texts" / "b").mkdir(parents=True)
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "one.txt").write_text("one")
    (tmp_path / "texts" / "b" / "two.txt").symlink_to(tmp_path / "far" / "one.txt")
    (tmp_path / "texts" / "a").symlink_to(tmp_path / "far")
    (tmp_path / "texts" / "b" / "up").symlink_to(tmp_path / "texts")

    assert [name for name, _, _ in read(open_texts(tmp_path / "texts"))] == ["one.txt", "two.txt"]


def test_a_stream_and_a_link_to_nothing_are_refused(tmp_path):
    os.mkfifo(tmp_path / "t.txt")
    (tmp_path / "lost.txt").symlink_to(tmp_path / "gone")

    for name, message in (("t.txt", "is a stream, and cannot be read twice"), ("lost.txt", "No such file")):
        with pytest.raises(DataError, match=message):
            open_texts(tmp_path / name)


@pytest.mark.parametrize(("name", "library"), [("t.parquet", "pyarrow"), ("t.txt.zst", "zstandard")])
def test_a_library_that_is_missing_is_named_with_its_extra(tmp_path, monkeypatch, name, library):
    (tmp_path / name).write_bytes(b"x")
    monkeypatch.setitem(sys.modules, library, None)

    with pytest.raises(DataError, match=rf"needs {library}: pip install 'etude\[text\]'"):
        read(open_texts(tmp_path / name))


def test_a_fingerprint_follows_the_content_and_not_the_name(tmp_path):
    for name, text in (("a", "one"), ("b", "one"), ("c", "two")):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.txt").write_text(text)
    cache = tmp_path / "cache"

    a, b, c = (open_texts(tmp_path / name, cache=cache).fingerprint() for name in "abc")

    assert a == b != c
    assert open_texts(tmp_path / "a", cache=cache, separator="#").fingerprint() != a
    assert open_texts(tmp_path / "a", cache=cache, field="body").fingerprint() != a


def test_a_file_is_hashed_once_and_again_when_it_changes(tmp_path, monkeypatch):
    path, hashed = tmp_path / "t.txt", []
    path.write_text("one")
    os.utime(path, (1, 1))
    monkeypatch.setattr(text_files, "SETTLED_SECONDS", -1e9)
    whole = text_files.sha256_of
    monkeypatch.setattr(text_files, "sha256_of", lambda path: hashed.append(path) or whole(path))

    first = open_texts(path, cache=tmp_path / "cache").fingerprint()
    again = open_texts(path, cache=tmp_path / "cache").fingerprint()
    path.write_text("two")
    os.utime(path, (1, 1))
    changed = open_texts(path, cache=tmp_path / "cache").fingerprint()

    assert len(hashed) == 2
    assert first == again != changed


def test_what_is_read_of_a_corpus_adds_up_to_its_size(tmp_path):
    for n in range(3):
        (tmp_path / f"{n}.txt.gz").write_bytes(gzip.compress(b"text " * 1000 * n + b"."))
    corpus, seen = open_texts(tmp_path), []

    for document in corpus.documents():
        "".join(document.blocks)
        seen.append(corpus.read)

    assert seen == sorted(seen)
    assert corpus.read == corpus.size == sum(path.stat().st_size for path in tmp_path.iterdir())
