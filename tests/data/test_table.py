"""A prepared table gives back the rows of every kind of column, however they came, whole or not at all."""

import hashlib
import json
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.base.errors import DataError
from etude.data.files.lines import Flaw
from etude.data.files.skipped import BadSampleError, Policy
from etude.data.store.columns import Part, audio, frames, label, number, text, tokens
from etude.data.store.table import Chunk, Table, Wanted, prepare_table

COLUMNS = (
    tokens("ids", 300),
    audio("wave"),
    label("class"),
    number("score"),
    text("raw"),
    frames("features", width=3),
    frames("mask", dtype="bool"),
)
LEAVE_OUT = Policy(on_bad_sample="skip", max_skipped="100%")
FIXED = {"class", "score"}


class Samples:
    """Where the rows of these tests come from."""

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def place(self, index, side="source"):
        del side
        return "made", index + 1


def row_of(seed):
    draw = np.random.default_rng(seed)
    length = int(draw.integers(0, 5))
    return {
        "ids": draw.integers(0, 300, length).tolist(),
        "wave": draw.normal(size=2 * length).astype(np.float32),
        "class": int(draw.integers(0, 9)),
        "score": float(draw.normal()),
        "raw": "é" * length,
        "features": draw.normal(size=(length, 3)).astype(np.float32),
        "mask": draw.integers(0, 2, length).astype(bool),
    }


def part_of(column, rows):
    values = [row[column.name] for row in rows]
    if column.name == "raw":
        return Part.of_texts(values)
    return Part(np.array(values, dtype=column.dtype)) if column.name in FIXED else Part.of(column, values)


def chunk_of(rows, flaws=()):
    return Chunk([part_of(column, rows) for column in COLUMNS], list(flaws))


def prepared(cache, chunks, count, policy=LEAVE_OUT, key="k" * 64, heard=None):
    wanted = Wanted(key, COLUMNS, Samples(count), policy)
    return prepare_table(
        "made", wanted, cache, lambda: (chunk for chunk in chunks), notice=[].append if heard is None else heard.append
    )


def content_of(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@settings(max_examples=20, deadline=None)
@given(sizes=st.lists(st.integers(0, 4), min_size=1, max_size=5), picked=st.lists(st.integers(0, 99), max_size=9))
def test_rows_come_back_in_any_order_however_they_came_in_chunks(tmp_path_factory, sizes, picked):
    rows = [row_of(seed) for seed in range(max(1, sum(sizes)))]
    ends = np.cumsum([0, *sizes]).tolist()
    parts = [rows[begin:end] for begin, end in zip(ends, [*ends[1:], len(rows)], strict=True)]
    folder = tmp_path_factory.mktemp("table")

    table = prepared(folder / "parts", [chunk_of(part) for part in parts], len(rows))

    whole = prepared(folder / "whole", [chunk_of(rows)], len(rows))
    assert content_of(table.folder) == content_of(whole.folder)
    chosen = np.array([place % len(rows) for place in picked], dtype=np.int64)
    assert table.texts("raw", chosen) == [rows[n]["raw"] for n in chosen]
    for name in FIXED:
        assert table.values(name, chosen).tolist() == [rows[n][name] for n in chosen]
    for name in ("ids", "wave", "features", "mask"):
        values, lengths = table.gather(name, chosen)
        taken = np.split(values, np.cumsum(lengths)[:-1]) if len(chosen) else []
        assert [part.ravel().tolist() for part in taken] == [np.asarray(rows[n][name]).ravel().tolist() for n in chosen]


def test_a_width_is_a_second_dimension_and_lengths_count_places(tmp_path):
    rows = [row_of(seed) for seed in range(8)]

    table = prepared(tmp_path, [chunk_of(rows)], 8)

    values, lengths = table.gather("features", np.arange(8))
    assert values.shape == (lengths.sum(), 3)
    assert table.lengths("features").tolist() == table.lengths("ids").tolist() == [len(row["ids"]) for row in rows]
    assert table.total("features") == table.total("ids") == sum(len(row["ids"]) for row in rows)
    assert table.total("class") == sum(row["class"] for row in rows)


def test_what_is_left_out_is_listed_and_rows_know_their_samples(tmp_path):
    rows = [row_of(seed) for seed in range(3)]
    flaws = [(0, Flaw("too loud")), (2, Flaw("too long", "wave"))]

    table = prepared(tmp_path, [chunk_of(rows[:1], flaws), chunk_of(rows[1:])], 5)

    assert [(skip.sample, skip.side, skip.reason) for skip in table.skips()] == [
        (0, "source", "too loud"),
        (2, "wave", "too long"),
    ]
    assert [table.origin(row) for row in range(3)] == [1, 3, 4]
    assert (len(table), table.skipped, table.samples) == (3, 2, 5)


def test_a_flaw_ends_a_preparation_that_leaves_nothing_out(tmp_path):
    chunks = [chunk_of([row_of(1)]), chunk_of([], [(1, Flaw("too loud"))])]

    with pytest.raises(BadSampleError, match="made, line 2: too loud"):
        prepared(tmp_path, chunks, 2, Policy())
    with pytest.raises(DataError, match="1 of 2 samples in made cannot be used"):
        prepared(tmp_path, chunks, 2, Policy(on_bad_sample="skip", max_skipped=0))


def test_a_table_without_rows_is_refused(tmp_path):
    with pytest.raises(DataError, match="made holds no sample that can be used"):
        prepared(tmp_path, [], 0)


def test_the_manifest_names_size_and_hash_of_every_file(tmp_path):
    table = prepared(tmp_path, [chunk_of([row_of(seed) for seed in range(5)])], 5)

    files = json.loads((table.folder / "manifest.json").read_text())["files"]

    content = content_of(table.folder)
    del content["manifest.json"]
    assert {name: (len(held), hashlib.sha256(held).hexdigest()) for name, held in content.items()} == {
        name: (file["size"], file["sha256"]) for name, file in files.items()
    }


def test_another_process_maps_the_same_files(tmp_path):
    table = prepared(tmp_path, [chunk_of([row_of(seed) for seed in range(5)])], 5)

    again = pickle.loads(pickle.dumps(table))  # noqa: S301 - our own

    assert isinstance(again, Table)
    assert again.folder == table.folder
    assert again.columns == {column.name: column for column in COLUMNS}


def test_a_table_of_another_format_is_left_where_it_is(tmp_path, monkeypatch):
    rows = [row_of(seed) for seed in range(3)]
    monkeypatch.setattr("etude.data.store.table.FORMAT", 1)
    old = prepared(tmp_path, [chunk_of(rows)], 3)
    before = content_of(old.folder)
    monkeypatch.undo()
    heard = []

    new = prepared(tmp_path, [chunk_of(rows)], 3, heard=heard)

    assert new.folder != old.folder
    assert content_of(old.folder) == before
    assert heard == []
