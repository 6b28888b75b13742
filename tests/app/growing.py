"""A place with a small translation run that grows, and a callback that cuts it at chosen steps."""

import json
import random

from etude.app.running import train_run
from etude.tasks.config import load_config

CONFIG = """
callbacks = ["parts.py:Cuts"]
[task]
type = "translation"
metrics = []
[data]
train = "pairs.tsv"
val = "pairs.tsv"
[tokenizer]
type = "byte"
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
batch_size = 8
device = "cpu"
log_every = "1 step"
save_every = "2 steps"
keep_last = 20
[log]
progress = false
tensorboard = false
"""
DEEPER = '{ schedule = "stairs", values = [1, 2, 3], every = "1 epoch" }'
WIDER = '{ schedule = "stairs", values = [8, 12], at = ["0 epochs", "2 epochs"] }'
GROWING = {"model.encoder_layers": DEEPER, "model.d_model": WIDER}

PARTS = """
import os
from pathlib import Path

import torch
from torch import nn

import etude
from etude.model.loss import Loss

class Cut(BaseException):
    pass

class Cuts(etude.Callback):
    def on_step_end(self, run, outcome):
        steps = Path("cuts").read_text().split() if Path("cuts").exists() else []
        if str(run.progress.step) in steps:
            Path("cuts").write_text(" ".join(one for one in steps if one != str(run.progress.step)))
            raise Cut

class Net(nn.Module):
    def __init__(self, vocabulary, layers):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, 8)
        self.layers = nn.ModuleList([nn.Linear(8, 8) for _ in range(layers)])
        self.output = nn.Linear(8, vocabulary)

    def forward(self, source, target):
        hidden = self.embedding(target)
        for layer in self.layers:
            hidden = hidden + layer(hidden).tanh()
        return self.output(hidden)

def build_model(epoch, target_vocabulary, most=2):
    return Net(target_vocabulary, min(most, 1 + epoch // 2))

class Recites(etude.Task):
    \"\"\"Learns to say the source itself again.\"\"\"

    def __init__(self, model):
        super().__init__()
        self.model = model

    def training_step(self, batch):
        logits = self.model(batch.source, batch.source[:, :-1])
        targets = batch.source[:, 1:]
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")
        return Loss(loss, targets.numel())
"""


def write_place(folder):
    """Write the config, its data, and parts of the user's own."""
    draw = random.Random(1)
    words = [[draw.choice(["red", "old", "dog"]) for _ in range(draw.randint(1, 3))] for _ in range(40)]
    lines = [" ".join(line) + "\t" + " ".join(reversed(line)) for line in words]
    (folder / "pairs.tsv").write_text("source\ttarget\n" + "\n".join(lines) + "\n")
    (folder / "few.tsv").write_text("source\ttarget\n" + "\n".join(lines[:16]) + "\n")
    (folder / "parts.py").write_text(PARTS)
    (folder / "small.toml").write_text(CONFIG)


def run(place, name, cuts=(), config="small.toml", **given):
    """Train a run of this name, begun again after each cut; its folder."""
    overrides = [word for key, value in given.items() for word in (f"--{key}", str(value))]
    (place / "cuts").write_text(" ".join(map(str, cuts)))
    said = []
    for _ in range(len(cuts) + 1):
        try:
            train_run(load_config(config, [*overrides, "--run.name", name]), say=said.append)
        except BaseException as error:
            if type(error).__name__ != "Cut":
                raise
    assert not (place / "cuts").read_text()
    (place / "said").write_text("\n".join(said))
    return place / "runs" / name


def rows(folder):
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if not key.startswith("time/")} for row in found]


def stripped(found):
    return [
        {key: value for key, value in row.items() if "_per_second" not in key and "memory" not in key} for row in found
    ]


def files(folder):
    """The tensors of the last checkpoint."""
    return {file.name: file.read_bytes() for file in (folder / "checkpoints/last/").glob("*.safetensors")}


def losses(folder, key="train/loss"):
    return [row[key] for row in rows(folder) if key in row]
