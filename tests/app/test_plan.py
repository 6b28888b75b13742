"""A plan holds what the run then does: every value, evaluation, save, log line and the end, to the bit."""

import itertools
import json
from bisect import bisect_right

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from etude.app.plan.plan import LOG, SAVE, VALIDATE, plan
from etude.app.plan.turns import turns
from etude.app.running import train_run
from etude.base.errors import ConfigError, DataError
from etude.data.feeds.pairs import pair_feed
from etude.data.feeds.table_feed import TableFeed
from etude.tasks.config import load_config

WORDS = ("one", "two", "three", "four", "five", "six")
CONFIG = """
[task]
type = "translation"
eval_search_samples = 0

[data]
train = "train.tsv"
val = "val.tsv"

[tokenizer]
type = "word"

[model]
d_model = 8
heads = 2
encoder_layers = 1
decoder_layers = 1
feedforward = 16

[train]
max_duration = "2 epochs"
batch_size = 8
device = "cpu"
precision = "float32"
sanity_batches = 0
keep_last = 1000
log_every = "1 step"

[log]
tensorboard = false
progress = false
"""
STAIRS = {"schedule": "stairs", "values": [1, 3, 2], "every": "4 steps"}
LINE = {"schedule": "linear", "from": 0.0, "to": 0.4, "over": "1 epoch"}
COSINE = {"schedule": "cosine", "peak": 0.01, "warmup": "3 steps"}
RUNS = {
    "the defaults": {},
    "a cosine and durations by the epoch": {
        "optimizer.learning_rate": COSINE,
        "train.eval_every": "0.4 epochs",
        "train.save_every": "0.7 epochs",
        "train.log_every": "0.3 epochs",
    },
    "accumulation by schedule and durations by the batch": {
        "train.accumulate": STAIRS,
        "train.eval_every": "7 batches",
        "train.save_every": "5 steps",
        "train.max_duration": "3 epochs",
    },
    "constant accumulation with a last group that is smaller": {"train.accumulate": 4, "train.save_every": "1 step"},
    "a token budget and an end by tokens": {
        "train.batch_tokens": 40,
        "train.max_duration": "300 tokens",
        "train.eval_every": "90 tokens",
        "train.save_every": "20 samples",
    },
    "a batch size by schedule": {
        "train.batch_size": {"schedule": "stairs", "values": [4, 8, 5], "every": "1 epoch"},
        "train.max_duration": "3.5 epochs",
        "train.eval_every": "0.5 epochs",
    },
    "a token budget by schedule": {
        "train.batch_tokens": {"schedule": "linear", "from": 30, "to": 60, "over": "3 epochs"},
        "train.max_duration": "4 epochs",
        "train.accumulate": STAIRS,
    },
    "longer texts epoch by epoch": {
        "data.max_length": {"schedule": "stairs", "values": [2, 3, 5], "every": "1 epoch"},
        "train.max_duration": "4 epochs",
        "train.eval_every": "0.5 epochs",
    },
    "several limits, the second the first to be reached": {
        "train.max_duration": ["9 epochs", "11 steps", "1000 samples"],
        "train.eval_every": "4 steps",
    },
    "an end in the middle of an epoch, and shares of the run": {
        "train.max_duration": "1.6 epochs",
        "train.eval_every": "30 %",
        "train.save_every": "25 %",
        "train.log_every": "20 %",
    },
    "a limited epoch": {"train.limit_train": 0.5, "train.limit_val": 1, "train.eval_every": "0.5 epochs"},
    "one fixed set": {"train.overfit": 2, "train.max_duration": "5 epochs", "train.eval_every": "2 epochs"},
    "everything in the model and the loss": {
        "model.dropout": LINE,
        "loss.label_smoothing": LINE,
        "optimizer.weight_decay": {"schedule": "linear", "from": 0.1, "to": 0.0},
        "optimizer.groups": [{"match": "encoder.*", "learning_rate": {"schedule": "linear", "peak": 0.5}}],
    },
    "weights of the loss, noise, and layers that are dropped": {
        "loss.terms": {"size": {"type": "l2", "weight": LINE}},
        "train.parameter_noise": LINE,
        "model.layer_drop": LINE,
    },
    "easy samples first, the most difficult later": {
        "data.order": "easy_first",
        "data.difficulty": "length",
        "data.max_difficulty": {"schedule": "linear", "from": 1, "to": 5, "over": "2 epochs"},
        "train.batch_tokens": 50,
        "train.max_duration": "3 epochs",
    },
    "parameters that thaw": {
        "train.freeze": {"encoder.*": {"schedule": "stairs", "values": [True, False], "every": "1 epoch"}},
    },
    "rates that follow validations, and do not fall": {
        "optimizer.learning_rate": {"schedule": "plateau", "peak": 0.1, "warmup": "4 steps", "patience": 9},
    },
    "a chain": {
        "optimizer.learning_rate": {
            "schedule": "chain",
            "parts": [
                {"schedule": "constant", "peak": 0.1, "warmup": "3 steps"},
                {"schedule": "exponential", "peak": 0.1, "gamma": 0.5, "every": "3 steps"},
            ],
        },
    },
}
UNSCHEDULED = ("loss", "grad_norm", "epoch_loss", "padding", "tokens_per_second", "samples_per_second", "size")


