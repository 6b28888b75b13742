"""What may change between two starts of a run."""

import json

import pytest

from etude.app.runs.changes import Change, judged, machine_notes
from etude.base.config.meaning import meaning_of
from etude.base.errors import RefusedError
from etude.tasks.config import any_config

NOW = {"hardware": {"threads": 2, "processor": "A"}, "versions": {"torch": "2.13.0"}}


def change(key, old, new):
    return Change(key, old, new, meaning_of(any_config(), key))


def test_a_longer_run_is_noted_and_another_model_refused():
    longer = change("train.max_duration", "3 epochs", "4 epochs")

    assert judged([longer], "x", "y") == ['train.max_duration is now "4 epochs" (it was "3 epochs").']
    with pytest.raises(RefusedError, match=r"begun: model.heads was 4 and is 8\. Do this\."):
        judged([longer, change("model.heads", 4, 8)], "begun", "Do this.")


def test_a_key_that_only_begins_like_a_harmless_one_is_not_harmless():
    with pytest.raises(RefusedError):
        judged([change("train.patiences", 1, 2)], "x", "y")
    assert judged([change("log.progress", True, False)], "x", "y") == ["log.progress is now false (it was true)."]


def test_another_number_of_threads_is_told(tmp_path):
    path = tmp_path / "environment.json"
    path.write_text(json.dumps({**NOW, "hardware": {"threads": 1, "processor": "A"}}))

    notes = machine_notes(path, NOW)

    assert len(notes) == 1
    assert "threads (1, now 2)" in notes[0]


def test_a_new_or_damaged_folder_has_nothing_to_tell(tmp_path):
    (tmp_path / "bad.json").write_text("{")

    assert machine_notes(tmp_path / "none.json", NOW) == machine_notes(tmp_path / "bad.json", NOW) == []
