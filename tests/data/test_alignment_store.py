"""Laws of stored alignments: what was written is read by id, and nothing is believed that does not fit."""

import json
import math
import pickle
import sys
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from etude.base.errors import ConfigError, DataError, StorageError
from etude.base.hashes import read_sealed, write_sealed
from etude.data.store import alignments
from etude.data.store.alignment_writer import GROUP_ROWS, Aligned, write_alignments
from etude.data.store.alignments import NOWHERE, AlignmentFacts, open_alignments
from etude.model.alignment.result import NOWHERE as BEYOND

FACTS = AlignmentFacts("ctc", 0, "labels-of-a", 0.01, 4, model="best-of-ctc", data="corpus")
SHARDS = [["a", "b", "c"], ["d"], ["e", "f"]]
CLASSES = {"a": [0, 1, 1], "b": [2], "c": [0, 0, 3, 0], "d": [1, 2], "e": [], "f": [5, 0]}
LENGTHS = {name: len(classes) for name, classes in CLASSES.items() if classes}


class Aligner:
    """Aligns what it is asked to, and remembers what that was; it is killed before the shard that it is told to be."""

    def __init__(self, killed_at=None):
        self.asked = []
        self.killed_at = killed_at

    def __call__(self, sequences):
        if len(self.asked) == self.killed_at:
            raise KeyboardInterrupt
        self.asked.append(list(sequences))
        for name in sequences:
            classes = CLASSES[name]
            yield Aligned(name, classes, -0.5 * len(classes) if classes else -math.inf)


def written(folder, shards=SHARDS, facts=FACTS):
    aligner = Aligner()
    write_alignments(folder, facts, shards, aligner)
    return aligner.asked


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.fixture
def folder(tmp_path):
    written(tmp_path / "align")
    return tmp_path / "align"


def test_what_was_written_is_read_by_id_in_any_order(folder):
    found = open_alignments(folder, FACTS)

    assert list(found) == ["a", "b", "c", "d", "e", "f"]
    for name in "fbdaec":
        assert found[name].tolist() == CLASSES[name]
        assert found.score(name) == (-0.5 * len(CLASSES[name]) if CLASSES[name] else -math.inf)


def test_any_reader_of_parquet_finds_the_rows_and_the_manifest_says_what_they_are(folder):
    rows = [row for path in sorted(folder.glob("*.parquet")) for row in pq.read_table(path).to_pylist()]
    manifest = json.loads((folder / "manifest.json").read_text())

    assert [row["id"] for row in rows] == list("abcdef")
    assert {row["id"]: row["classes"] for row in rows} == CLASSES
    assert (manifest["complete"], manifest["sequences"]) == (True, 6)
    assert manifest["facts"] == {
        "topology": "ctc",
        "blank": 0,
        "labels": "labels-of-a",
        "frame_seconds": 0.01,
        "subsampling": 4,
        "model": "best-of-ctc",
        "data": "corpus",
    }


@pytest.mark.parametrize("killed_at", [0, 1, 2])
def test_an_interrupted_alignment_goes_on_by_shard_and_ends_in_the_same_bytes(tmp_path, folder, killed_at):
    broken = tmp_path / "broken"
    with pytest.raises(KeyboardInterrupt):
        write_alignments(broken, FACTS, SHARDS, Aligner(killed_at))
    with pytest.raises(DataError, match=f"not complete: {killed_at} of 3 shards are there"):
        open_alignments(broken, FACTS)
    told = []

    aligner = Aligner()
    write_alignments(broken, FACTS, SHARDS, aligner, say=told.append)

    assert aligner.asked == SHARDS[killed_at:]
    assert contents(broken) == contents(folder)
    assert told == ([f"{killed_at} of 3 shards of alignments are there already."] if killed_at else [])


def test_what_is_whole_is_not_aligned_again(folder):
    before = contents(folder)

    assert written(folder) == []
    assert contents(folder) == before


