"""Pretraining by hidden tokens: from a config, as a phase before others, and for another task."""

import random

import pytest
from growing import PARTS, files, losses, rows, run, stripped, write_place

import etude
from etude.base.errors import ConfigError
from etude.tasks.config import load_config
from etude.train.memory.checkpoint import read_weights

CONFIG = """
callbacks = ["parts.py:Cuts"]
[task]
type = "language_model"
objective = "masked"
metrics = ["accuracy"]
[data]
train = "text.txt"
val = "val.txt"
block_size = 16
[tokenizer]
type = "byte"
[model]
type = "encoder"
d_model = 8
heads = 2
layers = 1
feedforward = 8
[optimizer]
learning_rate = 0.01
[train]
max_duration = "3 epochs"
batch_size = 8
device = "cpu"
log_every = "1 step"
save_every = "2 steps"
keep_last = 20
[log]
progress = false
tensorboard = false
"""
PHASES = {
    "model.type": "decoder",
    "task.objective": '{ schedule = "stairs", values = ["masked", "next"], every = "1 epoch" }',
}


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_place(tmp_path)
    draw = random.Random(1)
    for name, count in (("text", 100), ("val", 20)):
        words = [draw.choice(["red", "old", "dog", "runs"]) for _ in range(count)]
        (tmp_path / f"{name}.txt").write_text(" ".join(words))
    (tmp_path / "parts.py").write_text(PARTS)
    (tmp_path / "small.toml").write_text(CONFIG)
    return tmp_path


@pytest.mark.parametrize(
    "more",
    [
        PHASES,
        *(
            pytest.param(more, marks=pytest.mark.acceptance)
            for more in ({}, {"data.packing": "documents", "data.workers": 1})
        ),
    ],
)
def test_a_run_that_is_cut_anywhere_ends_in_the_same_bits(more, place):
    straight = run(place, "straight", **more)
    steps = len(losses(straight, "train/loss"))

    cut = run(place, "cut", [steps // 3, steps - 1], **more)

    assert files(cut) == files(straight)
    assert stripped(rows(cut)) == stripped(rows(straight))


def test_validation_hides_the_same_tokens_each_time_and_training_others(place):
    folder = run(place, "still", **{"optimizer.learning_rate": 1e-30})

    held = losses(folder, "val/loss")
    assert len(held) == 3
    assert len(set(held)) == 1
    trained = losses(folder, "train/loss")
    assert len(set(trained)) == len(trained)


def test_the_next_token_is_learnt_by_the_network_that_has_learnt_hidden_ones(place):
    folder = run(place, "phases", **PHASES)

    loaded = load_config(folder / "config.toml")
    assert [one.config.epoch for one in loaded.later] == [1]
    assert etude.Run(folder).predict(["red "])[0]
    report = (folder / "growth.json").read_text()
    assert '"new"' not in report.replace('"new": 0', "")
    assert "val/accuracy" in rows(folder)[-1]


def test_a_classifier_begins_with_the_encoder(place):
    masked = run(place, "masked")
    (place / "labels.tsv").write_text("".join(f"{'red dog' if n % 2 else 'old runs'}\t{n % 2}\n" for n in range(40)))
    config = CONFIG.replace('type = "language_model"\nobjective = "masked"\n', 'type = "classification"\n')
    config = config.replace("block_size = 16\n", "").replace("text.txt", "labels.tsv").replace("val.txt", "labels.tsv")
    (place / "classes.toml").write_text(
        config + '[init]\nfrom = [{ checkpoint = "runs/masked", match = "encoder.*" }]\n'
    )

    folder = run(place, "classes", config="classes.toml", **{"optimizer.learning_rate": 1e-30})

    before, after = read_weights(masked / "checkpoints/best"), read_weights(folder / "checkpoints/last")
    shared = [name for name in before if name.startswith("model.encoder.")]
    assert len(shared) > 8
    assert all((before[name] - after[name]).abs().max() < 1e-6 for name in shared)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"task.objective": "next"},
            'model.type "encoder" sees the token that comes next: take task.objective = "masked"',
        ),
        (
            {"model.type": "lstm"},
            'task.objective "masked" predicts from both sides, but model.type "lstm" has seen only one',
        ),
        ({"task.masks.hidden": 0.95}, "hidden and replaced must be at most 1 together"),
        ({"task.masks.share": 0}, "task.masks.share must be more than 0 and at most 1, but is 0"),
        ({"task.objective": "maskd"}, "task.objective"),
        ({"train.carry_hiddens": "true"}, "needs a model with hidden states, but an encoder has none"),
    ],
)
def test_what_cannot_be_is_told_at_the_start(changes, told, place):
    more = {"model": '{ type = "lstm" }'} if changes.pop("model.type", None) else {}
    with pytest.raises(ConfigError) as error:
        run(place, "wrong", **changes, **more)

    assert told in str(error.value)
