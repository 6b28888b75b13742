"""Mistakes in the data: each is one line with file, line and reason, exit code 3, before anything is trained."""

import json

import pytest
from mistaken import PAIRS, Mistake, check, config, write

SKIP = {"data": 'on_bad_sample = "skip"\nmax_skipped = 1'}


def table(name, content, *says, **more):
    """A table of pairs that cannot be used."""
    return Mistake(name, ("train.tsv", *says), code=3, files={"train.tsv": content}, **more)


def objects(name, line, *says):
    """JSON lines, the second of which cannot be used."""
    text = json.dumps({"source": "one", "target": "ONE"}) + "\n" + line + "\n"
    edit = {"data": 'train = "train.jsonl"'}
    return Mistake(name, ("train.jsonl, line 2", *says), code=3, edit=edit, files={"train.jsonl": text})


def aligned(name, source, target, *says):
    """Two files that do not belong together."""
    edit = {"data": 'train = { source = "train.en", target = "train.de" }'}
    return Mistake(name, says, code=3, edit=edit, files={"train.en": source, "train.de": target})


def named(name, value, *says, code=3, **files):
    """A name of data that leads nowhere."""
    line = f"train = {value}"
    return Mistake(name, ("data.train", *says), code=code, edit={"data": line}, at=line, **files)


TABLES = [
    table("an empty file", "", "is empty"),
    table("only a header", "source\ttarget\n", "no rows"),
    table("a ragged row", PAIRS + "six\n", "line 7", "1 column", "2 columns are needed"),
    table("a blank line", PAIRS + "\nsix\tSIX\n", "line 7", "no text"),
    table("an empty source", PAIRS + "\tSIX\n", "line 7", "the source is empty"),
    table("an empty target", PAIRS + "six\t \n", "line 7", "the target is empty"),
    table(
        "a column that is missing", "english\tgerman\tspanish\na\tb\tc\n", "line 1", 'no column "source"', '"english"'
    ),
    table("a column twice", "source\ttarget\tsource\na\tb\tc\n", "line 1", "two columns"),
    table("commas for tabs", "source,target\none,ONE\n", "line 1", 'no column "source"'),
    table("Latin-1", PAIRS.encode() + b"caf\xe9\tx\n", "line 7", "UTF-8", "0xe9"),
    table("UTF-16", PAIRS.encode("utf-16"), "line 1", "UTF-8"),
    table("a long sentence", PAIRS + "sixteen\tS\n", "line 7", "max_length", edit={"data": "max_length = 6"}),
    table(
        "a sentence over the budget", PAIRS, "line 4", "batch_tokens", edit={"train": "batch_size\nbatch_tokens = 5"}
    ),
    table(
        "more than there are positions",
        PAIRS,
        "line 4",
        "max_positions = 3",
        edit={"model": 'positions = "learned"\nmax_positions = 3'},
    ),
    table("too many skipped", "source\ttarget\n" + "x\n" * 2 + "a\tb\n", "max_skipped", edit=SKIP),
    table("all of it skipped", "source\ttarget\nx\n", "train.tsv", edit=SKIP),
    table("gzip", b"\x1f\x8b\x08\x00\x00\x00", "line 1", "UTF-8"),
    Mistake("an empty validation file", ("val.tsv is empty",), code=3, files={"val.tsv": ""}),
    Mistake("a ragged row of validation", ("val.tsv, line 7",), code=3, files={"val.tsv": PAIRS + "six\n"}),
]

OBJECTS = [
    objects("no JSON", "{", "invalid JSON"),
    objects("no object", '["one", "ONE"]', "not a JSON object"),
    objects("a field that is missing", '{"source": "two"}', 'no field "target"'),
    objects("a field that is a number", '{"source": 2, "target": "TWO"}', 'the field "source" is not a string'),
    objects("a field that is empty", '{"source": "", "target": "TWO"}', "the source is empty"),
    objects("half a surrogate pair", '{"source": "\\ud800", "target": "TWO"}', "surrogate"),
    aligned("a line too few", "one\ntwo\n", "ONE\n", "train.en has 2 lines", "train.de has 1"),
    aligned("an empty line of one side", "one\ntwo\n", "ONE\n\n", "train.de, line 2", "the target is empty"),
    aligned("no file of one side", "one\n", None, "data.train", "train.de, which does not exist"),
]

NAMES = [
    named("a missing file", '"nowhere.tsv"', "nowhere.tsv, which does not exist"),
    named("a missing file of a list", '["train.tsv", "more.tsv"]', "more.tsv, which does not exist"),
    named("an unknown corpus", '"numbrs"', "numbrs, which does not exist", "numbers"),
    named("a side too few", '{ source = ["train.tsv", "val.tsv"], target = "val.tsv" }', "as many", "2 and 1"),
    Mistake(
        "a folder",
        ("folder.tsv must be a file", "a folder"),
        code=3,
        edit={"data": 'train = "folder.tsv"'},
        files={"folder.tsv/a.tsv": PAIRS},
    ),
    Mistake(
        "an unknown kind",
        ("train.doc must be a table", ".tsv"),
        code=3,
        edit={"data": 'train = "train.doc"'},
        files={"train.doc": PAIRS},
    ),
    Mistake("no kind", ("train must be a table",), code=3, edit={"data": 'train = "train"'}, files={"train": PAIRS}),
    Mistake(
        "a column by number that is not there",
        ("train.tsv, line 1", "9 columns are needed"),
        code=3,
        edit={"data": "source = 1\ntarget = 9"},
    ),
    Mistake(
        "a column by another name",
        ("train.tsv, line 1", 'no column "english"'),
        code=3,
        edit={"data": 'source = "english"'},
    ),
    Mistake(
        "a missing file on the command line",
        ("data.train names", "gone.tsv", "--data.train on the command line"),
        code=3,
        words=("train", "translate.toml", "--data.train", "gone.tsv"),
    ),
    Mistake(
        "a missing tokenizer",
        ("tokenizer", "pieces.json"),
        code=3,
        edit={"tokenizer": 'type = "file"\npath = "pieces.json"'},
    ),
    Mistake(
        "a tokenizer that is none",
        ("pieces.json", "tokenizer"),
        code=3,
        edit={"tokenizer": 'type = "file"\npath = "pieces.json"'},
        files={"pieces.json": "{}"},
    ),
]


@pytest.mark.parametrize("mistake", TABLES + OBJECTS + NAMES, ids=str)
def test_a_mistake_in_the_data_is_one_line_that_names_file_line_and_reason(mistake, home, capsys):
    write(home, {"translate.toml": config(mistake.edit)} | dict(mistake.files))

    check(mistake, capsys)

    assert not list(home.glob("runs/*/checkpoints/step-*"))
