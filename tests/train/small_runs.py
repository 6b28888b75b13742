"""Small runs for the laws of training: a task with dropout, ragged data, and what two runs must share."""

import json

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import etude

CLOCK = ("_seconds", "_per_second", "_memory")


class Regression(etude.Task):
    def __init__(self, width=8, dropout=0.3):
        super().__init__()
        torch.manual_seed(11)
        self.layers = nn.Sequential(nn.Linear(4, width), nn.Dropout(dropout), nn.Tanh(), nn.Linear(width, 1))

    def training_step(self, batch):
        inputs, targets = batch
        loss = (self.layers(inputs) - targets).square()
        self.log("error", loss.detach().abs().mean())
        return etude.Loss(loss.sum(), len(inputs))


def dataset(samples=50):
    draw = torch.Generator().manual_seed(5)
    inputs = torch.randn(samples, 4, generator=draw)
    return TensorDataset(inputs, inputs.sum(1, keepdim=True))


def loaders(workers=0, batch_size=8):
    options = {"batch_size": batch_size, "num_workers": workers}
    return DataLoader(dataset(), shuffle=True, **options), DataLoader(dataset(20), batch_size=batch_size)


def trainer(folder=None, **options):
    defaults = {
        "max_duration": "3 epochs",
        "save_every": "1 step",
        "log_every": "1 step",
        "eval_every": "0.5 epochs",
        "clip_grad": 1.0,
        "ema_decay": 0.9,
        "learning_rate": {"schedule": "linear", "peak": 1e-2, "over": "21 steps"},
        "device": "cpu",
        "run_dir": folder,
        "say": lambda _: None,
    }
    return etude.Trainer(**{**defaults, **options})


def rows(folder):
    """What a run logged, without what depends on the clock."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [without_clock(json.loads(line)) for line in lines]


def without_clock(row):
    return {key: value for key, value in row.items() if not key.startswith("time/") and not key.endswith(CLOCK)}


def weights(folder, name="last"):
    """The bytes of a checkpoint's files, by name."""
    place = folder / "checkpoints" / name
    return {file.name: file.read_bytes() for file in place.glob("*.safetensors")}
