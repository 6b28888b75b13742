"""Small data, models and runs for the tests of the Python face."""

import torch
from torch import nn
from torch.utils.data import TensorDataset

import etude

QUIET = {"say": lambda _: None, "progress": False, "device": "cpu", "precision": "float32"}


def line(samples=24, seed=5):
    """Inputs [N, 4] and their sums [N, 1]."""
    draw = torch.Generator().manual_seed(seed)
    inputs = torch.randn(samples, 4, generator=draw)
    return TensorDataset(inputs, inputs.sum(1, keepdim=True))


def net(width=6, seed=1):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, 1))


def batches(samples=24, size=4):
    return [[inputs, targets] for inputs, targets in zip(*(t.split(size) for t in line(samples).tensors), strict=True)]


class Line(etude.Task):
    """Fits sums, and remembers what it was shown."""

    def __init__(self, width=6):
        super().__init__()
        self.net = net(width)
        self.seen = []
        self.validated = []

    def loss(self, batch):
        inputs, targets = batch
        error = (self.net(inputs) - targets).square()
        return etude.Loss(error.sum(), error.numel())

    def training_step(self, batch):
        self.seen.append(ids(batch))
        return self.loss(batch)

    def validation_step(self, batch):
        self.validated.append(ids(batch))
        return self.loss(batch)

    def predict_step(self, batch):
        return self.net(batch[0])


def ids(batch):
    """What tells samples apart: their first number."""
    return [round(float(value), 5) for value in batch[0][:, 0]]


def all_ids(samples=24):
    return ids(line(samples).tensors)


def fit(data=None, val=None, model=None, **options):
    """A run of `etude.fit` with mean squared error."""
    options = {"max_duration": "2 epochs", "learning_rate": 0.05, "batch_size": 4, **QUIET, **options}
    loss = options.pop("loss", etude.losses.MeanSquaredError())
    if data is not None and not isinstance(data, TensorDataset):
        options.pop("batch_size")
    return etude.fit(model or net(), line() if data is None else data, val, loss=loss, **options)


def trainer(**options):
    return etude.Trainer(
        **{
            "max_duration": "2 epochs",
            "learning_rate": 0.05,
            "batch_size": 4,
            "log_every": "1 step",
            **QUIET,
            **options,
        }
    )


def steps_with(result, key):
    """The steps whose rows hold `key`."""
    return [row["step"] for row in result.history if key in row]


def values(result, key):
    return [row[key] for row in result.history if key in row]