@pytest.fixture
def config(tmp_path):
    """Reads the small config with some keys set."""
    texts = [
        " ".join(words) for n in (1, 2, 3, 5) for words in itertools.islice(itertools.product(WORDS, repeat=n), 14)
    ]
    rows = [f"{text}\t{' '.join(reversed(text.split()))} one\t{len(text.split())}\n" for text in texts]
    (tmp_path / "train.tsv").write_text("source\ttarget\tlength\n" + "".join(rows))
    (tmp_path / "val.tsv").write_text("source\ttarget\tlength\n" + "".join(rows[::7]))
    (tmp_path / "small.toml").write_text(CONFIG)
    return lambda overrides=(): load_config(
        tmp_path / "small.toml", {"run.dir": str(tmp_path / "runs"), **dict(overrides)}
    )


@pytest.fixture
def trained(config):
    """Trains for real; gives the rows, the steps of saves, the steps that improved, and how it ended."""

    def trained(overrides):
        loaded = config(overrides)
        result = train_run(loaded, say=lambda _: None)
        lines = (loaded.config.folder / "metrics.jsonl").read_text().splitlines()
        saves = {int(path.name[5:]) for path in (loaded.config.folder / "checkpoints").glob("step-*")}
        rows = [json.loads(line) for line in lines]
        return rows, saves, improved(rows), result.reason

    return trained


def improved(rows):
    best, steps = float("inf"), set()
    for row in rows:
        if row.get("val/loss", best) < best:
            best = row["val/loss"]
            steps.add(row["step"])
    return steps


@pytest.mark.parametrize("name", RUNS)
def test_a_run_logs_evaluates_saves_and_ends_as_planned(name, config, trained):
    planned = plan(config(RUNS[name]))

    rows, saves, better, reason = trained(RUNS[name])

    is_as_planned(rows, saves, better, reason, planned)


def test_epochs_with_different_numbers_of_batches_are_counted_one_by_one(config, trained, monkeypatch):
    monkeypatch.setitem(TableFeed.__init__.__kwdefaults__, "window", 7)
    monkeypatch.setitem(pair_feed.__kwdefaults__, "window", 7)
    overrides = {"train.batch_tokens": 22, "train.max_duration": "5 epochs", "train.eval_every": "0.3 epochs"}
    planned = plan(config(overrides))

    rows, saves, better, reason = trained(overrides)

    ends = [row.step for row in planned.rows if row.epoch == int(row.epoch)]
    assert len({after - before for before, after in itertools.pairwise(ends)}) > 1
    is_as_planned(rows, saves, better, reason, planned)


