"""Which checkpoints are there at each time, and what a failing storage costs a run."""

import errno
import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from saves import content
from small_runs import Regression, loaders, rows, trainer, weights

import etude
from etude.base.errors import StorageError
from etude.train.memory.checkpoint import Store
from etude.train.memory.checkpoint import store as store_module
from etude.train.watch.record import Record, read_rows


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    merits=st.lists(st.none() | st.integers(0, 9), min_size=1, max_size=8),
    keep_last=st.integers(1, 3),
    keep_best=st.integers(1, 3),
)
def test_the_last_and_the_best_are_kept_and_no_other(merits, keep_last, keep_best, tmp_path_factory, quick_folder):
    store = Store(quick_folder / tmp_path_factory.mktemp("kept").name, keep_last=keep_last, keep_best=keep_best)
    store.prepare()
    ranking = {}
    there = set()
    for step, merit in enumerate(merits, start=1):
        best = merit is not None and all(merit < other for other in ranking.values())
        if merit is not None:
            ranking[step] = float(merit)
        store.save(content(step), best=best, ranking=ranking, wait=True)

        there.add(step)
        judged = sorted((s for s in there if s in ranking), key=lambda s: (ranking[s], s))
        there = set(sorted(there)[-keep_last:]) | set(judged[:keep_best])
        assert set(store.steps()) == there
        assert store.link("last") == store.path(step).resolve()
        if ranking:
            assert store.link("best") == store.path(min(ranking, key=lambda s: (ranking[s], s))).resolve()
    store.close()


class Getting(Regression):
    """Validates ever worse, so that its first checkpoint stays the best."""

    def validation_step(self, batch):
        return etude.Loss.mean(self.layers[0].weight.new_tensor(float(self.worse)), 1)

    worse = 0


class Worse(etude.Callback):
    def on_validation_end(self, run, metrics):
        Getting.worse += 1


def test_the_best_is_never_removed_however_old_it_gets(quick_folder):
    Getting.worse = 0
    trainer(quick_folder / "old", eval_every="1 step", max_duration="6 steps", callbacks=[Worse()]).fit(
        Getting(), *loaders()
    )

    names = sorted(path.name for path in (quick_folder / "old" / "checkpoints").iterdir())
    assert names == ["best", "last", "step-00000001", "step-00000005", "step-00000006"]
    assert (quick_folder / "old" / "checkpoints" / "best").readlink().name == "step-00000001"


@pytest.mark.parametrize("cut", [2, 7])
def test_a_longer_run_equals_a_straight_one(cut, quick_folder):
    straight, grown = quick_folder / f"straight {cut}", quick_folder / f"grown {cut}"
    trainer(straight, max_duration="12 steps").fit(Regression(), *loaders())
    for until in (cut, 12):
        trainer(grown, max_duration=f"{until} steps").fit(Regression(), *loaders())

    assert rows(grown) == rows(straight)
    assert weights(grown) == weights(straight)
    names = [sorted(path.name for path in (folder / "checkpoints").glob("step-*")) for folder in (grown, straight)]
    assert names[0][-2:] == names[1][-2:]


class FullDisk:
    """A disk that is full from one save to another."""

    def __init__(self, monkeypatch, failing):
        self.saves, self.failing = 0, failing
        real = store_module.Content.write_tensors

        def write(content, folder):
            self.saves += 1
            if self.saves in failing:
                (folder / "model.safetensors").write_bytes(b"half")
                raise OSError(errno.ENOSPC, "full")
            return real(content, folder)

        monkeypatch.setattr(store_module.Content, "write_tensors", write)


def test_two_failed_saves_are_told_of_and_training_goes_on(quick_folder, monkeypatch):
    said = []
    FullDisk(monkeypatch, failing={3, 4})
    trainer(quick_folder / "two", max_duration="8 steps", say=said.append).fit(Regression(), *loaders())
    trainer(quick_folder / "none", max_duration="8 steps").fit(Regression(), *loaders())

    told = [sentence for sentence in said if "Training continues and tries again at the next save" in sentence]
    assert len(told) == 2
    assert all("it needs" in sentence and "are free" in sentence for sentence in told)
    assert weights(quick_folder / "two") == weights(quick_folder / "none")


