"""Parallel text is read as it is written, by number."""

import json
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.base.errors import DataError
from etude.data.files.lines import BLOCK_BYTES, Flaw, LineFile
from etude.data.files.names import AlignedFiles
from etude.data.files.parallel import ListedPairs, open_again, open_pairs

LINE = st.text(st.characters(codec="utf-8", exclude_characters="\t\n\r\ufeff"), min_size=1).filter(str.strip)


def written(folder, name, text):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def pairs_of(source):
    return [tuple(source[i]) for i in range(len(source))]


@pytest.mark.parametrize(
    ("name", "text", "columns"),
    [
        ("named.tsv", "source\ttarget\na\tb\nc\td\n", {}),
        ("without_last_end.tsv", "source\ttarget\na\tb\nc\td", {}),
        ("dos.tsv", "source\ttarget\r\na\tb\r\nc\td\r\n", {}),
        ("byte_order_mark.tsv", "\ufeffsource\ttarget\na\tb\nc\td\n", {}),
        ("other_order.tsv", "id\ttarget\tsource\n1\tb\ta\n2\td\tc\n", {}),
        ("own_names.tsv", "en\tde\na\tb\nc\td\n", {"source": "en", "target": "de"}),
        ("no_names.tsv", "a\tb\nc\td\n", {}),
        ("no_names.txt", "a\tb\nc\td\n", {}),
        ("by_number.tsv", "x\ta\tb\nx\tc\td\n", {"source": 2, "target": 3}),
        ("fields.jsonl", '{"source": "a", "target": "b"}\n{"target": "d", "source": "c", "n": 1}\n', {}),
        ("fields.ndjson", '{"en": "a", "de": "b"}\n{"en": "c", "de": "d"}\n', {"source": "en", "target": "de"}),
    ],
)
def test_a_file_of_every_kind_gives_its_pairs(tmp_path, name, text, columns):
    path = written(tmp_path, name, text)

    assert pairs_of(open_pairs(path, **columns)) == [("a", "b"), ("c", "d")]
    assert pairs_of(open_pairs(path, **columns, cache=tmp_path / "cache")) == [("a", "b"), ("c", "d")]


def test_quotes_are_characters_and_missing_values_are_words(tmp_path):
    rows = [('"He said', 'x"'), ("NA", "null"), ("None", '""'), ("'", "nan"), ('a ""b"" c', "#N/A")]
    path = written(tmp_path, "q.tsv", "source\ttarget\n" + "".join(f"{a}\t{b}\n" for a, b in rows))

    assert pairs_of(open_pairs(path)) == rows


def test_only_a_line_feed_ends_a_line(tmp_path):
    odd = "a\x0b\x0c\x1c\x1d\x85\u2028\u2029b\rc"
    path = written(tmp_path, "odd.tsv", f"{odd}\tx\ny\tz\n")

    assert pairs_of(open_pairs(path)) == [(odd, "x"), ("y", "z")]


def test_aligned_files_belong_together_line_by_line(tmp_path):
    split = AlignedFiles(
        source=written(tmp_path, "a.en", "one\ntwo\n"), target=written(tmp_path, "a.de", "eins\nzwei\n")
    )

    assert pairs_of(open_pairs(split)) == [("one", "eins"), ("two", "zwei")]
    assert open_pairs(split).location(1) == f"{tmp_path / 'a.en'}, line 2"


def test_several_files_follow_one_another_and_each_line_knows_its_place(tmp_path):
    first = written(tmp_path, "a.tsv", "source\ttarget\na\tb\nc\td\n")
    second = written(tmp_path, "b.jsonl", '{"source": "e", "target": "f"}\n')
    third = written(tmp_path, "c.tsv", "g\th\n")

    source = open_pairs([first, second, third])

    assert pairs_of(source) == [("a", "b"), ("c", "d"), ("e", "f"), ("g", "h")]
    assert list(source.rows(1, 4)) == [source[1], source[2], source[3]]
    assert [source.place(i) for i in range(4)] == [(str(first), 2), (str(first), 3), (str(second), 1), (str(third), 1)]


def test_a_table_without_names_is_read_from_its_first_line_and_says_so(tmp_path):
    heard = []

    source = open_pairs(written(tmp_path, "a.tsv", "one\tuno\n"), notice=heard.append)

    assert source[0] == ("one", "uno")
    (said,) = heard
    assert said == (
        f'{tmp_path / "a.tsv"} does not begin with column names: its first line, "one\\tuno", is a pair, and its first '
        "column is the source, its second the target; data.header = true says otherwise."
    )


@pytest.mark.parametrize("cached", [False, True])
@settings(max_examples=40)
@given(rows=st.lists(st.tuples(LINE, LINE), min_size=1, max_size=20))
def test_what_is_written_is_read(rows, cached):
    with tempfile.TemporaryDirectory() as folder:
        path = written(Path(folder), "x.tsv", "source\ttarget\n" + "".join(f"{a}\t{b}\n" for a, b in rows))
        source = open_pairs(path, cache=Path(folder) / "cache" if cached else None)

        assert pairs_of(source) == rows
        assert list(source.rows(0, len(rows))) == rows


@given(content=st.binary(min_size=1, max_size=200), kind=st.sampled_from(["x.tsv", "x.txt", "x.jsonl"]))
def test_any_bytes_give_pairs_or_reasons(content, kind):
    with tempfile.TemporaryDirectory() as folder:
        path = written(Path(folder), kind, content)
        rows, said = opened(path)

        assert said.isprintable()
        assert all(row.reason.isprintable() for row in rows if isinstance(row, Flaw))