def is_as_planned(rows, saves, better, reason, planned):
    logged = [row for row in rows if "train/loss" in row]
    by_step = {row.step: row for row in planned.rows}
    assert len(planned.rows) == planned.steps == logged[-1]["step"]
    assert planned.reason == reason
    assert planned.estimated == ()
    assert list(planned.moments[LOG]) == [row["step"] for row in logged]
    assert list(planned.moments[VALIDATE]) == [row["step"] for row in rows if "val/loss" in row]
    assert saves - set(planned.moments[SAVE]) <= better
    assert set(planned.moments[SAVE]) <= saves
    for row in logged:
        found = by_step[row["step"]]
        of_training = {key for key in row if key.startswith("train/")} - {f"train/{name}" for name in UNSCHEDULED}
        assert found.values == {key: row[key] for key in of_training}
        assert (found.epoch, found.samples, found.tokens) == (row["epoch"], row["samples"], row["tokens"])
        assert LOG in found.events


def test_a_plan_of_the_first_steps_is_the_begin_of_the_whole(config):
    whole = plan(config(RUNS["accumulation by schedule and durations by the batch"]))

    part = plan(config(RUNS["accumulation by schedule and durations by the batch"]), steps=6)

    assert (part.steps, part.reason) == (6, None)
    assert part.moments[SAVE] == (5,)
    assert [row.values for row in part.rows] == [row.values for row in whole.rows[:6]]


def test_no_step_to_plan_is_refused(config):
    with pytest.raises(ConfigError, match="--steps must be at least 1, but is 0"):
        plan(config(), steps=0)


def test_epochs_that_are_not_looked_at_are_like_the_last_that_was(config, monkeypatch):
    overrides = {**RUNS["accumulation by schedule and durations by the batch"], "train.max_duration": "9 epochs"}
    seen = plan(config(overrides))
    monkeypatch.setattr("etude.app.plan.walk.LOOKED", 20)

    guessed = plan(config(overrides))

    assert guessed.estimated == ("tokens",)
    assert [(row.step, row.epoch, row.samples, row.values, row.events) for row in guessed.rows] == [
        (row.step, row.epoch, row.samples, row.values, row.events) for row in seen.rows
    ]
    assert guessed.tokens == pytest.approx(seen.tokens, rel=0.1)


def test_an_end_by_tokens_that_were_not_counted_is_an_estimate(config, monkeypatch):
    monkeypatch.setattr("etude.app.plan.walk.LOOKED", 20)

    guessed = plan(config({"train.max_duration": "2000 tokens"}))

    assert guessed.estimated == ("steps", "epochs", "tokens")


def test_sizes_by_schedule_hold_beyond_what_is_looked_at(config, monkeypatch):
    seen = plan(config(RUNS["a batch size by schedule"]))
    monkeypatch.setattr("etude.app.plan.walk.LOOKED", 1)

    guessed = plan(config(RUNS["a batch size by schedule"]))

    assert [(row.step, row.samples, row.values) for row in guessed.rows] == [
        (row.step, row.samples, row.values) for row in seen.rows
    ]


def test_a_run_bounded_by_time_alone_is_told_so_and_planned_as_far_as_asked(config):
    clocked = config({"train.max_duration": "2 hours", "optimizer.learning_rate": 0.1, "train.eval_every": "5 minutes"})

    one, more = plan(clocked), plan(clocked, steps=30)

    assert (one.epochs, one.reason, one.moments[VALIDATE]) == (1.0, None, ())
    assert more.steps == 30
    assert "alone bounds the run" in one.notes[0]
    assert "--steps N plans further" in one.notes[0]
    assert "--steps" not in more.notes[0]
    assert any("train.eval_every = 5 minutes is a time" in note for note in one.notes)


def test_a_time_beside_another_limit_is_told_of(config):
    planned = plan(config({"train.max_duration": ["1 epoch", "1 hour"], "optimizer.learning_rate": 0.1}))

    assert planned.reason == "max_duration reached: 1 epoch"
    assert "may end the run earlier" in planned.notes[0]


def test_early_stopping_is_told_of(config):
    planned = plan(config({"train.patience": 2, "train.min_duration": "1 epoch"}))

    assert "The run ends earlier if val/loss has not improved for 2 validations, though not before 1 epoch." in (
        planned.notes
    )


