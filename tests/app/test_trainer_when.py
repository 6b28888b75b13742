"""When a run validates, logs, saves and stops, and on how much data."""

import itertools

import pytest
import torch
from python_face import Line, all_ids, batches, line, steps_with, trainer, values
from torch.utils.data import DataLoader

import etude
from etude.base.errors import ConfigError


def run(data=None, val=None, task=None, **options):
    return trainer(**options).fit(task or Line(), line() if data is None else data, line(8) if val is None else val)


# An epoch is 24 samples: 6 batches of 4.


@pytest.mark.parametrize(
    ("duration", "steps", "reason"),
    [
        ("1 epoch", 6, "1 epoch"),
        ("1.5 epochs", 9, "1.5 epochs"),
        ("7 steps", 7, "7 steps"),
        ("8 batches", 8, "8 batches"),
        ("30 samples", 8, "30 samples"),
        ("21 tokens", 6, "21 tokens"),
        (["3 epochs", "5 steps"], 5, "5 steps"),
        (["1 epoch", "500 steps"], 6, "1 epoch"),
        ([etude.Duration.parse("4 steps"), "1 hour"], 4, "4 steps"),
    ],
)
def test_a_run_ends_at_its_duration_whichever_comes_first(duration, steps, reason):
    result = run(max_duration=duration)

    assert result.progress.step == steps
    assert result.reason == f"max_duration reached: {reason}"


def test_a_run_may_be_bounded_by_time():
    assert run(max_duration="0.2 s").progress.seconds >= 0.2
    assert run(max_duration=["1 minute", "2 steps"]).progress.step == 2


@pytest.mark.parametrize(
    ("eval_every", "steps"),
    [
        ("1 epoch", [6, 12, 14]),
        ("0.5 epochs", [3, 6, 9, 12, 14]),
        ("0.25 epochs", [2, 3, 5, 6, 8, 9, 11, 12, 14]),
        ("0.95 epochs", [6, 12, 14]),
        ("0.8 epochs", [5, 6, 11, 12, 14]),
        ("2 epochs", [12, 14]),
        ("1.5 epochs", [9, 14]),
        ("4 steps", [4, 8, 12, 14]),
        ("5 batches", [5, 10, 14]),
        ("18 samples", [5, 9, 14]),
        ("18 tokens", [5, 9, 14]),
        ("1 hour", [14]),
        ("50 %", [7, 14]),
        ("5 %", list(range(1, 15))),
    ],
)
def test_validation_comes_as_often_as_it_is_asked_for_and_at_the_end(eval_every, steps):
    result = run(eval_every=eval_every, max_duration="14 steps")

    assert steps_with(result, "val/loss") == steps


def test_a_share_of_a_run_counts_through_its_epochs():
    assert steps_with(run(max_duration="2 epochs", eval_every="25 %"), "val/loss") == [3, 6, 9, 12]
    assert steps_with(run(max_duration=["9 epochs", "8 steps"], eval_every="50 %"), "val/loss") == [4, 8]


def test_of_ninety_five_hundredths_of_an_epoch_an_epoch_has_two_validations():
    result = run(line(40), eval_every="0.95 epochs", batch_size=1, max_duration="2 epochs")

    assert steps_with(result, "val/loss") == [38, 40, 78, 80]
    assert steps_with(result, "val/epoch_loss") == [40, 80]


def test_validation_never_falls_between_the_batches_of_a_step():
    result = run(eval_every="1 batch", accumulate=4)

    assert steps_with(result, "val/loss") == [1, 2, 3, 4]
    assert [row["samples"] for row in result.history if "samples" in row] == [16, 24, 40, 48]


def test_log_and_save_follow_their_own_beats(tmp_path):
    result = run(
        log_every="4 steps", save_every="5 steps", eval_every="1 hour", run_dir=tmp_path, keep_last=99, loggers=[]
    )

    assert steps_with(result, "train/loss") == [4, 6, 8, 12]
    saved = sorted(int(place.name[5:]) for place in (tmp_path / "checkpoints").glob("step-*"))
    assert saved == [5, 10, 12]


def test_old_checkpoints_go_and_the_best_stays(tmp_path):
    rate = {"schedule": "stairs", "values": [0.1, 5.0], "at": ["0 epochs", "1 epochs"]}

    result = run(learning_rate=rate, max_duration="6 epochs", run_dir=tmp_path, keep_last=3, loggers=[])

    assert result.best.name == "step-00000006"
    names = sorted(place.name for place in (tmp_path / "checkpoints").glob("step-*"))
    assert names == [f"step-{step:08d}" for step in (6, 24, 30, 36)]


def test_keep_best_keeps_that_many_of_the_best(tmp_path):
    result = run(max_duration="5 epochs", run_dir=tmp_path, keep_last=1, keep_best=3, loggers=[], learning_rate=0.02)

    losses = dict(zip(steps_with(result, "val/loss"), values(result, "val/loss"), strict=True))
    kept = sorted(int(place.name[5:]) for place in (tmp_path / "checkpoints").glob("step-*"))
    assert kept == sorted({*sorted(losses, key=losses.get)[:3], 30})


class Telling(etude.Callback):
    def __init__(self, told):
        self.told = told

    def on_validation_end(self, run, metrics):
        self.told.append("validate")

    def on_save(self, run, folder):
        self.told.append("save")

    def on_step_end(self, run, outcome):
        self.told.append("step")


def test_at_one_step_the_order_is_log_validate_save():
    told = []

    class Sink:
        def log(self, row):
            if "train/loss" in row:
                told.append("log")

    run(max_duration="2 steps", eval_every="1 step", save_every="1 step", callbacks=[Telling(told)], loggers=[Sink()])

    assert told == ["step", "log", "validate", "save"] * 2


