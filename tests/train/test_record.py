"""`metrics.jsonl`: what others may do to it while a run writes it, and what it may be."""

import errno
import json
import os
import shutil

import pytest

from etude.base.errors import StorageError
from etude.train.watch.record import METRICS, Record, read_rows


def row(step):
    return {"step": step, "epoch": 0.5, "tokens": 3, "train/loss": 1 / (step + 1), "val/x": None, "ü": "ж"}


@pytest.fixture
def said():
    return []


@pytest.fixture
def record(tmp_path, said):
    made = Record(tmp_path, complain=said.append)
    made.open(cut=0)
    for step in range(3):
        made.write(row(step))
    yield made
    made.close()


def truncate_whole(path):
    os.truncate(path, 0)


def truncate_in_a_line(path):
    os.truncate(path, path.stat().st_size - 7)


def replace_by_another(path):
    other = path.with_name("other")
    other.write_text('{"step": 77}\n' * 50)
    other.replace(path)


def replace_by_its_copy(path):
    shutil.copy(path, path.with_name("other"))
    path.with_name("other").replace(path)


def overwrite_by_longer(path):
    path.write_text('{"step": 77}\n' * 50)


def replace_by_a_link(path):
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


DAMAGES = {
    os.remove: "removed",
    truncate_whole: "cut short",
    truncate_in_a_line: "cut short",
    replace_by_another: "replaced",
    replace_by_its_copy: "replaced",
    overwrite_by_longer: "changed",
    replace_by_a_link: "replaced",
}


@pytest.mark.parametrize(("damage", "word"), DAMAGES.items(), ids=lambda one: getattr(one, "__name__", one))
def test_rows_that_somebody_takes_away_are_written_anew(tmp_path, record, said, damage, word):
    damage(tmp_path / METRICS)
    record.write(row(3))
    size = record.size()
    record.write(row(4))

    path = tmp_path / METRICS
    assert said == [f"{path} was {word} while the run wrote it: the 4 rows of the run are written anew."]
    assert [json.loads(line) for line in path.read_bytes().splitlines()] == [row(step) for step in range(5)]
    assert not path.is_symlink()
    assert size == sum(len(json.dumps(row(step), ensure_ascii=False).encode()) + 1 for step in range(4))


def test_rows_that_others_append_are_kept(tmp_path, record, said):
    beside = Record(tmp_path, complain=said.append)
    beside.open(cut=None)
    beside.write({"step": 2, "test/loss": 1.5})
    beside.close()
    record.write(row(3))

    assert [found.get("test/loss") for found in read_rows(tmp_path / METRICS)] == [None, None, None, 1.5, None]
    assert said == []


def test_rows_taken_away_while_nothing_can_be_written_wait(tmp_path, record, said, monkeypatch):
    (tmp_path / METRICS).unlink()
    with monkeypatch.context() as full:
        full.setattr(os, "fsync", failing)
        record.write(row(3))
    record.write(row(4))

    assert len(said) == 2
    assert "its rows stay in memory until they can be written" in said[0]
    assert "the 5 rows of the run are written anew" in said[1]
    assert read_rows(tmp_path / METRICS) == [row(step) for step in range(5)]


def failing(*_):
    raise OSError(errno.ENOSPC, "full")


def as_fifo(path):
    os.mkfifo(path)


def as_link_to_full(path):
    path.symlink_to("/dev/full")


def as_link_to_a_file(path):
    path.with_name("victim").write_text("keep me\n")
    path.symlink_to("victim")


@pytest.mark.parametrize("make", [as_fifo, as_link_to_full, as_link_to_a_file, os.mkdir])
def test_what_is_no_file_of_rows_is_refused_and_left_alone(tmp_path, make):
    make(tmp_path / METRICS)

    with pytest.raises(StorageError, match=f"Cannot write .*{METRICS}: it must be a regular file, but is a "):
        Record(tmp_path).open(cut=0)

    if (tmp_path / "victim").exists():
        assert (tmp_path / "victim").read_text() == "keep me\n"


def test_reading_rows_never_waits_and_never_ends_in_anything_but_a_sentence(tmp_path):
    as_fifo(tmp_path / "fifo")
    (tmp_path / "zero").symlink_to("/dev/zero")

    for name in ("fifo", "zero"):
        with pytest.raises(StorageError, match="must be a regular file"):
            read_rows(tmp_path / name)
    assert read_rows(tmp_path / "none") == []


def test_rows_changed_between_two_starts_are_told_of(tmp_path, record):
    mark = record.mark()
    record.write(row(3))
    record.close()
    path, said = tmp_path / METRICS, []

    for changed in (False, True):
        if changed:
            path.write_bytes(path.read_bytes().replace(b'"tokens": 3', b'"tokens": 4', 1))
        again = Record(tmp_path, complain=said.append)
        again.open(cut=mark.bytes, mark=mark)
        again.close()
        assert said == ([f"{path} was changed: its rows are not those that the checkpoint counts."] if changed else [])
