"""What is wrong with parallel text is said in one line, with file, line and reason."""

import os

import pytest

from etude.base.errors import DataError
from etude.data.files.names import AlignedFiles
from etude.data.files.parallel import BadSampleError, open_pairs
from etude.data.files.skipped import Allowance
from etude.tasks.translation.config import DataConfig

HEAD = b"source\ttarget\n"

BAD_LINES = [
    ("a.tsv", HEAD + b"a\tb\nc\xff\td\n", 3, "invalid UTF-8 (byte 0xff at position 2)"),
    ("a.tsv", HEAD + b"a\tb\n\xc3\n", 3, "invalid UTF-8 (byte 0xc3 at position 1)"),
    ("a.tsv", HEAD + b"a\tb\nc\n", 3, "the line has 1 column, but 2 columns are needed"),
    ("a.tsv", b"id\tsource\ttarget\n1\ta\n", 2, "the line has 2 columns, but 3 columns are needed"),
    ("a.tsv", HEAD + b"a\tb\n\n", 3, "the line has no text, but 2 columns are needed"),
    ("a.tsv", HEAD + b"a\t\n", 2, "the target is empty"),
    ("a.tsv", HEAD + b" \xc2\xa0\ta\n", 2, "the source is empty"),
    ("a.jsonl", b'{"source": "a", "target": "b"}\n{"source"\n', 2, "invalid JSON (Expecting ':' delimiter)"),
    ("a.jsonl", b"[" * 100_000, 1, "invalid JSON (nested too deeply or a number too long)"),
    ("a.jsonl", b'["a", "b"]\n', 1, "the line is not a JSON object"),
    ("a.jsonl", b'{"source": "a"}\n', 1, 'there is no field "target"'),
    ("a.jsonl", b'{"source": "a", "target": 3}\n', 1, 'the field "target" is not a string'),
    ("a.jsonl", b'{"source": null, "target": "a"}\n', 1, 'the field "source" is not a string'),
    ("a.jsonl", b'{"source": "\\ud800", "target": "a"}\n', 1, 'the field "source" holds half a surrogate pair'),
    ("a.jsonl", b"\n", 1, "invalid JSON (Expecting value)"),
]


@pytest.mark.parametrize(("name", "content", "line", "reason"), BAD_LINES)
def test_a_bad_line_is_named_with_its_file_number_and_reason(tmp_path, name, content, line, reason):
    path = tmp_path / name
    path.write_bytes(content)
    source = open_pairs(path)

    with pytest.raises(BadSampleError) as caught:
        [source[i] for i in range(len(source))]

    assert (caught.value.file, caught.value.line, caught.value.reason) == (str(path), line, reason)
    assert str(caught.value).startswith(f"{path}, line {line}: {reason}. ")
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 3


BAD_FILES = [
    ("empty.tsv", b"", "empty.tsv is empty."),
    ("names.tsv", HEAD, "names.tsv has a line of column names, but no rows."),
    ("one.tsv", b"only one column\n", 'one.tsv, line 1: there is no column "source"; the first line has'),
    ("three.tsv", b"a\tb\tc\n", 'three.tsv, line 1: there is no column "source"; the first line has "a", "b", "c".'),
    ("half.tsv", b"source\tGerman\na\tb\n", 'half.tsv, line 1: there is no column "target"'),
    ("twice.tsv", b"source\ttarget\tsource\na\tb\tc\n", 'twice.tsv, line 1: two columns are called "source".'),
    ("bytes.tsv", b"\xff\tb\n", "bytes.tsv, line 1: invalid UTF-8 (byte 0xff at position 1)."),
    ("control.tsv", b"\x1b[31m\ta\tb\n", 'the first line has "\\x1b[31m", "a", "b".'),
    ("text.csv", b"source,target\n", "text.csv has a line of column names, but no rows."),
    ("text.xlsx", b"PK", "text.xlsx is a spreadsheet: save it as .csv (in UTF-8) or .tsv, and give that."),
    ("text.doc", b"a", "text.doc must be a table (.tsv, .txt, .csv) or JSON lines"),
    (
        "wide.tsv",
        "source\ttarget\na\tb\n".encode("utf-16"),
        "wide.tsv, line 1: the text is in UTF-16: save it as UTF-8",
    ),
    ("bare.tsv", "source\ttarget\na\tb\n".encode("utf-16-le"), "bare.tsv, line 1: the text is in UTF-16"),
]


