"""Schedules in runs: the series that is logged is the formula's, per step, whatever a run was cut into."""

import itertools
import os
import signal

import numpy as np
import pytest
from pydantic import TypeAdapter
from small_runs import Regression, dataset, loaders, rows, trainer, weights

import etude
from etude.base.durations import Duration
from etude.base.errors import ConfigError
from etude.base.horizon import Horizon
from etude.base.progress import Progress
from etude.base.schedules import ScheduleSpec, bind
from etude.data.feeds.batching import Batching
from etude.data.feeds.pairs import pair_feed
from etude.train.interrupt import Interrupted
from etude.train.length import horizon

BATCHES, EPOCHS = 7, 3  # of 50 samples by eight

RATES = {
    "constant": {"peak": 0.01, "warmup": "3 steps"},
    "linear": {"peak": 0.01, "warmup": "1 epoch"},
    "linear over": {"schedule": "linear", "from": 0.001, "to": 0.01, "over": "9 steps"},
    "cosine": {"peak": 0.01, "warmup": "10 %", "warmup_shape": "exponential"},
    "cosine cooldown": {"schedule": "cosine", "peak": 0.01, "end": 1e-3, "cooldown": "1.5 epochs"},
    "quarter wave": {"schedule": "cosine", "peak": 0.01, "wave": "quarter"},
    "inverse": {"peak": 0.01, "warmup": "4 steps", "power": 0.7},
    "noam": {"warmup": "4 steps", "d_model": 64, "factor": 0.1},
    "exponential": {"peak": 0.01, "gamma": 0.5, "every": "1 epoch"},
    "step": {"peak": 0.01, "every": "1 epoch", "warmup": "2 steps"},
    "step by samples": {"schedule": "step", "peak": 0.01, "every": "32 samples"},
    "stairs": {"values": [0.01, 0.02, 0.005], "every": "5 steps"},
    "stairs at": {"schedule": "stairs", "values": [0.01, 0.02], "at": ["0 epochs", "0.5 epochs"]},
    "piecewise": {"points": [["0 steps", 0.001], ["40 samples", 0.01], ["120 samples", 0.002]]},
    "trapezoid": {"peak": 0.01, "warmup": "2 steps", "decay": "30 %", "shape": "sqrt"},
    "wsd": {"peak": 0.01, "decay": "5 steps", "over": "12 steps", "end": 0.001},
    "one_cycle": {"peak": 0.01, "three_phase": True},
    "chain": {
        "parts": [
            {"schedule": "linear", "from": 0.001, "to": 0.01, "over": "4 steps"},
            {"schedule": "constant", "peak": 0.01, "warmup": "3 steps"},
            {"schedule": "cosine", "peak": 0.01},
        ]
    },
    "plateau": {"peak": 0.01, "warmup": "2 steps", "patience": 1, "cooldown": 1, "factor": 0.3, "min_delta": 0.5},
    "newbob": {"peak": 0.01, "threshold": 0.2, "monitor": "val/loss", "min_epochs": "1 epoch"},
}
FOLLOWING = {"plateau", "newbob"}


def table(name):
    return {"schedule": name.split(maxsplit=1)[0], **RATES[name]}


class Kill(etude.Callback):
    """Ends the process's run, once for each of some steps, by a signal."""

    def __init__(self, *steps):
        self.steps = set(steps)

    def on_step_end(self, run, outcome):
        if run.progress.step in self.steps:
            self.steps.discard(run.progress.step)
            os.kill(os.getpid(), signal.SIGTERM)


def run(folder, kill=(), **options):
    """A run, gone on with after each signal."""
    callback = Kill(*kill)
    while True:
        made = trainer(folder, **{"save_every": "1 epoch", "callbacks": [callback], "loggers": [], **options})
        try:
            return made.fit(Regression(), *loaders())
        except Interrupted:
            continue


def series(folder, key="train/learning_rate"):
    return [row[key] for row in rows(folder) if key in row]


