"""Every option that says when or how long: its default, and each of its units."""

import itertools

import pytest
import torch
from small_runs import Regression, dataset
from torch.utils.data import DataLoader, IterableDataset

import etude
from etude.base.errors import ConfigError
from etude.train.config import TrainConfig

# An epoch is 50 samples: 5 batches of 10, of as many targets.
SIZE, BATCHES = 10, 5


class Telling(etude.Callback):
    def __init__(self):
        self.saved, self.logged, self.validated, self.ids = [], [], [], []

    def on_save(self, run, folder):
        self.saved.append(run.progress.step)

    def on_validation_end(self, run, metrics):
        self.validated.append(run.progress.step)

    def on_batch_start(self, run, batch):
        self.ids.append([round(float(value), 5) for value in batch[0][:, 0]])

    def log(self, row):
        if "train/loss" in row:
            self.logged.append(row["step"])


def run(data=None, val=None, **options):
    telling = Telling()
    defaults = {
        "max_duration": "2 epochs",
        "learning_rate": 0.01,
        "callbacks": [telling],
        "loggers": [telling],
        "say": lambda _: None,
        "progress": False,
        "device": "cpu",
        "precision": "float32",
    }
    data = DataLoader(dataset(), batch_size=SIZE, shuffle=True) if data is None else data
    telling.result = etude.Trainer(**{**defaults, **options}).fit(Regression(), data, val)
    return telling


def test_the_defaults_are_those_of_the_table():
    defaults = TrainConfig()

    told = {name: str(getattr(defaults, name)) for name in ("max_duration", "eval_every", "save_every", "log_every")}
    assert told == {
        "max_duration": "16 epochs", "eval_every": "1 epoch", "save_every": "1 epoch", "log_every": "50 steps",
    }  # fmt: skip
    assert (defaults.min_duration, defaults.patience, defaults.overfit) == (None, None, None)
    assert (defaults.keep_last, defaults.keep_best, defaults.sanity_batches) == (2, 1, 2)
    assert [getattr(defaults, f"limit_{name}") for name in ("train", "val", "test")] == [1.0] * 3
    assert (defaults.batch_size, defaults.accumulate, defaults.monitor, defaults.min_delta) == (64, 1, "val/loss", 0.0)


def test_a_run_that_is_told_nothing_takes_sixteen_epochs_and_validates_saves_and_logs_at_their_ends():
    told = run(val=DataLoader(dataset(20), batch_size=SIZE), max_duration=TrainConfig().max_duration)

    ends = [BATCHES * epoch for epoch in range(1, 17)]
    assert told.validated == ends
    assert told.saved == ends
    assert told.logged == sorted({*ends, 50})


UNITS = [
    ("3 steps", [3, 6, 9, 10]),
    ("3 batches", [3, 6, 9, 10]),
    ("40 samples", [4, 8, 10]),
    ("25 tokens", [3, 5, 8, 10]),
    ("0.5 epochs", [3, 5, 8, 10]),
    ("0.95 epochs", [5, 10]),
    ("2 epochs", [10]),
    ("30 %", [3, 6, 9, 10]),
    ("1 hour", [10]),
]


@pytest.mark.parametrize(("duration", "steps"), UNITS)
def test_saves_come_as_often_as_they_are_asked_for_and_at_the_end(duration, steps, tmp_path):
    assert run(save_every=duration, run_dir=tmp_path).saved == steps


@pytest.mark.parametrize(("duration", "steps"), UNITS)
def test_log_lines_come_as_often_as_they_are_asked_for_and_at_the_ends_of_epochs(duration, steps):
    assert run(log_every=duration).logged == sorted({*steps, BATCHES, 2 * BATCHES})


@pytest.mark.parametrize(
    ("duration", "step"),
    [("4 steps", 4), ("4 batches", 4), ("35 samples", 4), ("35 tokens", 4), ("1 epoch", 5), ("1.5 epochs", 8),
     ("30 %", 3), ("1 s", 10)],
)  # fmt: skip
def test_a_stop_waits_for_min_duration_in_every_unit(duration, step):
    class Stopping(etude.Callback):
        def on_step_end(self, run, outcome):
            return etude.Stop("enough")

    assert run(min_duration=duration, callbacks=[Stopping()]).result.progress.step == step


class Stream(IterableDataset):
    """Samples that nobody has counted."""

    def __iter__(self):
        return iter(dataset())


def stream():
    return DataLoader(Stream(), batch_size=SIZE)


@pytest.mark.parametrize("duration", ["7 steps", "7 batches", "70 samples", "65 tokens", "0.2 s"])
def test_an_iterable_of_unknown_length_is_trained_on_for_so_many_steps_tokens_or_so_long(duration):
    told = run(stream(), max_duration=[duration, "400 steps"], eval_every="3 steps")

    assert told.result.reason == f"max_duration reached: {etude.Duration.parse(duration)}"
    assert duration == "0.2 s" or told.result.progress.step == 7


@pytest.mark.parametrize("option", ["eval_every", "save_every", "log_every", "min_duration"])
def test_a_fraction_of_an_epoch_of_unknown_length_is_refused_with_what_to_give(option):
    with pytest.raises(
        ConfigError, match=rf"train\.{option} is 0\.5 epochs, but .* in steps, batches, samples, tokens"
    ):
        run(stream(), **{"max_duration": "7 steps", option: "0.5 epochs"})


def test_whole_epochs_of_an_iterable_of_unknown_length_are_counted_as_they_end():
    told = run(stream(), max_duration="3 epochs", val=DataLoader(dataset(20), batch_size=SIZE))

    assert told.result.progress.step == 3 * BATCHES
    assert told.validated == [5, 10, 15]


@pytest.mark.parametrize(("limit", "count"), [(1.0, 5), (1, 1), (3, 3), (0.4, 2), (0.01, 1)])
def test_a_limit_takes_the_first_samples_of_each_epochs_order_a_float_as_a_share_and_a_whole_number_as_batches(
    limit, count
):
    whole, part = run().ids, run(limit_train=limit).ids

    assert part == whole[:count] + whole[BATCHES : BATCHES + count]


@pytest.mark.parametrize(
    ("limit", "said"), [(0, "limit_train"), (0.0, "limit_train"), (1.5, "limit_train"), (-1, "limit_train")]
)
def test_a_limit_without_a_meaning_is_refused(limit, said):
    with pytest.raises(ConfigError, match=said):
        run(limit_train=limit)


def test_the_one_fixed_set_is_the_same_in_every_epoch_and_unshuffled():
    told = run(overfit=2)

    expected = [[round(float(v), 5) for v in part[:, 0]] for part in torch.stack([x for x, _ in dataset()]).split(SIZE)]
    assert told.ids == list(itertools.chain(expected[:2], expected[:2]))


@pytest.mark.parametrize("key", ["max_duration", "min_duration", "eval_every", "save_every", "log_every"])
def test_a_length_of_nothing_is_refused_also_as_an_object(key):
    with pytest.raises(ConfigError, match=rf"train\.{key} must be more than 0"):
        etude.Trainer(**{key: etude.Duration(0, "steps")})