@pytest.mark.parametrize(("name", "content", "sentence"), BAD_FILES)
def test_a_file_that_holds_no_pairs_is_refused_in_a_sentence(tmp_path, name, content, sentence):
    (tmp_path / name).write_bytes(content)

    with pytest.raises(DataError) as caught:
        open_pairs(tmp_path / name)

    assert sentence in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("columns", [{"source": "en", "target": "de"}, {"source": "source", "target": "de"}])
def test_columns_that_were_named_and_are_not_there_are_never_guessed(tmp_path, columns):
    (tmp_path / "a.tsv").write_text("one\tuno\n")

    with pytest.raises(DataError, match=r'there is no column "(en|source)"'):
        open_pairs(tmp_path / "a.tsv", **columns)


def test_a_missing_file_a_folder_and_a_stream_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.tsv")
    (tmp_path / "folder.tsv").mkdir()

    for name, sentence in [
        ("gone.tsv", "does not exist"),
        ("gone.csv", "does not exist"),
        ("folder.tsv", "must be a file, but is a folder"),
        ("pipe.tsv", "must be a file, but is a stream"),
    ]:
        with pytest.raises(DataError, match=sentence):
            open_pairs(tmp_path / name)


def test_aligned_files_of_different_lengths_are_refused_with_both_counts(tmp_path):
    (tmp_path / "a.en").write_text("one\ntwo\nthree\n")
    (tmp_path / "a.de").write_text("eins\n")

    with pytest.raises(DataError, match=r"a.en has 3 lines, but .*a.de has 1; aligned files must have as many."):
        open_pairs(AlignedFiles(source=tmp_path / "a.en", target=tmp_path / "a.de"))


def test_a_flaw_on_the_target_side_names_the_target_file(tmp_path):
    (tmp_path / "a.en").write_text("one\ntwo\n")
    (tmp_path / "a.de").write_text("eins\n\n")
    source = open_pairs(AlignedFiles(source=tmp_path / "a.en", target=tmp_path / "a.de"))

    with pytest.raises(BadSampleError, match=r"a.de, line 2: the target is empty"):
        source[1]


def test_as_many_source_as_target_files_are_needed(tmp_path):
    split = AlignedFiles(source=(tmp_path / "a", tmp_path / "b"), target=tmp_path / "c")

    with pytest.raises(DataError, match=r"data.val must name as many .* has 2 and 1"):
        open_pairs(split, key="data.val")


def test_a_number_is_no_field_of_json(tmp_path):
    (tmp_path / "a.jsonl").write_text("{}\n")

    with pytest.raises(DataError, match=r"data.source must name a field"):
        open_pairs(tmp_path / "a.jsonl", source=1, target=2)


@pytest.mark.parametrize(
    ("text", "samples", "allowed"), [("1%", 250, 2), ("0.5 %", 1000, 5), ("0%", 10, 0), (7, 10, 7), ("7", 10, 7)]
)
def test_an_allowance_is_a_share_or_a_number(text, samples, allowed):
    assert Allowance.parse(text).of(samples) == allowed


@pytest.mark.parametrize("text", ["", "one", "-1", "101%", "1.5", "1%%", True, "%"])
def test_what_is_no_allowance_is_refused(text):
    with pytest.raises(ValueError, match="must be"):
        Allowance.parse(text)


def test_the_section_reads_every_way_of_naming_data(tmp_path):
    config = DataConfig(
        train=["a.tsv", str(tmp_path / "b.tsv")],
        val={"source": "x.en", "target": ["x.de"]},
        test=str(tmp_path / "t.tsv"),
    )

    assert DataConfig.model_validate(config.model_dump()) == config
    assert config.train[1] == tmp_path / "b.tsv"
    assert config.test == tmp_path / "t.tsv"