def test_three_failed_saves_in_a_row_end_the_run_and_leave_the_earlier_ones_whole(quick_folder, monkeypatch):
    FullDisk(monkeypatch, failing={3, 4, 5})

    with pytest.raises(StorageError, match=r"No space left on device; it needs [\d.,]+ \w+, .* are free") as caught:
        trainer(quick_folder / "three").fit(Regression(), *loaders())

    assert caught.value.exit_code == 5
    names = sorted(path.name for path in (quick_folder / "three" / "checkpoints").iterdir())
    assert names == ["last", "step-00000001", "step-00000002"] or "best" in names
    monkeypatch.undo()
    trainer(quick_folder / "three").fit(Regression(), *loaders())
    trainer(quick_folder / "straight").fit(Regression(), *loaders())
    assert rows(quick_folder / "three") == rows(quick_folder / "straight")
    assert weights(quick_folder / "three") == weights(quick_folder / "straight")


class Scarce:
    """A file that takes a few bytes of each write, and none while the disk is full."""

    def __init__(self, file):
        self.file, self.full = file, False

    def write(self, content):
        if self.full:
            raise OSError(errno.ENOSPC, "full")
        return self.file.write(bytes(content[:7]))

    def __getattr__(self, name):
        return getattr(self.file, name)


def test_rows_that_find_a_full_disk_wait_and_are_written_once(tmp_path):
    told = []
    record = Record(tmp_path, complain=told.append)
    record.open(cut=0)
    record._file._file = file = Scarce(record._file._file)
    for step in range(9):
        file.full = 3 <= step < 6
        record.write({"step": step, "train/loss": float(step)})
        if file.full:
            with pytest.raises(StorageError, match="No space left on device"):
                record.size()
    size = record.size()
    record.close()

    assert [row["step"] for row in read_rows(tmp_path / "metrics.jsonl")] == list(range(9))
    assert size == (tmp_path / "metrics.jsonl").stat().st_size
    assert len(told) == 1
    assert "rows stay in memory" in told[0]


def test_a_full_disk_of_rows_counts_as_failed_saves(quick_folder, monkeypatch):
    real = Record.size
    calls = []

    def size(record):
        calls.append(1)
        if 3 <= len(calls) < 5:
            raise StorageError("Cannot write metrics.jsonl: No space left on device.")
        return real(record)

    monkeypatch.setattr(Record, "size", size)
    said = []
    trainer(quick_folder / "rows", max_duration="8 steps", say=said.append).fit(Regression(), *loaders())

    assert sum("tries again at the next save" in sentence for sentence in said) == 2
    assert (quick_folder / "rows" / "checkpoints" / "last").readlink().name == "step-00000008"


def test_rows_and_files_are_durable_before_the_checkpoint_that_counts_them_is_published(quick_folder, monkeypatch):
    durable, published = {}, []
    fsync, publish = os.fsync, Store._publish

    def noting(handle):
        fsync(handle)
        durable[str(Path(f"/proc/self/fd/{handle}").readlink())] = os.fstat(handle).st_size

    def checking(store, partial, place):
        rows = json.loads((partial / "state.json").read_text())["record"]["bytes"]
        assert 0 < rows <= durable[str(quick_folder / "order" / "metrics.jsonl")]
        for file in partial.iterdir():
            assert durable[str(file)] == file.stat().st_size
        assert str(partial) in durable
        publish(store, partial, place)
        assert str(store.folder) in durable
        published.append(place.name)

    monkeypatch.setattr(os, "fsync", noting)
    monkeypatch.setattr(Store, "_publish", checking)
    trainer(quick_folder / "order", max_duration="4 steps").fit(Regression(), *loaders())

    assert len(published) == 4


@pytest.mark.parametrize("ending", [b'{"step": 3', b'{"step": 3}', b"\xff\xfe", b"[" * 99_999, b"7\n"])
def test_a_last_line_that_is_no_row_is_left_out(ending, tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n{"step": 2}\n' + ending)
    told = []
    record = Record(tmp_path, complain=told.append)
    record.open(cut=None)
    record.write({"step": 4})
    record.close()

    assert [row["step"] for row in read_rows(path, told.append)] == [1, 2, 4]


def test_a_record_that_lost_rows_is_told_of(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n{"step": 2}\n')
    told = []
    record = Record(tmp_path, complain=told.append)
    record.open(cut=30)
    record.close()

    assert "the checkpoint expects 30 bytes" in told[0]
    assert path.read_bytes() == b'{"step": 1}\n{"step": 2}\n'
