"""The numbers of a column of difficulty."""

import json

import pytest

from etude.base.errors import DataError
from etude.data.files.parallel import open_pairs
from etude.data.files.skipped import Policy
from etude.data.store.difficulty import difficulties
from etude.data.store.pairs import prepare_pairs
from etude.data.tokens.config import ByteConfig
from etude.data.tokens.tokenizers import Tokenizer
from etude.data.tokens.training import train_tokenizer

BYTES: dict[str, Tokenizer] = dict.fromkeys(("source", "target"), train_tokenizer(ByteConfig(), ()))
LEAVE_OUT = Policy(on_bad_sample="skip", max_skipped=5)


def read(path, content, *, column="hard", policy=LEAVE_OUT, also=()):
    path.write_text(content, encoding="utf-8")
    source = open_pairs((path, *also) if also else path, cache=path.parent / "cache")
    table = prepare_pairs(source, BYTES, path.parent / "cache", policy)
    return difficulties(source, column, table, path.parent / "cache")


TABLE = "source\ttarget\thard\na\tb\t1\nc\td\t-0.25\ne\tf\t 2e3 \n"


def test_a_column_of_a_table_is_a_number_a_row(tmp_path):
    assert read(tmp_path / "t.tsv", TABLE).tolist() == [1.0, -0.25, 2000.0]
    assert read(tmp_path / "t.tsv", TABLE, column=3).tolist() == [1.0, -0.25, 2000.0]


def test_a_field_of_json_lines_is_a_number_or_text_of_one(tmp_path):
    rows = [{"source": "a", "target": "b", "hard": hard} for hard in (1, 0.5, "7")]

    assert read(tmp_path / "t.jsonl", "".join(json.dumps(row) + "\n" for row in rows)).tolist() == [1.0, 0.5, 7.0]


def test_samples_that_are_left_out_need_no_number(tmp_path):
    content = "source\ttarget\thard\na\tb\t1\n\tempty\tx\nno columns\nc\td\t2\n"

    assert read(tmp_path / "t.tsv", content).tolist() == [1.0, 2.0]


def test_files_one_after_the_other_have_their_numbers_one_after_the_other(tmp_path):
    more = tmp_path / "more.tsv"
    more.write_text("hard\tsource\ttarget\n9\tx\ty\n", encoding="utf-8")

    assert read(tmp_path / "t.tsv", TABLE, also=(more,)).tolist() == [1.0, -0.25, 2000.0, 9.0]


@pytest.mark.parametrize("cell", ["", "hard", "nan", "inf", "1,5"])
def test_what_is_no_number_is_named_with_its_line(cell, tmp_path):
    with pytest.raises(DataError, match=r"t\.tsv, line 3: data\.difficulty is hard, which must be a number"):
        read(tmp_path / "t.tsv", f"source\ttarget\thard\na\tb\t1\nc\td\t{cell}\n")


@pytest.mark.parametrize(("row", "said"), [({}, 'no field "hard"'), ({"hard": True}, "True"), ({"hard": None}, "None")])
def test_json_that_holds_no_number_is_named_with_its_line(row, said, tmp_path):
    content = json.dumps({"source": "a", "target": "b", **row}) + "\n"

    with pytest.raises(DataError, match=rf"t\.jsonl, line 1: .*{said}"):
        read(tmp_path / "t.jsonl", content)


def test_a_column_that_is_not_there_is_said_with_those_that_are(tmp_path):
    with pytest.raises(DataError, match=r'no column "heavy"; its first line has "source", "target", "hard"'):
        read(tmp_path / "t.tsv", TABLE, column="heavy")


def test_aligned_files_have_no_columns(tmp_path):
    (tmp_path / "a").write_text("x\n")
    (tmp_path / "b").write_text("y\n")
    from etude.data.files.names import AlignedFiles

    source = open_pairs(AlignedFiles(source=tmp_path / "a", target=tmp_path / "b"), cache=tmp_path)
    table = prepare_pairs(source, BYTES, tmp_path)

    with pytest.raises(DataError, match="has no column"):
        difficulties(source, "hard", table, tmp_path)


def test_the_numbers_are_read_once_and_again_where_the_file_changed(tmp_path):
    first = read(tmp_path / "t.tsv", TABLE)
    stored = list((tmp_path / "cache" / "difficulty").iterdir())
    written = stored[0].stat().st_mtime_ns

    again = read(tmp_path / "t.tsv", TABLE)
    changed = read(tmp_path / "t.tsv", TABLE.replace("-0.25", "-0.5"))

    assert first.tolist() == again.tolist()
    assert stored[0].stat().st_mtime_ns == written
    assert changed.tolist() == [1.0, -0.5, 2000.0]
