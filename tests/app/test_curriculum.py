"""Data values of a run from its config: lengths, difficulty and order, taken up where an epoch begins."""

import json

import pytest

import etude
from etude.__main__ import main

CONFIG = """
[task]
type = "translation"
eval_search_samples = 0

[data]
train = "train.tsv"

[tokenizer]
type = "word"

[model]
d_model = 8
heads = 2
encoder_layers = 1
decoder_layers = 1
feedforward = 8

[optimizer]
learning_rate = 0.01

[train]
max_duration = "4 epochs"
batch_size = 4
save_every = "1 step"
log_every = "1 step"
device = "cpu"
precision = "float32"

[log]
tensorboard = false
progress = false
"""
WORDS = ("one", "two", "three", "four", "five")
LONGEST = 8
PAIRS = [" ".join(WORDS[(k + length) % 5] for k in range(length)) for length in range(1, LONGEST + 1) for _ in range(3)]
HARD = [round(((7 * row) % len(PAIRS)) / len(PAIRS), 3) for row in range(len(PAIRS))]
LENGTHS = [len(text.split()) for text in PAIRS]
SEEN = """
import json, os, signal
class Seen:
    def __init__(self, kill=0):
        self.kill = kill
    def on_batch_start(self, run, batch):
        with open("seen.jsonl", "a") as file:
            print(json.dumps([run.progress.epoch, batch.indices.tolist()]), file=file)
    def on_step_end(self, run, outcome):
        if run.progress.step == self.kill: os.kill(os.getpid(), signal.SIGTERM)
"""
RAMP = {"schedule": "linear", "from": 2, "to": 8, "over": "3 epochs"}
STAIRS = {"schedule": "stairs", "values": [2, 5, 8], "every": "1 epoch"}
CLOCK = ("_seconds", "_per_second", "_memory")


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    rows = "".join(f"{text}\t{text}\t{hard}\n" for text, hard in zip(PAIRS, HARD, strict=True))
    (tmp_path / "train.tsv").write_text(f"source\ttarget\thard\n{rows}", encoding="utf-8")
    (tmp_path / "c.toml").write_text(CONFIG, encoding="utf-8")
    (tmp_path / "seen.py").write_text(SEEN, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(place, name="c", **keys):
    overrides = {key.replace("__", "."): value for key, value in keys.items()}
    overrides.setdefault("callbacks", [{"type": "seen.py:Seen"}])
    etude.train(place / "c.toml", {"run.name": name, **overrides})
    return seen(place)


def seen(place):
    """The samples of each epoch, in the order they came in."""
    epochs = {}
    for line in (place / "seen.jsonl").read_text().splitlines():
        epoch, indices = json.loads(line)
        epochs.setdefault(epoch, []).extend(indices)
    return list(epochs.values())


def rows(place, name="c"):
    lines = (place / "runs" / name / "metrics.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    return [{k: v for k, v in row.items() if not k.startswith("time/") and not k.endswith(CLOCK)} for row in found]


def within(length=LONGEST, hard=1.0):
    return [row for row in range(len(PAIRS)) if LENGTHS[row] <= length and HARD[row] <= hard]


@pytest.mark.parametrize("size", [{"train__batch_size": 4}, {"train__batch_tokens": 32}])
def test_a_scheduled_length_lets_longer_samples_wait_for_their_epoch(size, place):
    epochs = run(place, data__max_length=STAIRS, **size)

    assert [sorted(epoch) for epoch in epochs] == [within(2), within(5), within(8), within(8)]
    by_epoch = {int(row["epoch"] - 1e-6): row["train/max_length"] for row in rows(place)}
    assert by_epoch == {0: 2, 1: 5, 2: 8, 3: 8}


def test_a_ramp_is_rounded_and_read_where_an_epoch_begins(place):
    epochs = run(place, data__max_length=RAMP, train__max_duration="2 epochs")

    lengths = [row["train/max_length"] for row in rows(place)]
    assert sorted(epochs[0]) == within(2)
    assert sorted(epochs[1]) == within(lengths[-1])
    assert 2 < lengths[-1] < LONGEST


def test_a_constant_length_still_means_a_bad_sample(place):
    with pytest.raises(etude.errors.DataError, match=r"more than data\.max_length = 5"):
        run(place, data__max_length=5)


def test_a_difficulty_limits_the_samples_by_a_constant_or_a_schedule(place):
    constant = run(place, data__difficulty="hard", data__max_difficulty=0.5, train__max_duration="1 epoch")
    (place / "seen.jsonl").unlink()
    rising = {"schedule": "stairs", "values": [0.25, 1.0], "every": "2 epochs"}
    scheduled = run(place, "s", data__difficulty="hard", data__max_difficulty=rising)

    assert [sorted(epoch) for epoch in constant] == [within(hard=0.5)]
    assert [sorted(epoch) for epoch in scheduled] == [within(hard=0.25)] * 2 + [within()] * 2
    by_epoch = {int(row["epoch"] - 1e-6): row["train/max_difficulty"] for row in rows(place, "s")}
    assert by_epoch == {0: 0.25, 1: 0.25, 2: 1.0, 3: 1.0}


@pytest.mark.parametrize("size", [{"train__batch_size": 4}, {"train__batch_tokens": 32}])
def test_easy_first_goes_by_length_for_its_epochs_and_then_shuffles(size, place):
    epochs = run(place, data__order="easy_first", data__easy_first_epochs=2, **size)

    assert [[LENGTHS[row] for row in epoch] == LENGTHS for epoch in epochs] == [True, True, False, False]
    assert [sorted(epoch) for epoch in epochs] == [within()] * 4


@pytest.mark.parametrize("size", [{"train__batch_size": 4}, {"train__batch_tokens": 32}])
def test_sorted_goes_by_difficulty_where_a_column_says_it(size, place):
    epochs = run(place, data__order="sorted", data__difficulty="hard", train__max_duration="2 epochs", **size)

    assert [[HARD[row] for row in epoch] for epoch in epochs] == [sorted(HARD)] * 2


VARIANTS = {
    "length": {"data__max_length": STAIRS},
    "length by tokens": {"data__max_length": STAIRS, "train__batch_tokens": 32},
    "easy first by tokens": {"data__max_length": STAIRS, "data__order": "easy_first", "train__batch_tokens": 32},
    "difficulty to the end of the run": {
        "data__difficulty": "hard",
        "data__max_difficulty": {"schedule": "linear", "from": 0.3, "to": 1.0},
        "data__order": "sorted",
        "train__batch_tokens": 32,
    },
    "size": {"train__batch_size": {"schedule": "stairs", "values": [2, 6], "every": "1 epoch"}},
    "tokens": {"train__batch_tokens": {"schedule": "stairs", "values": [32, 64], "every": "1 epoch"}},
}
FALLING = {"schedule": "cosine", "peak": 0.01}


LAST = "checkpoints/last/model.safetensors"


@pytest.fixture(scope="module")
def unbroken():
    """What an unbroken run of a variant saw, logged and ended with, once for all its cuts."""
    made = {}

    def get(variant, place, options):
        if variant not in made:
            epochs = run(place, "straight", **options)
            (place / "seen.jsonl").unlink()
            made[variant] = epochs, rows(place, "straight"), (place / "runs/straight" / LAST).read_bytes()
        return made[variant]

    return get


@pytest.mark.parametrize("cut", [*(pytest.param(cut, marks=pytest.mark.acceptance) for cut in (1, 9)), 4])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_killed_run_goes_on_exactly_with_the_rest_of_its_epoch(variant, cut, place, unbroken):
    options = {**VARIANTS[variant], "optimizer__learning_rate": FALLING, "train__max_duration": "3 epochs"}
    epochs, logged, weights = unbroken(variant, place, options)

    # The same config by content: what is killed by its own kill stays a part of it.
    with pytest.raises(SystemExit):
        run(place, "cut", callbacks=[{"type": "seen.py:Seen", "kill": cut}], **options)
    again = run(place, "cut", callbacks=[{"type": "seen.py:Seen", "kill": cut}], **options)

    assert again == epochs
    assert rows(place, "cut") == logged
    assert (place / "runs/cut" / LAST).read_bytes() == weights


def test_the_estimate_of_a_run_is_of_its_average_epoch_and_said(place, capsys):
    run(place, data__max_length=STAIRS, optimizer__learning_rate={"schedule": "linear", "peak": 1.0})

    found = [row["train/learning_rate"] for row in rows(place)]
    steps = [2, 4, 6, 6]  # of 6, 15, 24 and 24 samples by four
    assert len(found) == sum(steps)
    assert found == pytest.approx([1 - k / sum(steps) for k in range(sum(steps))])
    assert "Epochs differ with data.max_length: on average 4 batches" in capsys.readouterr().out


def test_the_size_of_batches_is_logged_under_its_own_name(place):
    run(place, **VARIANTS["tokens"])
    run(place, "size", **VARIANTS["size"])

    assert {row["train/batch_tokens"] for row in rows(place)} == {32, 64}
    assert {row["train/batch_size"] for row in rows(place, "size")} == {2, 6}


def test_a_function_of_ones_own_tells_the_tokens_of_a_batch_before_any_sample_is_held_against_them(place):
    long = " ".join(WORDS * 30)
    (place / "train.tsv").write_text(f"source\ttarget\n{long}\t{long}\none\tone\n", encoding="utf-8")
    (place / "own.py").write_text("def tokens(progress):\n    return 200 if progress.epoch < 2 else 400\n")

    run(place, train__batch_tokens={"schedule": "own.py:tokens"}, data__val="train.tsv", train__max_duration="3 epochs")

    found = [(row["epoch"], row["train/batch_tokens"]) for row in rows(place) if "train/batch_tokens" in row]
    assert found == [(0.5, 200), (1.0, 200), (1.5, 200), (2.0, 200), (3.0, 400)]


def test_overfit_takes_its_fixed_set_whatever_the_curriculum(place):
    epochs = run(place, data__max_length=STAIRS, data__order="sorted", train__overfit=2, train__max_duration="2 epochs")

    assert epochs == [list(range(8))] * 2


def test_a_sample_that_never_takes_part_may_be_longer_than_a_batch_or_the_model(place):
    low = {"schedule": "stairs", "values": [2, 4], "every": "1 epoch"}

    epochs = run(place, data__max_length=low, train__batch_tokens=8, model__positions="learned", model__max_positions=6)

    assert sorted(epochs[-1]) == within(4)


MISTAKES = [
    ("data.max_difficulty needs data.difficulty", 2, {"data.max_difficulty": 0.5}),
    ("data.max_length", 2, {"data.max_length": 0}),
    ("at least 1, but is 0", 2, {"data.max_length": '{ schedule = "stairs", values = [0, 1], every = "1 epoch" }'}),
    ("does not follow validations", 2, {"data.max_length": '{ schedule = "plateau", peak = 4 }'}),
    ("data.order", 2, {"data.order": "easy"}),
    ("data.easy_first_epochs", 2, {"data.easy_first_epochs": 0}),
    ('no column "heavy"', 3, {"data.difficulty": "heavy"}),
    ("line 2: data.difficulty is source", 3, {"data.difficulty": "source", "data.order": "sorted"}),
    ("data.max_difficulty = -1 leaves none", 3, {"data.difficulty": "hard", "data.max_difficulty": -1}),
    (
        "data.max_difficulty = -1 leaves none of the 24 training samples for epoch 2",
        3,
        {
            "data.difficulty": "hard",
            "data.max_difficulty": '{ schedule = "stairs", values = [1.0, -1.0], every = "1 epoch" }',
        },
    ),
]


@pytest.mark.parametrize(("told", "code", "keys"), MISTAKES)
def test_a_mistake_is_told_before_the_first_step(told, code, keys, place, capsys):
    words = [word for key, value in keys.items() for word in (f"--{key}", str(value))]

    ended = main(["train", "c.toml", *words])

    assert ended == code
    assert told in capsys.readouterr().err
    assert not (place / "runs/c/checkpoints").exists() or not list((place / "runs/c/checkpoints").glob("step-*"))


@pytest.mark.parametrize(
    ("key", "value"),
    [("data.order", "sorted"), ("data.max_length", "{ schedule = 'constant', peak = 3 }"), ("data.difficulty", "hard")],
)
def test_a_run_does_not_go_on_with_another_curriculum(key, value, place, capsys):
    assert main(["train", "c.toml", "--train.max_duration", "1 step"]) == 0

    assert main(["train", "c.toml", "--train.max_duration", "2 steps", f"--{key}", value]) == 7
    assert key in capsys.readouterr().err