def test_values_that_follow_validations_are_named(config):
    rate = {"schedule": "newbob", "peak": 0.1, "monitor": "val/loss"}
    planned = plan(config({"optimizer.learning_rate": rate, "model.dropout": LINE}))

    assert planned.following == ("train/learning_rate",)


def test_without_validation_data_nothing_is_validated(config):
    planned = plan(config({"data.val": False}))

    assert planned.moments[VALIDATE] == ()
    assert planned.moments[SAVE] == (planned.steps // 2, planned.steps)


def test_an_optimizer_that_is_wholly_frozen_is_found_before_training(config):
    frozen = {"*": {"schedule": "stairs", "values": [False, True], "at": ["0 steps", "5 steps"]}}

    with pytest.raises(ConfigError, match="is frozen at step 6"):
        plan(config({"train.freeze": frozen}))


def test_no_event_of_training_happens(config, tmp_path):
    (tmp_path / "net.py").write_text(
        "import etude, torch\n"
        "class Rate:\n"
        "    def on_fit_start(self, run): raise SystemExit\n"
        "    def on_epoch_start(self, run): raise SystemExit\n"
        "    def __call__(self, progress): return 1.0 / (1 + progress.step)\n"
        "rate = Rate()\n"
    )

    planned = plan(config({"optimizer.learning_rate": {"schedule": f"{tmp_path}/net.py:rate"}}))

    assert [row.values["train/learning_rate"] for row in planned.rows[:3]] == [1.0, 1 / 2, 1 / 3]


def test_what_training_would_refuse_is_refused(config):
    with pytest.raises(ConfigError, match="is unknown"):
        plan(config({"train.max_duration": "1 hour"}))
    with pytest.raises(DataError, match=r"nowhere\.tsv"):
        plan(config({"data.train": "nowhere.tsv"}))


def test_nothing_is_left_behind(config, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    loaded = config()
    before = sorted(tmp_path.rglob("*"))

    plan(loaded)

    assert sorted(tmp_path.rglob("*")) == before


def test_a_run_that_was_begun_is_told_of_with_its_step(config, trained):
    trained({"train.max_duration": "3 steps"})

    longer = plan(config({"train.max_duration": "8 steps"}))
    other = plan(config({"model.d_model": 16}))

    assert longer.steps == 8
    assert "is at step 3; the plan starts at the first step." in longer.notes[0]
    assert any("It cannot resume with this config" in note for note in other.notes)


LONG = {
    "a warm-up and a fall": (lambda k: min(k / 777, 1.0) - max(0, k - 777) * 1e-7, [777]),
    "stairs": (lambda k: (k >= 333_334) + (k >= 700_001), [333_334, 700_001]),
    "stairs close together": (lambda k: (k >= 500_000) + (k >= 500_003) * 2, [500_000, 500_003]),
    "level, then down": (lambda k: 1.0 - max(0, k - 900_000) / 1e6, [900_000]),
    "a ramp between two levels": (lambda k: min(max(k - 400_100, 0), 50) / 50, [400_100, 400_150]),
    "a constant": (lambda k: 0.5, []),
    "a jump with the last step": (lambda k: k == 1_000_000, [1_000_000]),
    "a jump with the second step": (lambda k: k >= 2, [2]),
}


@pytest.mark.parametrize("name", LONG)
def test_turns_of_a_million_steps_are_found_exactly_and_quickly(name):
    value, expected = LONG[name]
    asked = []

    def values(step):
        asked.append(step)
        return {"x": float(value(step))}

    found = turns(values, 1_000_000)

    assert found == expected
    assert len(asked) < 30_000


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(3, 3000), min_size=1, max_size=6))
@example([3, 3, 3, 3, 990, 3, 3, 1655])
@example([3, 3, 3, 3, 2484, 3000])
def test_every_stair_is_a_turn_at_its_first_step(lengths):
    starts = [1 + sum(lengths[:number]) for number in range(len(lengths))]

    found = turns(lambda step: {"x": float(bisect_right(starts, step))}, sum(lengths))

    assert found == starts[1:]
