"""Lists of labels in JSON lines, wherever labels are read."""

import json

import pytest

from etude.data.files.lines import LineFile
from etude.data.files.manifests import Columns, open_manifest
from etude.data.files.records import JsonRecords
from etude.data.store.targets import SeveralLabels, parts_of

LISTS = [["b", "a;c"], [], ["a;c"]]


@pytest.mark.parametrize(
    ("cell", "labels"),
    [
        ('["a;c", " b "]', ["a;c", "b"]),
        ("[]", []),
        ("[a];[b]", ["[a]", "[b]"]),
        ("[1, 2]", ["[1, 2]"]),
        ("a; b;", ["a", "b"]),
        (None, []),
    ],
)
def test_a_cell_lists_its_labels_as_json_or_between_separators(cell, labels):
    assert parts_of(cell, ";") == labels


def test_rows_and_recordings_hold_lists_as_json(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps({"path": "a.wav", "tags": one}) + "\n" for one in LISTS))

    rows = [row[1] for row in JsonRecords(LineFile(path)).rows(0, 3)]
    manifest = open_manifest(path, columns=Columns(text="path", further=("tags",)))
    recordings = [one.further[0] for one in manifest.rows(0, 3)]

    assert rows == recordings
    assert [parts_of(one, ";") for one in rows] == LISTS
    targets = SeveralLabels.learned(["tags"], ";", [[one] for one in rows], "data.jsonl")
    assert (targets.names, targets.counts) == (("a;c", "b"), (2, 1))
    assert [targets.encode([one]) for one in rows] == [[1, 1], [0, 0], [1, 0]]