def opened(path):
    try:
        source = open_pairs(path)
    except DataError as error:
        return [], str(error)
    rows = list(source.rows(0, len(source)))
    assert len(rows) == len(source)
    return rows, ""


@settings(max_examples=40)
@given(
    value=st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(), lambda v: st.lists(v) | st.dictionaries(st.text(), v)
    )
)
def test_any_json_gives_a_pair_or_a_reason(value):
    with tempfile.TemporaryDirectory() as folder:
        path = written(Path(folder), "x.jsonl", json.dumps({"source": value, "target": "x"}) + "\n" + json.dumps(value))
        source = open_pairs(path)

        assert len(list(source.rows(0, 2))) == 2


def test_a_changed_file_is_noticed_even_where_size_and_time_are_kept(tmp_path):
    path, cache = written(tmp_path, "a.tsv", "one\tuno\n"), tmp_path / "cache"
    os.utime(path, ns=(1, 1))
    before = open_pairs(path, cache=cache).fingerprint()
    path.write_bytes(b"two\tdos\n")
    os.utime(path, ns=(1, 1))

    after = open_pairs(path, cache=cache)

    assert after[0] == ("two", "dos")
    assert after.fingerprint() != before


def test_a_known_file_is_not_read_again(tmp_path, monkeypatch):
    path, cache = written(tmp_path, "a.tsv", "one\tuno\n"), tmp_path / "cache"
    monkeypatch.setattr("etude.data.files.lines.SETTLED_SECONDS", -1000.0)
    first = LineFile(path, cache)
    monkeypatch.setattr(LineFile, "_scan", None)

    again = LineFile(path, cache)

    assert (again.sha256, len(again)) == (first.sha256, 1)


def test_a_damaged_index_is_made_again(tmp_path, monkeypatch):
    path, cache = written(tmp_path, "a.tsv", "one\tuno\ntwo\tdos\n"), tmp_path / "cache"
    monkeypatch.setattr("etude.data.files.lines.SETTLED_SECONDS", -1000.0)
    open_pairs(path, cache=cache)
    for file in [*(cache / "lines").iterdir(), *(cache / "files").iterdir()]:
        file.write_bytes(b"\xff{nonsense")

    assert pairs_of(open_pairs(path, cache=cache)) == [("one", "uno"), ("two", "dos")]


def test_the_same_content_has_the_same_fingerprint_wherever_it_lies(tmp_path):
    one, other = (written(tmp_path, name, "a\tb\n") for name in ("one.tsv", "other.tsv"))
    names = written(tmp_path, "names.tsv", "source\ttarget\na\tb\n")

    assert open_pairs(one).fingerprint() == open_pairs(other).fingerprint() != open_pairs(names).fingerprint()


def test_a_source_opens_again_from_its_recipe(tmp_path):
    table = written(tmp_path, "a.tsv", "x\ty\nb\ta\n")
    split = AlignedFiles(source=written(tmp_path, "a.en", "one\n"), target=written(tmp_path, "a.de", "eins\n"))
    for source in (open_pairs(table, source="y", target="x"), open_pairs([table, table]), open_pairs(split)):
        assert open_again(source.recipe).fingerprint() == source.fingerprint()


def test_a_generated_corpus_is_opened_by_its_name_and_the_split(tmp_path, monkeypatch):
    def generate(name, folder, *, notice):
        notice(f"generating {name}")
        folder.mkdir(parents=True)
        return {
            split: written(folder, f"{split}.tsv", f"source\ttarget\n{split}\t{name}\n") for split in ("train", "val")
        }

    monkeypatch.setattr("etude.data.corpora.generate", generate)
    heard = []

    source = open_pairs("numbers", key="data.val", source="en", cache=tmp_path / "cache", notice=heard.append)

    assert source[0] == ("val", "numbers")
    assert heard == ["generating numbers"]
    with pytest.raises(DataError, match="needs a cache folder"):
        open_pairs("numbers")


def test_pairs_in_memory_are_a_source_too():
    source = ListedPairs([("a", "b"), ("c", " ")], "numbers")

    assert source[0] == ("a", "b")
    assert list(source.rows(1, 2)) == [Flaw("the target is empty", "target")]
    assert source.location(1) == "numbers, line 2"


def test_a_line_longer_than_a_block_is_read_whole_and_an_endless_one_is_a_flaw(tmp_path):
    long = "x" * (9 << 20)
    assert len(long) > BLOCK_BYTES
    path = written(tmp_path, "long.tsv", f"a\tb\n{long}\tc\n{long + long}\td\ne\tf\n")

    rows = list(open_pairs(path).rows(0, 4))

    assert rows[1] == (long, "c")
    assert rows[2] == Flaw("the line is longer than 16 MiB")
    assert rows[3] == ("e", "f")


def test_real_pairs_are_all_good(multi30k):
    split = AlignedFiles(source=multi30k / "train.en", target=multi30k / "train.de")

    source = open_pairs(split)

    assert len(source) == 29_000
    assert source[13].target == (multi30k / "train.de").read_text(encoding="utf-8").split("\n")[13]
    assert not any(isinstance(row, Flaw) for row in source.rows(0, len(source)))
