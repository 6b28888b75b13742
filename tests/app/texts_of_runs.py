"""A small folder of text, and a run on it that takes a second."""

import hashlib
import json
import random
from pathlib import Path

import etude

WORDS = [
    "the",
    "a",
    "red",
    "old",
    "new",
    "house",
    "hill",
    "dog",
    "cat",
    "ran",
    "over",
    "under",
    "stands",
    "sleeps",
    "on",
    "big",
    "small",
    "green",
    "field",
    "river",
]
CONFIG = """
[task]
type = "language_model"
max_tokens = 8
[data]
train = "texts"
block_size = 16
[tokenizer]
type = "bpe"
vocab_size = 300
[model]
layers = 1
heads = 2
d_model = 16
[train]
max_duration = "6 steps"
batch_size = 4
log_every = "1 step"
save_every = "2 steps"
eval_every = "3 steps"
device = "cpu"
precision = "float32"
"""
LSTM = {"model.type": "lstm", "model.layers": 1, "model.d_model": 16}
CARRIED = {**LSTM, "train.tbptt_steps": 8, "train.carry_hiddens": True}


def folder(path, files=12, seed=1):
    """A folder of short texts."""
    draw = random.Random(seed)
    path.mkdir()
    for number in range(files):
        lines = (" ".join(draw.choices(WORDS, k=6)) + ".\n" for _ in range(6))
        Path(path, f"{number:02}.txt").write_text("".join(lines))


def train(changes=(), name="lm"):
    """The run folder of a run with changes."""
    etude.train("lm.toml", {"run.name": name, **dict(changes)})
    return Path("runs", name)


def rows(run):
    """What the run logged, without what depends on the clock."""
    found = [json.loads(line) for line in Path(run, "metrics.jsonl").read_text().splitlines()]
    clock = ("_per_second", "_seconds", "_memory", "utilization")
    return [{k: v for k, v in row.items() if not k.startswith("time/") and not k.endswith(clock)} for row in found]


def values(run, name):
    """What the run logged of one metric."""
    return [row[name] for row in rows(run) if name in row]


def weights(run):
    """The hash of the last weights."""
    return hashlib.sha256(Path(run, "checkpoints", "last", "model.safetensors").read_bytes()).hexdigest()