def test_a_damaged_shard_is_refused_and_then_made_anew(folder):
    before, path = contents(folder), folder / "shard-00001.parquet"
    path.write_bytes(path.read_bytes()[:-1] + b"?")

    with pytest.raises(DataError, match=r"shard-00001\.parquet is damaged or missing"):
        open_alignments(folder, FACTS)
    assert written(folder) == [["d"]]
    assert contents(folder) == before


@pytest.mark.parametrize(
    "shards", [[["a", "b"], ["c", "d"], ["e", "f"]], [["a", "c", "b"], ["d"], ["e", "f"]], [["a", "b", "c"]]]
)
def test_shards_of_other_sequences_are_replaced(folder, shards):
    asked = written(folder, shards)

    assert asked == [shard for at, shard in enumerate(shards) if at >= 3 or shard != SHARDS[at]]
    assert len(list(folder.glob("*.parquet"))) == len(shards)
    found = open_alignments(folder, FACTS)
    assert {name: found[name].tolist() for name in found} == {name: CLASSES[name] for one in shards for name in one}


def test_alignments_of_another_model_are_replaced(folder):
    other = replace(FACTS, model="last-of-ctc")

    assert written(folder, facts=other) == SHARDS
    assert len(open_alignments(folder, other)) == 6


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"topology": "hmm"}, "topology is 'ctc', but must be 'hmm'"),
        ({"blank": 5}, "blank is 0, but must be 5"),
        ({"blank": None}, "blank is 0, but must be None"),
        ({"labels": "others"}, "labels is 'labels-of-a', but must be 'others'"),
        ({"frame_seconds": 0.02}, r"frame_seconds is 0\.01, but must be 0\.02"),
        ({"subsampling": 2}, "subsampling is 4, but must be 2"),
        ({"model": "other"}, "model is 'best-of-ctc', but must be 'other'"),
        ({"data": "other", "subsampling": 1}, "subsampling is 4, but must be 1; data is 'corpus', but must be 'other'"),
    ],
)
def test_alignments_of_something_else_are_refused(folder, changed, said):
    with pytest.raises(DataError, match=said):
        open_alignments(folder, replace(FACTS, **changed))


def test_who_does_not_ask_for_a_model_takes_any(folder):
    assert len(open_alignments(folder, replace(FACTS, model="", data=""))) == 6


def test_sequences_join_by_id_whatever_their_order_and_number(folder):
    found = open_alignments(folder, FACTS, {"f": 2, "a": 3})

    assert found.missing == {}
    assert found.padded(["f", "a"], 4).tolist() == [[5, 0, NOWHERE, NOWHERE], [0, 1, 1, NOWHERE]]
    assert NOWHERE == BEYOND


WRONG = {**LENGTHS, "c": 5, "z": 2, "e": 0}


def test_missing_and_wrong_sequences_are_named_counted_and_refused(folder):
    with pytest.raises(DataError) as refused:
        open_alignments(folder, FACTS, WRONG, max_missing=2)

    assert str(refused.value) == (
        '3 of 7 sequences have no alignment that fits: "c" has 4 frames, but must have 5; "z" is missing; '
        '"e" has no path. max_missing allows 2: align again, or allow more.'
    )


def test_as_many_as_are_allowed_are_left_out_and_told_of(folder):
    told = []

    found = open_alignments(folder, FACTS, WRONG, max_missing=3, say=told.append)

    assert told[0].startswith("3 of 7 sequences have no alignment that fits: ")
    assert [name in found for name in "abcdezq"] == [True, True, False, True, False, False, False]
    assert found.padded(["c", "d", "z"], 2).tolist() == [[NOWHERE] * 2, [1, 2], [NOWHERE] * 2]
    with pytest.raises(DataError, match='no alignment of the sequence "c": it has 4 frames, but must have 5'):
        found["c"]
    with pytest.raises(DataError, match='no alignment of the sequence "q": it is missing'):
        found.score("q")