def moments(accumulate=1):
    """The progress before every step of a run of three epochs."""
    steps = -(-BATCHES // accumulate)
    for step in range(EPOCHS * steps):
        epoch, inside = divmod(step, steps)
        done = inside * accumulate
        samples = 50 * epoch + 8 * done
        yield Progress(step, epoch * BATCHES + done, epoch, samples, samples, 0.0, done, BATCHES)


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("name", [name for name in RATES if name not in FOLLOWING])
def test_the_rate_of_every_step_is_the_schedules_with_accumulation_too(name, accumulate, quick_folder):
    folder = quick_folder / f"{name} {accumulate}"
    steps = -(-BATCHES // accumulate)
    length = Horizon(EPOCHS * steps, steps, 50 / steps, 50 / steps, BATCHES / steps)
    schedule = bind(TypeAdapter(ScheduleSpec).validate_python(table(name)), length, key="x")

    run(folder, learning_rate=table(name), accumulate=accumulate, eval_every="1 epoch")

    assert series(folder) == pytest.approx([schedule(progress) for progress in moments(accumulate)], rel=1e-9)


@pytest.mark.parametrize("name", RATES)
def test_a_run_that_was_killed_again_and_again_has_the_rates_of_one_that_was_not(name, quick_folder):
    straight, cut = quick_folder / f"{name} straight", quick_folder / f"{name} cut"
    options = {"learning_rate": table(name), "eval_every": "2 steps"}
    run(straight, **options)

    run(cut, kill=(1, 6, 7, 8, 15), **options)

    assert series(cut) == series(straight)
    assert rows(cut) == rows(straight)
    assert weights(cut) == weights(straight)
    assert name not in FOLLOWING or series(cut)[-1] < 0.01


GROUPS = [{"match": "layers.0.*", "weight_decay": {"schedule": "stairs", "values": [0.2, 0.4], "every": "4 steps"}}]
FALLING = {"schedule": "linear", "from": 0.1, "to": 0.0}
OTHERS = {
    "decay": (
        {"optimizer": {"type": "adamw", "weight_decay": FALLING}},
        "train/weight_decay",
        [0.1 * (1 - k / 21) for k in range(21)],
    ),
    "accumulate": (
        {"accumulate": {"schedule": "stairs", "values": [1, 3], "every": "1 epoch"}},
        "train/accumulate",
        [1] * 7 + [3] * 6,
    ),
    "batch_size": (
        {"batch_size": {"schedule": "stairs", "values": [10, 25], "every": "1 epoch"}},
        "train/batch_size",
        [10] * 5 + [25] * 4,
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_values_follow_their_schedules_and_go_on_in_them(name, quick_folder):
    options, key, expected = OTHERS[name]
    straight, cut = quick_folder / f"{name} straight", quick_folder / f"{name} cut"
    data = dataset() if "batch_size" in options else loaders()[0]

    for folder, kill in ((straight, Kill()), (cut, Kill(2, 6, 8))):
        for _ in range(4):
            made = trainer(folder, **{"callbacks": [kill], "loggers": [], "learning_rate": 0.01, **options})
            try:
                made.fit(Regression(), data, dataset(8) if "batch_size" in options else loaders()[1])
                break
            except Interrupted:
                continue

    assert series(straight, key) == pytest.approx(expected)
    assert rows(cut) == rows(straight)
    assert weights(cut) == weights(straight)


def test_every_group_of_an_optimizer_has_its_own_decay_in_every_step(quick_folder):
    found = []

    class Reading(etude.Callback):
        def on_before_step(self, run, optimizer):
            by_size = {max(p.shape[-1] for p in group["params"]): group for group in optimizer.param_groups}
            found.append({size: group["weight_decay"] for size, group in by_size.items() if size in {4, 8}})

    options = {"type": "adamw", "weight_decay": FALLING, "groups": GROUPS}
    made = trainer(None, callbacks=[Reading()], learning_rate=0.01, max_duration="1 epoch", optimizer=options)
    made.fit(Regression(), *loaders())

    assert {4, 8} <= {size for sizes in found for size in sizes}
    first = [sizes[4] for sizes in found if 4 in sizes]
    others = [sizes[8] for sizes in found if 8 in sizes]
    assert first == pytest.approx([0.2] * 4 + [0.4] * 3)
    assert others == pytest.approx([0.1 * (1 - k / 7) for k in range(7)])


def test_a_longer_run_says_in_one_line_how_the_schedule_changes(tmp_path):
    rate = {"schedule": "linear", "peak": 1.0}
    trainer(tmp_path, max_duration="1 epoch", learning_rate=rate).fit(Regression(), *loaders())
    said = []

    trainer(tmp_path, max_duration="2 epochs", learning_rate=rate, say=said.append).fit(Regression(), *loaders())

    told = [sentence for sentence in said if "steps long" in sentence]
    change = "the learning rate goes from 0.143 to 0.5 at step 8."
    assert told == [f"The run is now 14 steps long instead of 7, and schedules to its end change with it: {change}"]
    assert series(tmp_path)[7:] == pytest.approx([1 - k / 14 for k in range(7, 14)])


@pytest.mark.parametrize(
    ("schedule", "option"), [("linear", "over"), ("cosine", "cooldown"), ("trapezoid", "over"), ("one_cycle", "over")]
)
@pytest.mark.parametrize("bound", ["time", "unknown length"])
def test_a_run_of_unknown_length_is_told_what_its_schedule_needs(schedule, option, bound):
    until = "1 minute" if bound == "time" else "2 epochs"
    data = loaders()[0] if bound == "time" else lambda: iter(loaders()[0])
    options = {"max_duration": until, "eval_every": "1 hour", "log_every": "1 step"}

    with pytest.raises(ConfigError, match=rf"learning_rate\.{option} must be given, because the length of this run"):
        trainer(None, learning_rate={"schedule": schedule, "peak": 0.1}, **options).fit(Regression(), data)
    rate = {"schedule": schedule, "peak": 0.1, option: "9 steps"}
    ended = trainer(None, learning_rate=rate, **{**options, "max_duration": [until, "2 steps"]})
    assert ended.fit(Regression(), data).progress.step == 2


@pytest.mark.parametrize("name", ["plateau", "newbob"])
def test_a_metric_that_a_schedule_cannot_follow_ends_the_run_before_its_first_step(name):
    rate = {**table(name), "monitor": "val/wer"}
    stepped = []

    class Telling(etude.Callback):
        def on_step_end(self, run, outcome):
            stepped.append(run.progress.step)

    with pytest.raises(ConfigError, match=r"learning_rate\.monitor must be a logged metric, but is val/wer"):
        trainer(None, learning_rate=rate, callbacks=[Telling()]).fit(Regression(), *loaders())
    assert stepped == []


class Corpus:
    """Forty-one pairs whose batches by tokens are not as many in every epoch."""

    lengths_ = np.random.default_rng(6).integers(1, 9, 41)

    def __len__(self):
        return 41

    def lengths(self, side):
        del side
        return self.lengths_

    def gather(self, side, indices):
        del side
        return np.repeat(4 + indices, self.lengths_[indices]), self.lengths_[indices]

    def total(self, side):
        del side


class OfPairs(Regression):
    def training_step(self, batch):
        output = self.layers(batch.source_lengths[:, None].float().expand(-1, 4))
        return etude.Loss(output.square().sum(), len(output))


def of_pairs(folder, kill=()):
    callback = Kill(*kill)
    while True:
        feed = pair_feed(Corpus(), Batching(seed=3, batch_tokens=24), window=11)
        assert not feed.exact
        made = trainer(folder, callbacks=[callback], loggers=[], learning_rate={"schedule": "linear", "peak": 1e-3})
        try:
            return feed, made.fit(OfPairs(), feed)
        except Interrupted:
            continue


def test_an_estimated_length_is_the_same_after_a_restart_and_the_end_is_held_past_it(tmp_path):
    feed, result = of_pairs(tmp_path / "straight")
    estimate = EPOCHS * feed.batches
    steps = result.progress.step
    per_epoch = [len([row for row in rows(tmp_path / "straight") if row["epoch"] <= epoch]) for epoch in (1, 2)]

    of_pairs(tmp_path / "cut", kill=(per_epoch[0] + 3, per_epoch[1] + 1))

    assert steps != estimate
    assert series(tmp_path / "straight") == pytest.approx([1e-3 * max(0, 1 - k / estimate) for k in range(steps)])
    assert series(tmp_path / "cut") == series(tmp_path / "straight")
    assert weights(tmp_path / "cut") == weights(tmp_path / "straight")


class Counted:
    """A feed of which only the numbers are asked."""

    exact = True
    batches = pieces = 7
    samples = 50
    targets = 500.0
    epoch_total = 7


@pytest.mark.parametrize(
    ("until", "steps"),
    [
        ("3 epochs", 13),
        ("2.5 epochs", 12),
        ("20 batches", 12),
        ("12 steps", 12),
        ("70 samples", 8),
        ("500 tokens", 7),
    ],
)
def test_the_horizon_of_scheduled_accumulation_is_that_of_the_steps_it_will_take(until, steps):
    spec = TypeAdapter(ScheduleSpec).validate_python({"schedule": "stairs", "values": [1, 3], "every": "1 epoch"})

    found = horizon([Duration.parse(until)], Counted(), spec)

    assert found.steps == steps
    assert not found.exact


def test_a_schedule_to_the_end_of_a_run_ends_with_it_under_scheduled_accumulation(tmp_path):
    stairs = {"schedule": "stairs", "values": [1, 3], "every": "1 epoch"}

    run(tmp_path, accumulate=stairs, learning_rate={"schedule": "linear", "peak": 1.0}, eval_every="1 epoch")

    assert series(tmp_path) == pytest.approx([1 - k / 13 for k in range(13)])


CONFIG = """
[task]
type = "translation"
eval_search_samples = 0
[data]
train = "t.tsv"
[tokenizer]
type = "word"
[model]
d_model = 8
heads = 2
encoder_layers = 1
decoder_layers = 1
feedforward = 8
dropout = { schedule = "linear", from = 0.0, to = 0.5, over = "8 steps" }
[loss]
label_smoothing = { schedule = "piecewise", points = [["0 epochs", 0.2], ["2 epochs", 0.0]] }
[optimizer]
learning_rate = 0.01
[train]
max_duration = "3 epochs"
batch_size = 4
log_every = "1 step"
device = "cpu"
precision = "float32"
[log]
tensorboard = false
progress = false
"""


def test_dropout_and_label_smoothing_follow_their_schedules_and_go_on_in_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["one", "two", "three", "four"]
    pairs = "".join(f"{a} {b}\t{b} {a}\n" for a, b in itertools.product(words, words))
    (tmp_path / "t.tsv").write_text(f"source\ttarget\n{pairs}")
    (tmp_path / "c.toml").write_text(CONFIG)
    straight, cut = tmp_path / "runs/c", tmp_path / "runs/cut"
    etude.train("c.toml")

    for until in ("3 steps", "9 steps", "3 epochs"):
        etude.train("c.toml", {"run.name": "cut", "train.max_duration": until})

    assert series(straight, "train/dropout") == pytest.approx([min(k, 8) / 16 for k in range(12)])
    assert series(straight, "train/label_smoothing") == pytest.approx([0.2 * max(0, 1 - k / 8) for k in range(12)])
    assert rows(cut) == rows(straight)
    assert weights(cut) == weights(straight)


@pytest.mark.parametrize(("name", "told"), [("plateau", True), ("newbob", True), ("constant", False)])
def test_a_schedule_that_waits_for_validations_which_never_come_is_told_of(name, told):
    said = []

    result = trainer(learning_rate=table(name), max_duration="5 steps", say=said.append).fit(Regression(), loaders()[0])

    assert any("follows validations, but there is no validation data" in line for line in said) is told
    assert result.history[-1]["train/learning_rate"] == 0.01


def test_a_rate_that_follows_a_metric_of_which_more_is_better_falls_where_it_falls():
    class Falling(Regression):
        def validation_step(self, batch):
            self.score = getattr(self, "score", 1.0) / 2
            self.log("accuracy", self.score)
            return super().training_step(batch)

    rates = {"schedule": "plateau", "peak": 0.01, "patience": 1, "monitor": "val/accuracy"}
    result = trainer(learning_rate=rates, eval_every="1 epoch", sanity_batches=0).fit(Falling(), *loaders())

    assert result.history[-2]["train/learning_rate"] == 0.005