def test_a_validation_that_improves_saves_even_off_the_beat(tmp_path):
    result = run(
        eval_every="4 steps", save_every="1 hour", max_duration="5 steps", run_dir=tmp_path, keep_last=9, loggers=[]
    )

    assert (tmp_path / "checkpoints" / "step-00000004").is_dir()
    assert result.last.name == "step-00000005"


def test_sanity_batches_run_before_the_first_step_and_are_thrown_away():
    for count in (0, 1, 2, 9):
        task = Line()
        told = []
        result = run(
            task=task, sanity_batches=count, max_duration="1 step", eval_batch_size=3, callbacks=[Telling(told)]
        )

        assert len(task.validated) == min(count, 3) + 3
        assert steps_with(result, "val/loss") == [1]
        assert told == ["step", "validate", "save"]


def test_a_broken_validation_fails_before_the_first_step():
    class Broken(Line):
        def validation_step(self, batch):
            raise RuntimeError("broken")

    task = Broken()

    with pytest.raises(RuntimeError, match="broken"):
        run(task=task)
    assert task.seen == []


def test_a_monitor_that_does_not_exist_ends_the_run_at_the_sanity_check():
    task = Line()

    with pytest.raises(ConfigError, match=r"'val/accuracy'.*val/epoch_loss, val/loss"):
        run(task=task, monitor="val/accuracy")
    assert task.seen == []
    assert run(monitor="val/epoch_loss", eval_every="2 steps").best_step in {6, 12}
    assert run(monitor="train/epoch_loss").best_step in {6, 12}
    with pytest.raises(ConfigError, match=r"'train/other_loss'.*train/loss"):
        run(monitor="train/other_loss")


@pytest.mark.parametrize(("limit", "count"), [(1.0, 6), (1, 1), (2, 2), (0.5, 3), (0.01, 1), (99, 6)])
def test_limit_train_takes_the_first_so_many_batches_of_each_epochs_order(limit, count):
    whole, task = Line(), Line()
    run(task=whole)

    result = run(task=task, limit_train=limit)

    assert result.progress.step == 2 * count
    assert task.seen == whole.seen[:count] + whole.seen[6 : 6 + count]


@pytest.mark.parametrize(("limit", "count"), [(1.0, 6), (1, 1), (0.5, 3)])
def test_limit_val_and_limit_test_take_the_first_so_many_batches(limit, count):
    expected = [all_ids()[start : start + 4] for start in range(0, 24, 4)][:count]
    for data in (line(), DataLoader(line(), batch_size=4, shuffle=True), batches()):
        task = Line()
        made = trainer(limit_val=limit, sanity_batches=0, max_duration="1 step")
        made.fit(task, line(), data)
        assert task.validated == expected
        task.validated.clear()
        made.validate(task, data)
        assert task.validated == expected
        task.validated.clear()
        trainer(limit_test=limit).test(task, data)
        assert task.validated == expected


@pytest.mark.parametrize(("share", "count"), [(2, 2), (0.5, 3), (1, 1)])
def test_overfit_trains_validates_and_tests_on_one_fixed_set_and_overrides_the_limits(share, count):
    expected = [all_ids()[start : start + 4] for start in range(0, 24, 4)][:count]
    data = {
        "dataset": (line(), {}),
        "loader": (DataLoader(line(), batch_size=4, shuffle=True), {"batch_size": None}),
    }
    for samples, options in data.values():
        task = Line()
        limits = {"limit_train": 1, "limit_val": 1, "limit_test": 1}
        made = trainer(overfit=share, sanity_batches=0, **limits, **options)

        made.fit(task, samples, line(8, seed=77))

        assert task.seen == expected * 2
        assert task.validated == expected * 2
        task.validated.clear()
        made.test(data=line(8, seed=77))
        assert task.validated == expected


def test_batch_sizes_are_those_that_are_given():
    task = Line()

    run(line(10), line(10), task=task, batch_size=4, eval_batch_size=7, sanity_batches=0, max_duration="1 epoch")

    assert [len(batch) for batch in task.seen] == [4, 4, 2]
    assert [len(batch) for batch in task.validated] == [7, 3]
    task = Line()
    run(line(100), line(100), task=task, batch_size=None, sanity_batches=0, max_duration="1 epoch")
    assert [len(batch) for batch in [*task.seen, *task.validated]] == [64, 36] * 2


def test_a_scheduled_batch_size_is_taken_up_at_each_epoch():
    task = Line()
    size = {"schedule": "stairs", "values": [4, 12], "every": "1 epoch"}

    run(task=task, batch_size=size)

    assert [len(batch) for batch in task.seen] == [4] * 6 + [12] * 2
    assert sorted(itertools.chain(*task.seen[6:])) == sorted(all_ids())


def test_stop_ends_the_run_after_its_step_but_waits_for_min_duration():
    class Stopping(etude.Callback):
        def on_step_end(self, run, outcome):
            return etude.Stop("enough") if run.progress.step == 2 else None

    early = run(callbacks=[Stopping()])
    later = run(callbacks=[Stopping()], min_duration="5 steps")

    assert (early.progress.step, early.reason) == (2, "enough")
    assert (later.progress.step, later.reason) == (5, "enough")
    assert run(callbacks=[Stopping()], min_duration="50 %").progress.step == 6


def test_epochs_of_a_listed_run_are_the_same_when_the_learning_rate_follows_its_length():
    rate = {"schedule": "linear", "peak": 1.0}

    logged = values(run(max_duration=["2 epochs", "1 hour"], learning_rate=rate), "train/learning_rate")

    assert logged == pytest.approx([1 - k / 12 for k in range(12)])
    assert torch.isfinite(torch.tensor(logged)).all()