def test_a_message_names_some_of_many(folder):
    with pytest.raises(DataError, match=r'"x4" is missing, \.\.\.\. max_missing'):
        open_alignments(folder, FACTS, {f"x{n}": 1 for n in range(9)})


def test_a_sequence_longer_than_its_batch_is_refused(folder):
    with pytest.raises(DataError, match='alignment of "a" has 3 frames, more than the 2 of its batch'):
        open_alignments(folder, FACTS).padded(["a"], 2)


def test_many_rows_are_read_some_groups_at_a_time(tmp_path, monkeypatch):
    draw = np.random.default_rng(1)
    many = {f"u{n}": draw.integers(0, 9, draw.integers(1, 20)).tolist() for n in range(5 * GROUP_ROWS + 3)}
    names = list(many)
    shards = [names[:100], [], names[100:]]
    write_alignments(tmp_path, FACTS, shards, lambda ids: [Aligned(name, many[name], 0.0) for name in ids])
    monkeypatch.setattr(alignments, "KEPT_GROUPS", 2)

    found = open_alignments(tmp_path, FACTS, {name: len(classes) for name, classes in many.items()})

    for name in draw.permutation(names)[:40].tolist():
        assert found[name].tolist() == many[name]
        assert len(found._kept) <= 2
    assert pickle.loads(pickle.dumps(found))["u7"].tolist() == many["u7"]  # noqa: S301 - our own, for a worker


def test_no_sequences_at_all_are_complete(tmp_path):
    write_alignments(tmp_path / "align", FACTS, [], Aligner())

    assert list(open_alignments(tmp_path / "align", FACTS, {})) == []


@pytest.mark.parametrize("shards", [[["a", "a"]], [["a"], ["b", "a"]]])
def test_ids_that_come_twice_are_refused_before_anything_is_aligned(tmp_path, shards):
    aligner = Aligner()

    with pytest.raises(DataError, match='Two sequences have the id "a"'):
        write_alignments(tmp_path / "align", FACTS, shards, aligner)
    assert aligner.asked == []


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([Aligned("b", [1], 0.0)], "must have the alignments of"),
        ([], "must have the alignments of"),
        ([Aligned("a", [1, NOWHERE], 0.0)], 'alignment of "a" has a frame without a class'),
        ([Aligned("a", [1], math.nan)], "or a score that is no number"),
    ],
)
def test_what_is_no_alignment_is_not_written(tmp_path, rows, said):
    with pytest.raises(DataError, match=said):
        write_alignments(tmp_path / "align", FACTS, [["a"]], lambda _: rows)
    assert not list((tmp_path / "align").glob("*.parquet"))


def test_a_manifest_that_lies_or_is_none_is_refused(folder, tmp_path):
    path = folder / "manifest.json"
    manifest = read_sealed(path)

    write_sealed(path, {**manifest, "sequences": 7})
    with pytest.raises(DataError, match="holds 6 sequences, but says 7"):
        open_alignments(folder, FACTS)
    write_sealed(path, {**manifest, "format": 1})
    with pytest.raises(DataError, match="holds no alignments that this version of Etude reads"):
        open_alignments(folder, FACTS)
    path.write_text(path.read_text().replace('"sequences": 6', '"sequences": 5'))
    with pytest.raises(StorageError, match="is damaged"):
        open_alignments(folder, FACTS)
    with pytest.raises(StorageError, match="Cannot read"):
        open_alignments(tmp_path / "nowhere", FACTS)


def test_an_unknown_topology_is_refused():
    with pytest.raises(ConfigError, match=r'must be one of .* but is "hybrid"'):
        replace(FACTS, topology="hybrid")


def test_without_pyarrow_it_is_said_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)

    with pytest.raises(ConfigError, match=r"run pip install 'etude\[outputs\]'"):
        write_alignments(tmp_path / "align", FACTS, SHARDS, Aligner())
